//! Clients' certificates: asked for, checked, and seen by policy.

use std::{net::SocketAddr, sync::Arc};

use conexus_client::{ConnectError, Identity};
use conexus_gateway::config::ClientAuth;
use rustls::{
    ClientConfig, HandshakeKind,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    gateway::TestGateway,
    pki::{Authority, Pki, VERSIONS, shake},
    process::{Process, write},
    soon, until,
};

/// A gateway that asks for certificates of its own authority.
async fn asking(pki: &Pki, how: ClientAuth) -> TestGateway {
    pki.gateway(|s| {
        s.tls.client_ca = Some(pki.path("ca.pem"));
        s.tls.client_auth = how;
    })
    .await
}

async fn dial(
    pki: &Pki,
    gateway: &TestGateway,
    pair: Option<&crate::support::pki::Pair>,
) -> Result<conexus_client::Client, ConnectError> {
    let mut builder = pki.sdk(&gateway.url(), Identity::generate()).no_reconnect();
    if let Some(pair) = pair {
        builder = builder.client_certificate(pair.certificate.clone(), pair.key.clone());
    }
    soon("an outcome", builder.connect()).await
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_checked_as_the_configuration_says() {
    let pki = Pki::new();
    let good = pki.authority.client("agent-7");
    let bad = Authority::new("test").client("agent-7");
    for (how, without, with_bad) in [
        (ClientAuth::Off, true, true),
        (ClientAuth::Optional, true, false),
        (ClientAuth::Required, false, false),
    ] {
        let gateway = asking(&pki, how).await;
        assert!(dial(&pki, &gateway, Some(&good)).await.is_ok(), "{how:?}");
        assert_eq!(dial(&pki, &gateway, None).await.is_ok(), without, "{how:?}");
        assert_eq!(dial(&pki, &gateway, Some(&bad)).await.is_ok(), with_bad, "{how:?}");
        let bad = u64::from(!with_bad);
        until("it to be counted", || gateway.tls_failures("bad_certificate") == bad).await;
    }
}

#[tokio::test]
async fn who_shows_none_or_a_bad_one_is_told_what_is_wrong() {
    let pki = Pki::new();
    let gateway = asking(&pki, ClientAuth::Required).await;
    let error = dial(&pki, &gateway, None).await.unwrap_err();
    assert!(error.to_string().contains("a client certificate is required"), "{error}");
    let stranger = Authority::new("test").client("agent-7");
    let error = dial(&pki, &gateway, Some(&stranger)).await.unwrap_err();
    assert_eq!(error.to_string(), "the gateway does not take the client certificate");
}

const MEMBERS: &str = r#"
fn on_connect(event) {
    if event.tls == () { return deny("denied", "in the clear"); }
    let client = event.tls.client;
    if client == () { return deny("denied", `TLS ${event.tls.version} without a certificate`); }
    if client.common_name != "agent-7" { return deny("denied", `${client.subject} is no member`); }
    if client.uris != ["spiffe://example/agent-7"] || client.dns_names != ["agent-7.agents.example"] {
        return deny("denied", `${client.uris} ${client.dns_names}`);
    }
    if client.issuer != "CN=test" || client.fingerprint.len != 64 || client.not_after < now() {
        return deny("denied", `${client.issuer} ${client.fingerprint} ${client.not_after}`);
    }
    conn_set("member", client.common_name);
}

fn on_register(event) {
    set(#{ labels: #{ member: conn_get("member") } })
}
"#;

#[tokio::test]
async fn policy_sees_whose_certificate_it_is() {
    let pki = Pki::new();
    write(&pki.path("scripts/members.rhai"), MEMBERS);
    write(
        &pki.path("gateway.toml"),
        r#"
[tls]
certificate = "cert.pem"
key = "key.pem"
client_ca = "ca.pem"
client_auth = "optional"

[hook.members]
use = "script:members"

[[chain.on_connect]]
hook = "members"

[[chain.on_register]]
hook = "members"
"#,
    );
    let process = Process::start(pki.folder.path(), &[]).await;
    let url = format!("wss://{}/ws", process.addr);
    let dial = async |name: Option<&str>| {
        let mut builder = pki.sdk(&url, Identity::generate()).no_reconnect();
        if let Some(name) = name {
            let pair = pki.authority.client(name);
            builder = builder.client_certificate(pair.certificate, pair.key);
        }
        soon("an outcome", builder.connect()).await
    };
    let words = |error: ConnectError| error.to_string();
    let error = words(dial(None).await.unwrap_err());
    assert!(error.contains("TLS 1.3 without a certificate"), "{error}");
    let error = words(dial(Some("mallory")).await.unwrap_err());
    assert!(error.contains("CN=mallory,O=Example is no member"), "{error}");
    let member = dial(Some("agent-7")).await.unwrap();
    let path = format!("/api/v1/agents/{}", member.did());
    let (status, agent) = crate::support::http::get(process.admin, &path, &[]).await;
    assert_eq!((status, &agent["labels"]["member"]), (200, &serde_json::json!("agent-7")));
    assert!(process.stop().await.success());
}

/// The answer to a GET, and whether the session was resumed.
async fn get(addr: SocketAddr, config: Arc<ClientConfig>, path: &str) -> (String, bool) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let mut stream = shake(addr, config, socket).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = soon("an answer", stream.read_to_string(&mut answer)).await;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    (answer, resumed)
}

#[tokio::test]
async fn a_client_whose_certificate_is_asked_for_is_verified_each_time() {
    let pki = Pki::new();
    for versions in [&[&TLS13][..], &[&TLS12][..]] {
        for how in [ClientAuth::Off, ClientAuth::Optional, ClientAuth::Required] {
            let gateway = asking(&pki, how).await;
            let config = pki.authority.config(Some(&pki.authority.client("agent-7")), versions);
            for again in [false, true] {
                let (answer, resumed) = get(gateway.addr, config.clone(), "/health").await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                assert_eq!(resumed, again && how == ClientAuth::Off, "{how:?}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_certificate_that_is_required_only_health_can_be_asked_for() {
    let pki = Pki::new();
    let gateway = asking(&pki, ClientAuth::Required).await;
    let nobody = || pki.authority.config(None, VERSIONS);
    for path in ["/health", "/ready"] {
        let (answer, _) = get(gateway.addr, nobody(), path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let somebody = pki.authority.config(Some(&pki.authority.client("agent-7")), VERSIONS);
    for path in ["/agents", "/ice", "/ws"] {
        let (answer, _) = get(gateway.addr, nobody(), path).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
        assert!(answer.ends_with(r#"{"error":"a client certificate is required"}"#), "{answer}");
        let (answer, _) = get(gateway.addr, somebody.clone(), path).await;
        assert!(!answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
    }
}
