//! The same policy in both languages agrees on whatever happens.
//!
//! Each side has an engine of its own, and so state of its own, which has to agree as well: limits
//! and counters run through the whole sequence. A limit's time is a day, so that the clock has no
//! part in it.

use std::{collections::BTreeMap, sync::Arc};

use conexus_gateway::{config::RateClass, hooks::Engine, script::STACK_BYTES};
use conexus_plugin_api::{
    Agent, Metadata, Point,
    host::{ClientCertificate, Connect, Event, Expire, Register, Route, Tls, Watch},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;

use super::{
    events::{Ruled, VERDICT_POINTS, agent, decided, message},
    setup::{Setup, hook},
};

/// So many sequences side by side, each with engines of its own.
const SEQUENCES: u64 = 4;
/// A hundred thousand in all.
const EVENTS: usize = 25_000;
const KINDS: [&str; 7] =
    ["OFFER", "ANSWER", "ICE_CANDIDATE", "ERROR", "INTENT", "EXEC_REQUEST", "EXEC_RESPONSE"];
const REGIONS: [&str; 3] = ["eu", "us", "Ωmega"];

fn engine(native: bool) -> Arc<Engine> {
    let mut setup = Setup::new();
    setup.settings.policies.rate_classes.insert("gold".into(), RateClass::default());
    if native {
        setup.probe("policy", json!({ "act": "policy" }));
    } else {
        setup.script("policy", include_str!("agreement.rhai"));
    }
    for point in VERDICT_POINTS {
        setup.at(point, "policy");
    }
    setup.engine()
}

/// Events at random, each kind of thing often enough to meet every condition.
struct Chance(StdRng);

impl Chance {
    fn one_in(&mut self, count: u32) -> bool {
        self.0.random_ratio(1, count)
    }

    fn of<T: Copy>(&mut self, things: &[T]) -> T {
        *things.choose(&mut self.0).unwrap()
    }

    fn agent(&mut self) -> Agent {
        let mut agent = agent(self.0.random_range(1..=40));
        let mut labels = BTreeMap::new();
        if !self.one_in(4) {
            labels.insert("region".to_owned(), self.of(&REGIONS).to_owned());
        }
        if self.one_in(6) {
            labels.insert("roaming".to_owned(), String::new());
        }
        let mut metadata = Metadata::default();
        if self.one_in(2) {
            metadata.name = Some(self.of(&["gold", "golden eagle", "Gold", "", "x"]).to_owned());
        }
        if !self.one_in(3) {
            metadata.capabilities.push(self.of(&["chat", "Chat", "files"]).to_owned());
        }
        if self.one_in(2) {
            metadata.attributes.insert("region".to_owned(), self.of(&REGIONS).to_owned());
        }
        (agent.labels, agent.metadata) = (labels, metadata);
        agent
    }

    fn message(&mut self, present: bool) -> Arc<Route> {
        let (from, to) = (self.agent(), self.agent());
        let payload = format!(r#"{{"sdp":"{}"}}"#, "é".repeat(self.0.random_range(0..250)));
        let answers = self.one_in(3).then_some("2");
        let kind = self.of(&KINDS);
        Arc::new(message(from, &to, present, kind, &payload, answers))
    }

    fn connect(&mut self) -> Connect {
        let mut headers = vec![("host".to_owned(), "gateway".to_owned())];
        for _ in 0..self.0.random_range(0..4) {
            let (name, value) = (self.of(&["x-badge", "cookie"]), self.of(&["trusted", "", "Ω"]));
            headers.push((name.to_owned(), value.to_owned()));
        }
        Connect {
            address: ([10, 0, 0, self.0.random_range(0..60)], 50_000).into(),
            path: self.of(&["/ws", "/ws", "/ws", "/ws/"]).to_owned(),
            query: self.of(&["", "debug=0", "a=b&debug=1"]).to_owned(),
            headers,
            tls: self.one_in(2).then(|| Arc::new(self.tls())),
            connection: None,
        }
    }

    fn tls(&mut self) -> Tls {
        let version = self.of(&["1.2", "1.3", "1.3", "1.3"]).into();
        let mut names = |name: &str| vec![name.to_owned(); self.0.random_range(0..3)];
        let (dns_names, emails) = (names("a.example"), names("a@example"));
        let client = self.one_in(2).then(|| ClientCertificate {
            subject: "CN=Ω\\,,O=x".into(),
            common_name: self.one_in(2).then(|| "Ω,".into()),
            issuer: self.of(&["CN=agents", "CN=agents", "CN=others"]).to_owned(),
            serial: "0a".into(),
            fingerprint: "00".repeat(32),
            not_after_ms: -1_000,
            dns_names,
            uris: vec![self.of(&["spiffe://example/a", "spiffe://example/b", "x:"]).to_owned()],
            emails,
        });
        Tls { version, client }
    }

    fn event(&mut self) -> Event {
        match self.of(&VERDICT_POINTS) {
            Point::Connect => Event::Connect(Arc::new(self.connect())),
            Point::Register => Event::Register(Arc::new(Register {
                agent: Arc::new(self.agent()),
                credentials: self.one_in(3).then(|| self.of(&["sesame", "Sesame"]).to_owned()),
                renewal: self.one_in(4),
                connection: None,
            })),
            Point::Route => {
                let present = !self.one_in(4);
                Event::Route(self.message(present))
            }
            Point::Undeliverable => Event::Undeliverable(self.message(false)),
            Point::Watch => {
                let target = self.agent();
                Event::Watch(Arc::new(Watch {
                    agent: Arc::new(self.agent()),
                    did: target.did.clone(),
                    target: (!self.one_in(3)).then(|| Arc::new(target)),
                    connection: None,
                }))
            }
            _ => Event::Expire(Arc::new(Expire {
                agent: Arc::new(self.agent()),
                silent_ms: self.of(&[0, 59_999, 60_000, 60_001, u64::MAX]),
                connection: None,
            })),
        }
    }
}

/// What kind of ruling it is, in a word.
fn word(ruled: &Ruled) -> String {
    let text = format!("{ruled:?}");
    let kinds = ["Redirect", "Hold", "Some(", "labels: {\"", "regular", "gold"];
    let found = kinds.into_iter().filter(|kind| text.contains(kind));
    let copies = matches!(ruled, Ruled::Passage(Ok(passage)) if !passage.copies.is_empty());
    let refused = ruled.refusal().map(|reason| reason.as_str());
    found.chain(copies.then_some("copies")).chain(refused).collect::<Vec<_>>().join(" ")
}

async fn agree(seed: u64) {
    let mut chance = Chance(StdRng::seed_from_u64(seed));
    let (script, plugin) = (engine(false), engine(true));
    let mut met = BTreeMap::<_, usize>::new();
    for number in 0..EVENTS {
        let event = chance.event();
        let said = decided(&script, event.clone()).await;
        let also = decided(&plugin, event.clone()).await;
        assert_eq!(said, also, "event {number} of seed {seed}: {event:?}");
        *met.entry(format!("{} {}", event.point(), word(&said))).or_default() += 1;
    }
    for point in VERDICT_POINTS {
        for engine in [&script, &plugin] {
            assert!(
                hook(engine, point, 0).counts.faults.is_empty(),
                "{point}: decided, not failed"
            );
        }
    }
    // Otherwise agreement would mean little.
    assert!(met.len() >= 28, "only {} kinds of rulings were met: {met:#?}", met.len());
    assert_eq!(script.status().state.entries, plugin.status().state.entries);
}

#[test]
fn a_policy_written_in_rhai_and_as_a_plugin_agrees_on_a_hundred_thousand_events() {
    let seed: u64 = std::env::var("CONEXUS_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    let sequences = (0..SEQUENCES).map(|number| {
        // Else each call of the script gets a stack of its own, which takes longer than the call.
        let large = std::thread::Builder::new().stack_size(STACK_BYTES);
        let sequence = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(agree(seed.wrapping_add(number)));
        };
        large.spawn(sequence).unwrap()
    });
    for sequence in sequences.collect::<Vec<_>>() {
        sequence.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
