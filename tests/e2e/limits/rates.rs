//! Registrations by address and by agent; bytes of one agent.

use conexus_protocol::{Draft, ErrorCode, Identity, Metadata, Subprotocol};

use super::{agent_from, gateway_with};
use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    process::{Process, folder_with},
    scrape::Scrape,
};

const REFUSED: &str = "conexus_registrations_refused_total";

/// Sends a REGISTER: none where it is taken, else the correlation and the close code.
async fn refused(mut agent: Agent) -> Option<u16> {
    let draft = Draft::new(agent.did(), agent.registration());
    agent.send(draft.sign(&agent.identity)).await;
    let text = agent.text().await;
    if text.contains("\"REGISTERED\"") {
        return None;
    }
    let refusal = agent.read_refusal(&text);
    assert_eq!(refusal.code, ErrorCode::ConnectionRefused, "{text}");
    assert_eq!(refusal.reason.as_deref(), Some("rate_limited"), "{text}");
    assert_eq!(refusal.correlation_id.as_deref(), Some(draft.id.as_str()));
    Some(agent.close().await.0)
}

#[tokio::test]
async fn registrations_of_an_address_are_limited_and_failed_ones_count() {
    let (_folder, gateway) = gateway_with(&[
        "limits.registrations_per_second_per_address=1",
        "limits.registration_burst_per_address=3",
    ])
    .await;
    // Connected beforehand, so that little time goes by.
    let mut agents = Vec::new();
    for _ in 0..10 {
        agents.push(agent_from("127.0.0.2", gateway.addr).await.unwrap());
    }
    for _ in 0..2 {
        let mut liar = agents.pop().unwrap();
        liar.nonce = Some("not the one".to_owned());
        let draft = Draft::new(liar.did(), liar.registration());
        liar.send(draft.sign(&liar.identity)).await;
        assert_eq!(liar.refusal().await.code, ErrorCode::InvalidSignature);
    }
    let mut codes = Vec::new();
    for agent in agents {
        codes.push(refused(agent).await);
    }
    assert_eq!(codes[0], None, "{codes:?}");
    assert!(codes.contains(&Some(4008)), "{codes:?}");
    assert_eq!(refused(agent_from("127.0.0.3", gateway.addr).await.unwrap()).await, None);
    let over = codes.iter().filter(|code| code.is_some()).count();
    let counted =
        move |scrape: &Scrape| scrape.count(REFUSED, &[("reason", "address_rate")]) == over as u64;
    Scrape::once(&gateway, "the refusals to be counted", counted).await;
}

#[tokio::test]
async fn two_programs_with_one_key_are_slowed_and_strangers_cannot_use_it_up() {
    let gateway = TestGateway::start_with(|s| s.limits.registrations_per_minute_per_did = 3).await;
    let pem = Identity::generate().to_pem();
    let identity = || Identity::from_pem(&pem).unwrap();
    let visitor = async || Agent::connect_as(&gateway, Subprotocol::V1_1, identity()).await;
    // In its name, but with no proof.
    for _ in 0..5 {
        let mut stranger = visitor().await;
        stranger.nonce = Some("of another connection".to_owned());
        let register = stranger.registration();
        stranger.send(Draft::new(stranger.did(), register).sign(&stranger.identity)).await;
        assert_eq!(stranger.refusal().await.code, ErrorCode::InvalidSignature);
    }
    let mut holder = None;
    for _ in 0..3 {
        let mut agent = visitor().await;
        agent.register().await.unwrap();
        holder = Some(agent);
    }
    assert_eq!(refused(visitor().await).await, Some(4008));
    let mut holder = holder.unwrap();
    holder.ping().await;
    // Its own renewals are another matter.
    holder.register().await.unwrap();
    assert_eq!(refused(Agent::connect(&gateway, Subprotocol::V1_1).await).await, None);
}

