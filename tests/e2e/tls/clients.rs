//! Clients' certificates: asked for, checked, and seen by policy.

use conexus_client::{ConnectError, Identity};
use conexus_gateway::config::ClientAuth;

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
        let failures = |reason: &str| gateway.tls_failures(reason);
        until("them to be counted", || {
            failures("no_certificate") == u64::from(!without)
                && failures("bad_certificate") == u64::from(!with_bad)
        })
        .await;
    }
}

#[tokio::test]
async fn who_shows_none_or_a_bad_one_is_told_what_is_wrong() {
    let pki = Pki::new();
    let gateway = asking(&pki, ClientAuth::Required).await;
    let error = dial(&pki, &gateway, None).await.unwrap_err();
    assert_eq!(error.to_string(), "the gateway asks for a client certificate");
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

#[tokio::test]
async fn a_resumed_session_is_of_the_same_client() {
    let pki = Pki::new();
    let gateway = asking(&pki, ClientAuth::Required).await;
    let config = pki.authority.config(Some(&pki.authority.client("agent-7")), VERSIONS);
    for resumed in [false, true] {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let mut stream = shake(gateway.addr, config.clone(), socket).await.unwrap();
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        let _ = soon("an answer", stream.read_to_string(&mut answer)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed);
    }
}
