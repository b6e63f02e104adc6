//! Handshakes that are made, and handshakes that are not.

use std::{sync::Arc, time::Duration};

use conexus_client::{
    Client, ConnectError, Identity, Message,
    protocol::{Answer, Offer, Payload, Subprotocol},
};
use conexus_gateway::config::TlsVersion;
use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    http,
    pki::{Authority, Pki, VERSIONS, version},
    soon, until,
};

#[tokio::test]
async fn agents_offer_and_answer_over_tls() {
    let pki = Pki::new();
    let gateway = pki.gateway(|_| {}).await;
    assert!(gateway.url().starts_with("wss://"));
    let connect = || soon("a client", pki.sdk(&gateway.url(), Identity::generate()).connect());
    let (a, b) = (connect().await.unwrap(), connect().await.unwrap());
    assert_eq!(a.session().unwrap().subprotocol, Subprotocol::V1_1, "it knows its own name");
    let handle = b.handle();
    b.on_message_async(move |message: Arc<Message>| {
        let handle = handle.clone();
        async move {
            let Payload::Offer(offer) = &message.payload else { return Ok(()) };
            handle.reply(&message, Answer { sdp: offer.sdp.clone() }).await.map(drop)
        }
    });
    // Several records each way.
    let sdp = "v=0 ".repeat(12_000);
    let offer = Offer { sdp: sdp.clone() };
    let answer = soon("an answer", a.send_confirmed(b.did(), offer, None)).await.unwrap();
    assert_eq!(answer.payload, Answer { sdp }.into());
}

#[tokio::test]
async fn what_is_not_trusted_is_said_clearly_and_no_word_is_spoken() {
    let pki = Pki::new();
    let gateway = pki.gateway(|_| {}).await;
    let words = async |builder: conexus_client::Builder| {
        let error = soon("a refusal", builder.no_reconnect().connect()).await.unwrap_err();
        assert!(matches!(error, ConnectError::TlsHandshake(_)), "{error:?}");
        error.to_string()
    };
    let stranger = Client::builder(gateway.url(), Identity::generate());
    assert_eq!(
        words(stranger).await,
        "the gateway's certificate is of an authority that is not trusted here"
    );
    pki.install(&pki.authority.elsewhere());
    let other_name = pki.gateway(|_| {}).await;
    assert_eq!(
        words(pki.sdk(&other_name.url(), Identity::generate())).await,
        "the gateway's certificate is for another name than the one dialed"
    );
    pki.install(&pki.authority.expired());
    let expired = pki.gateway(|_| {}).await;
    assert_eq!(
        words(pki.sdk(&expired.url(), Identity::generate())).await,
        "the gateway's certificate has expired"
    );
    let plain = TestGateway::start().await;
    let url = plain.url().replace("ws://", "wss://");
    assert_eq!(
        words(pki.sdk(&url, Identity::generate())).await,
        "the gateway's port does not speak tls"
    );
    assert_eq!(gateway.counters().received, 0);
}

#[tokio::test]
async fn both_versions_are_spoken_unless_the_older_one_is_refused() {
    let pki = Pki::new();
    let both = pki.gateway(|_| {}).await;
    let newer = pki.gateway(|s| s.tls.min_version = TlsVersion::V1_3).await;
    for (wanted, expected) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let stream = pki.shake(both.addr, None, &[wanted]).await.unwrap();
        assert_eq!(version(&stream), expected);
    }
    assert!(pki.shake(newer.addr, None, &[&TLS13]).await.is_ok());
    let error = pki.shake(newer.addr, None, &[&TLS12]).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    assert_eq!(newer.tls_failures("incompatible"), 1);
}

#[tokio::test]
async fn a_session_is_resumed_by_its_ticket() {
    let pki = Pki::new();
    let gateway = pki.gateway(|_| {}).await;
    let config = pki.authority.config(None, VERSIONS);
    for resumed in [false, true] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let shaken = crate::support::pki::shake(gateway.addr, Arc::clone(&config), socket).await;
        let mut stream = shaken.unwrap();
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        // The ticket comes along with the answer.
        let mut answer = String::new();
        let _ = soon("an answer", stream.read_to_string(&mut answer)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed);
    }
}

#[tokio::test]
async fn plain_http_is_told_that_this_is_a_tls_port() {
    let pki = Pki::new();
    let gateway = pki.gateway(|_| {}).await;
    let (status, body) = http::get(gateway.addr, "/health", &[]).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"], "this is a TLS port: use wss:// or https://");
    until("it to be counted", || gateway.tls_failures("plain_http") == 1).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_get_on_loses_its_place() {
    let pki = Pki::new();
    let gateway = pki
        .gateway(|s| {
            s.limits.connections = 2;
            s.limits.handshake_timeout = Duration::from_millis(300);
        })
        .await;
    // One says nothing at all.
    let mut silent = TcpStream::connect(gateway.addr).await.unwrap();
    // The other drips: a record of 512 bytes, one by one.
    let mut dripping = TcpStream::connect(gateway.addr).await.unwrap();
    dripping.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    until("both to have a place", || gateway.connections() == 2).await;
    let drip = async {
        while dripping.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the dripping to be cut off", drip).await;
    let mut end = [0; 1];
    assert_eq!(soon("the end", silent.read(&mut end)).await.unwrap_or(0), 0);
    until("the places to be free", || gateway.connections() == 0).await;
    assert_eq!(gateway.tls_failures("timeout"), 2);
    pki.agent(&gateway, Identity::generate()).await;
}

#[tokio::test]
async fn what_is_no_tls_is_counted_and_harms_nobody() {
    let pki = Pki::new();
    let gateway = pki.gateway(|_| {}).await;
    // Whoever says nothing only looks whether the port is open.
    for bytes in [b"", &b"\x16\x03\x01\x00\x05hello"[..], b"\x00\x00\x00", &[22; 300]] {
        let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    }
    let failed = || gateway.tls_failures("malformed") + gateway.tls_failures("closed");
    until("all to be counted", || failed() == 3).await;
    pki.agent(&gateway, Identity::generate()).await;
}

#[tokio::test]
async fn whoever_is_over_a_limit_is_told_nothing_in_the_clear() {
    let pki = Pki::new();
    let gateway = pki.gateway(|s| s.limits.connections = 1).await;
    let _agent = pki.agent(&gateway, Identity::generate()).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_gateway_is_counted_as_that() {
    let pki = Pki::new();
    let gateway = pki.gateway(|_| {}).await;
    let other = Authority::new("somebody else");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let config = other.config(None, VERSIONS);
    assert!(crate::support::pki::shake(gateway.addr, config, socket).await.is_err());
    until("it to be counted", || gateway.tls_failures("refused_by_client") == 1).await;
}

#[tokio::test]
async fn agents_in_the_clear_and_over_tls_are_different_gateways_to_a_registration() {
    let pki = Pki::new();
    let gateway = pki.gateway(|_| {}).await;
    let config = pki.authority.config(None, VERSIONS);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let stream = crate::support::pki::shake(gateway.addr, config, socket).await.unwrap();
    let stream = tokio_tungstenite::MaybeTlsStream::Rustls(stream);
    let url = format!("ws://localhost:{}/ws", gateway.addr.port());
    let mut agent = Agent::connect_on(stream, url, Subprotocol::V1_1, Identity::generate()).await;
    let register = agent.registration();
    let text = conexus_protocol::Draft::new(agent.did(), register).sign(&agent.identity);
    agent.send(text).await;
    assert_eq!(agent.refusal().await.code, conexus_protocol::ErrorCode::InvalidSignature);
}