#[tokio::test]
async fn bytes_over_the_rate_are_refused_and_strikes_end_the_connection() {
    let (_folder, gateway) = gateway_with(&[
        "limits.bytes_per_second=1KiB",
        "limits.bytes_burst=64KiB",
        "limits.rate_strikes=3",
    ])
    .await;
    let mut target = gateway.agent().await;
    let mut agent = gateway.agent().await;
    let large = "x".repeat(30 * 1024);
    for _ in 0..2 {
        let (_, text) = agent.send_offer(&target.did(), &large).await;
        assert_eq!(target.text().await, text);
    }
    // Small ones still fit in.
    let (_, text) = agent.send_offer(&target.did(), "x").await;
    assert_eq!(target.text().await, text);
    for _ in 0..4 {
        let (id, _) = agent.send_offer(&target.did(), &large).await;
        let refusal = agent.refusal().await;
        assert_eq!(refusal.reason.as_deref(), Some("rate_limited"));
        assert_eq!(refusal.correlation_id, Some(id));
    }
    assert_eq!(agent.close().await.0, 4008);
    let scrape = Scrape::of(&gateway).await;
    let limited = "conexus_rate_limited_messages_total";
    assert_eq!(scrape.count(limited, &[("limit", "bytes")]), 4);
    assert_eq!(scrape.count(limited, &[("limit", "messages")]), 0);
    assert_eq!(scrape.count("conexus_messages_refused_total", &[("reason", "rate_limited")]), 4);
}

#[tokio::test]
async fn a_rate_class_has_bytes_of_its_own() {
    const POLICY: &str = "[limits]\nbytes_per_second = \"1KiB\"\n\
        [rate_class.bulk]\nbytes_per_second = \"10MiB\"\n\
        [hook.classes]\nuse = \"script:classes\"\n[[chain.on_register]]\nhook = \"classes\"\n";
    const CLASSES: &str = "fn on_register(event) { if event.agent.name == \"bulk\" { set(#{ rate_class: \"bulk\" }) } }";
    let folder = folder_with(&[("gateway.toml", POLICY), ("scripts/classes.rhai", CLASSES)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut target = gateway.agent().await;
    let mut bulk = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    let metadata = Metadata { name: Some("bulk".to_owned()), ..Metadata::default() };
    bulk.register_with(bulk.with_metadata(metadata)).await;
    let mut usual = gateway.agent().await;
    let large = "x".repeat(40 * 1024);
    for _ in 0..10 {
        let (_, text) = bulk.send_offer(&target.did(), &large).await;
        assert_eq!(target.text().await, text);
    }
    let (_, text) = usual.send_offer(&target.did(), &large).await;
    assert_eq!(target.text().await, text);
    usual.send_offer(&target.did(), &large).await;
    assert_eq!(usual.refusal().await.reason.as_deref(), Some("rate_limited"));
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_counted() {
    let (_folder, gateway) =
        gateway_with(&["limits.message_bytes=4KiB", "limits.metadata_bytes=64B"]).await;
    let target = gateway.agent().await;
    let mut agent = gateway.agent().await;
    agent.send_offer(&target.did(), &"x".repeat(5000)).await;
    assert_eq!(agent.close().await.0, 1009);
    let mut stranger = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    stranger.send("x".repeat(5000)).await;
    assert_eq!(stranger.close().await.0, 1009);
    let mut named = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    let metadata = Metadata { name: Some("x".repeat(100)), ..Metadata::default() };
    let register = named.with_metadata(metadata);
    named.send(Draft::new(named.did(), register).sign(&named.identity)).await;
    let refusal = named.refusal().await;
    assert_eq!(refusal.code, ErrorCode::MalformedMessage);
    assert_eq!(refusal.member.as_deref(), Some("payload.metadata"));
    assert_eq!(named.close().await.0, 4000);
    let counted = |scrape: &Scrape| {
        let of = |what| scrape.count("conexus_oversize_total", &[("what", what)]);
        (of("message"), of("metadata")) == (2, 1)
    };
    Scrape::once(&gateway, "what was too large to be counted", counted).await;
}
