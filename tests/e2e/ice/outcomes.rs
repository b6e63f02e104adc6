//! `POST /ice/outcome`: what agents tell of how they connected is counted, and nobody else's word is.

use std::{net::SocketAddr, time::Duration};

use conexus_client::{CandidateKind, CandidateProtocol, Client, HttpError, IceOutcome};
use conexus_protocol::{AgentToken, Identity, Subprotocol, Timestamp};
use serde_json::{Value, json};

use super::{MINUTE, token};
use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    http,
    process::{Process, folder_with},
    scrape::Scrape,
    soon,
};

const CONNECTED: &str =
    r#"{"outcome":"connected","local":"host","remote":"relay","transport":"udp","duration_ms":70}"#;
const FAILED: &str = r#"{"outcome":"failed","duration_ms":15000}"#;

/// Tells it: status, head, body.
async fn report(addr: SocketAddr, token: &str, body: &str) -> (u16, String, Value) {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    http::post(addr, "/ice/outcome", &headers, body).await
}

#[tokio::test]
async fn what_agents_tell_is_counted_and_what_is_malformed_is_named() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "ice.outcomes=true"]).await;
    let mut agent = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    agent.register().await.unwrap();
    let mine = token(&agent);
    for body in [CONNECTED, CONNECTED, FAILED] {
        let (status, head, said) = report(gateway.addr, &mine, body).await;
        assert_eq!((status, said), (204, Value::Null));
        assert!(head.to_ascii_lowercase().contains("cache-control: no-store"), "{head}");
    }
    for (body, expected, member) in [
        (r#"{"outcome":"failed","duration_ms":1,"did":"did:key:z"}"#, 422, "did"),
        (
            r#"{"outcome":"connected","local":"host","remote":"x","transport":"udp"}"#,
            422,
            "remote: ",
        ),
        (r#"{"outcome":"connected","local":"host","duration_ms":1}"#, 422, "remote: "),
        (r#"{"outcome":"failed","duration_ms":999999999}"#, 422, "duration_ms: "),
        ("{", 400, "EOF"),
        (&" ".repeat(2000), 413, ""),
    ] {
        let (status, _, said) = report(gateway.addr, &mine, body).await;
        let error = said["error"].as_str().unwrap();
        assert_eq!(status, expected, "{body}: {error}");
        assert!(error.contains(member), "{body}: {error}");
    }
    let bearer = format!("Bearer {mine}");
    let plain = [("Authorization", bearer.as_str())];
    assert_eq!(http::post(gateway.addr, "/ice/outcome", &plain, FAILED).await.0, 415);
    // Turns are used up by whatever is told: three, six and one by now.
    let stranger = Identity::generate();
    let theirs = AgentToken::sign(&stranger, &agent.url, Timestamp::now(), MINUTE);
    assert_eq!(report(gateway.addr, &theirs, CONNECTED).await.0, 401);
    assert_eq!(report(gateway.addr, "planted", CONNECTED).await.0, 401);

    let scrape = Scrape::of(&gateway).await;
    let pair = |outcome, local, remote, transport| {
        [("outcome", outcome), ("local", local), ("remote", remote), ("transport", transport)]
    };
    for (labels, count) in [
        (pair("connected", "host", "relay", "udp"), 2),
        (pair("connected", "relay", "host", "udp"), 0),
        (pair("failed", "none", "none", "none"), 1),
    ] {
        assert_eq!(scrape.count("conexus_ice_outcomes_total", &labels), count, "{labels:?}");
    }
    for (bound, count) in [("0.05", 0), ("0.1", 2), ("+Inf", 2)] {
        let labels = [("le", bound)];
        assert_eq!(scrape.count("conexus_ice_connect_seconds_bucket", &labels), count, "{bound}");
    }
    for (outcome, count) in
        [("ok", 3), ("malformed", 7), ("unauthenticated", 1), ("not_registered", 1)]
    {
        let labels = [("outcome", outcome)];
        assert_eq!(scrape.count("conexus_ice_reports_total", &labels), count, "{outcome}");
    }
}

#[tokio::test]
async fn an_agent_that_tells_too_much_is_not_listened_to_and_may_ask_for_servers_all_the_same() {
    let gateway = TestGateway::start_with(|s| {
        s.ice.outcomes = true;
        s.ice.requests_per_minute = 2;
    })
    .await;
    let (agent, other) = (Agent::v1_1(&gateway).await, Agent::v1_1(&gateway).await);
    let mine = token(&agent);
    for expected in [204, 204, 429, 429] {
        let (status, head, _) = report(gateway.addr, &mine, CONNECTED).await;
        assert_eq!(status, expected);
        assert_eq!(head.to_ascii_lowercase().contains("retry-after"), status == 429, "{head}");
    }
    assert_eq!(super::ask(gateway.addr, &mine).await.0, 200);
    assert_eq!(report(gateway.addr, &token(&other), CONNECTED).await.0, 204);
}

#[tokio::test]
async fn without_the_setting_there_is_nothing_to_tell() {
    let gateway = TestGateway::start().await;
    let agent = Agent::v1_1(&gateway).await;
    let (status, _, said) = report(gateway.addr, &token(&agent), CONNECTED).await;
    let error = "outcomes of ICE are not collected here (ice.outcomes)";
    assert_eq!((status, said), (404, json!({ "error": error })));
}

#[tokio::test]
async fn a_client_tells_it_and_is_told_where_nobody_listens() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "ice.outcomes=true"]).await;
    let connect = |addr: SocketAddr| {
        Client::builder(format!("ws://{addr}/ws"), Identity::generate()).no_reconnect().connect()
    };
    let client = soon("the client", connect(gateway.addr)).await.unwrap();
    let (local, remote) = (CandidateKind::Host, CandidateKind::PeerReflexive);
    let took = Duration::from_millis(15);
    let protocol = CandidateProtocol::Udp;
    let connected = IceOutcome::Connected { local, remote, protocol, took };
    for outcome in [connected, IceOutcome::Failed { took }] {
        soon("it to be taken", client.report_ice_outcome(outcome)).await.unwrap();
    }
    let scrape = Scrape::of(&gateway).await;
    for (outcome, remote) in [("connected", "prflx"), ("failed", "none")] {
        let labels = [("outcome", outcome), ("remote", remote)];
        assert_eq!(scrape.count("conexus_ice_outcomes_total", &labels), 1, "{outcome}");
    }

    let deaf = TestGateway::start().await;
    let client = soon("the client", connect(deaf.addr)).await.unwrap();
    let error = soon("a refusal", client.report_ice_outcome(connected)).await.unwrap_err();
    assert!(matches!(error, HttpError::Refused { status: 404, .. }), "{error}");
    assert!(error.to_string().contains("ice.outcomes"), "{error}");
}
