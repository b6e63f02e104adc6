//! Nothing that an agent chooses becomes a label: however many odd ones there are, the series stay
//! the same.

use std::collections::BTreeSet;

use conexus_protocol::{Identity, Metadata, Subprotocol};

use crate::support::{
    http,
    process::{Process, folder_with},
    scrape::{Sample, Scrape},
};

const CONFIG: &str = "[policy]\nwatch = false\n[limits]\nbad_messages_per_minute = 100000\n\
    [hook.gate]\nuse = \"script:gate\"\n[[chain.on_route]]\nhook = \"gate\"\n";
const GATE: &str = "fn on_route(event) {\n    metric(\"seen\");\n    \
    if event.payload_text.contains(\"no\") { deny(\"denied\", event.payload_text) }\n}\n";

/// What nobody but an agent would say.
const MARK: &str = "chosen";

fn series(scrape: &Scrape) -> BTreeSet<String> {
    scrape.samples().map(|Sample { name, labels, .. }| format!("{name}{labels:?}")).collect()
}

#[tokio::test]
async fn agents_add_no_series_whatever_they_call_things() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/gate.rhai", GATE)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut agents = Vec::new();
    let before = async |agents: &mut Vec<_>, number: usize| {
        let mut agent = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
        let metadata = Metadata {
            name: Some(format!("{MARK} {number}\n\"}} 1")),
            capabilities: vec![format!("{MARK}-{number}")],
            attributes: [(format!("{MARK}{number}"), format!("{MARK}{number}"))].into(),
        };
        agent.register_with(agent.with_metadata(metadata)).await;
        // To itself, to nobody, to what is no name; of no known type; denied; no message at all.
        agent.send_offer(&agent.did(), MARK).await;
        agent.text().await;
        agent.send_offer(Identity::generate().did(), MARK).await;
        agent.refusal().await;
        agent.send_offer(&format!("did:web:{MARK}{number}"), MARK).await;
        agent.refusal().await;
        agent.send_offer(&agent.did(), &format!("no {MARK}{number}")).await;
        agent.refusal().await;
        let (_, offer) = agent.offer(&agent.did(), MARK);
        let kind = format!(r#""type":"{MARK}_{number}""#);
        agent.send(offer.replace(r#""type":"OFFER""#, &kind)).await;
        agent.refusal().await;
        agent.send(format!("{MARK} {number}")).await;
        agent.refusal().await;
        http::refused_upgrade(gateway.addr, &format!("/{MARK}{number}?{MARK}={number}")).await;
        agents.push(agent);
    };
    before(&mut agents, 0).await;
    let first = series(&Scrape::of(&gateway).await);
    for number in 1..30 {
        before(&mut agents, number).await;
    }
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(series(&scrape), first);
    assert!(!scrape.text.contains(MARK), "{}", scrape.text);
    for agent in &agents {
        assert!(!scrape.text.contains(&agent.did()), "{}", agent.did());
    }
    assert!(first.len() < 400, "{} series", first.len());
}
