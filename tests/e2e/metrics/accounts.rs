//! The books balance: whenever nothing is under way, received = delivered + refused + held, in all
//! and for each type, and the counts are those of the agents themselves.

use std::collections::{BTreeMap, BTreeSet};

use conexus_protocol::{
    Answer, Envelope, ErrorCode, ErrorPayload, IceCandidate, Identity, Intent, MessageType,
    Metadata, Offer, Payload, Ping, Rules, Subprotocol,
};

use crate::support::{
    agent::Agent,
    process::{Process, folder_with},
    scrape::Scrape,
};

const CONFIG: &str = r#"
[policy]
watch = false

[limits]
bad_messages_per_minute = 1000
rate_strikes = 1000

[rate_class.hasty]
messages_per_second = 1
message_burst = 20

[hook.gate]
use = "script:gate"

[[chain.on_register]]
hook = "gate"
[[chain.on_route]]
hook = "gate"
[[chain.on_undeliverable]]
hook = "gate"
"#;

/// What is answered is held for those who are away, and nothing else.
const GATE: &str = r#"
fn on_register(event) {
    if event.agent.name == "hasty" { set(#{ rate_class: "hasty" }) }
}
fn on_route(event) {
    if event.payload_text.contains("forbidden") { deny("denied", "no") }
}
fn on_undeliverable(event) {
    if event.type == "ANSWER" { hold("10m") }
}
"#;

type ByType = BTreeMap<&'static str, u64>;

/// What the agents know of their messages.
#[derive(Default)]
struct Books {
    received: ByType,
    delivered: ByType,
    held: ByType,
    refused: BTreeMap<(&'static str, String), u64>,
    malformed: u64,
}

impl Books {
    /// Each count, in all and for each type, is the gateway's.
    fn check(&self, scrape: &Scrape) {
        let count = |what: &str, kind| scrape.count(what, &[("type", kind)]);
        for kind in MessageType::ALL.map(|kind| kind.as_str()) {
            let of = |books: &ByType| books.get(kind).copied().unwrap_or(0);
            let refused: u64 =
                self.refused.iter().filter(|((k, _), _)| *k == kind).map(|(_, n)| n).sum();
            let shown = [
                count("conexus_messages_received_total", kind),
                count("conexus_messages_delivered_total", kind),
                count("conexus_messages_refused_total", kind),
                count("conexus_messages_held", kind),
            ];
            let known = [of(&self.received), of(&self.delivered), refused, of(&self.held)];
            assert_eq!(shown, known, "{kind}: {:?}\n{}", self.refused, scrape.text);
            assert_eq!(shown[0], shown[1] + shown[2] + shown[3], "{kind}");
        }
        for ((kind, reason), times) in &self.refused {
            let labels = [("type", *kind), ("reason", reason.as_str())];
            assert_eq!(
                scrape.count("conexus_messages_refused_total", &labels),
                *times,
                "{labels:?}"
            );
        }
        assert_eq!(scrape.count("conexus_bad_messages_total", &[]), self.malformed);
    }

    fn refuse(&mut self, kind: MessageType, reason: &str) {
        *self.refused.entry((kind.as_str(), reason.to_owned())).or_default() += 1;
    }
}

fn note(books: &mut ByType, kind: MessageType) {
    *books.entry(kind.as_str()).or_default() += 1;
}

/// A message, and what is to become of it if its sender does not hear otherwise.
struct Letter {
    kind: MessageType,
    id: String,
    text: String,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Delivered,
    Held,
    /// Nobody is told of what became of an ERROR.
    Refused(&'static str),
    Malformed,
}

/// Messages of every kind for everybody: present, away, and nobody at all.
fn letters(sender: &Agent, present: &str, away: &str) -> Vec<Letter> {
    let sdp = |sdp: &str| sdp.to_owned();
    let error = ErrorPayload { code: ErrorCode::InternalError, message: "x".into(), details: None };
    let candidate = IceCandidate { candidate: "c".into(), sdp_mid: None, sdp_mline_index: None };
    let intent = Intent { query: Some("anybody?".into()), ..Intent::default() };
    let there = Fate::Delivered;
    let plain: [(&str, Payload, Fate); 9] = [
        (present, Offer { sdp: sdp("hello") }.into(), there),
        (present, Answer { sdp: sdp("hello") }.into(), there),
        (present, candidate.clone().into(), there),
        (present, error.clone().into(), there),
        (present, Offer { sdp: sdp("forbidden") }.into(), there),
        (present, intent.into(), there),
        (away, Offer { sdp: sdp("nobody home") }.into(), there),
        (away, Answer { sdp: sdp("for later") }.into(), Fate::Held),
        (away, error.into(), Fate::Refused("unknown_agent")),
    ];
    let mut letters: Vec<_> = plain
        .into_iter()
        .map(|(to, payload, fate)| {
            let kind = payload.kind();
            let (id, text) = sender.sign(to, payload);
            Letter { kind, id, text, fate }
        })
        .collect();
    let (id, text) = sender.offer(present, "of no known type");
    let text = text.replace(r#""type":"OFFER""#, r#""type":"TELEPORT""#);
    letters.push(Letter { kind: MessageType::Offer, id, text, fate: Fate::Malformed });
    letters
}

/// Sends them all, and hears of what came back until everything is judged: by id, the reason.
async fn send(sender: &mut Agent, letters: &[Letter]) -> BTreeMap<String, String> {
    for letter in letters {
        sender.send(letter.text.clone()).await;
    }
    let (ping, text) = sender.sign("did:key:gateway", Ping { sequence: None });
    sender.send(text).await;
    let mut back = BTreeMap::new();
    loop {
        let text = sender.text().await;
        let envelope = Envelope::parse(&text, Rules::V1_1).unwrap();
        let about = envelope.correlation_id.as_deref().unwrap_or_default().to_owned();
        if about == ping {
            // Or it was over the rate.
            assert!(matches!(envelope.kind, MessageType::Pong | MessageType::Error), "{text}");
            return back;
        }
        let refusal = sender.read_refusal(&text);
        back.insert(about, refusal.reason.unwrap_or_default());
    }
}

/// Takes what has come for it, and until that is all.
async fn take(receiver: &mut Agent, mut expected: BTreeSet<String>) {
    while !expected.is_empty() {
        let text = receiver.text().await;
        let id = Envelope::parse(&text, Rules::V1_STRICT).unwrap().id.into_owned();
        assert!(expected.remove(&id), "nobody sent {text}");
    }
    // Its session counts what it has written before it looks at what comes.
    receiver.ping().await;
}

async fn sender(gateway: &Process, name: &str) -> Agent {
    let mut agent = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    let metadata = Metadata { name: Some(name.to_owned()), ..Metadata::default() };
    agent.register_with(agent.with_metadata(metadata)).await;
    agent
}

/// One sender's burst, until all of it has come to its end.
async fn burst(
    sender: &mut Agent,
    receiver: &mut Agent,
    away: &Identity,
    times: usize,
    books: &mut Books,
) {
    let receiver_did = receiver.did();
    let letters: Vec<_> =
        (0..times).flat_map(|_| letters(sender, &receiver_did, away.did())).collect();
    let back = send(sender, &letters).await;
    let mut arriving = BTreeSet::new();
    for letter in letters {
        let kind = letter.kind;
        if letter.fate == Fate::Malformed {
            assert!(back.contains_key(&letter.id), "what is malformed is answered");
            books.malformed += 1;
            continue;
        }
        note(&mut books.received, kind);
        match (back.get(&letter.id), letter.fate) {
            (Some(reason), _) => books.refuse(kind, reason),
            (None, Fate::Delivered) => {
                note(&mut books.delivered, kind);
                arriving.insert(letter.id);
            }
            (None, Fate::Held) => note(&mut books.held, kind),
            (None, Fate::Refused(reason)) => books.refuse(kind, reason),
            (None, Fate::Malformed) => unreachable!(),
        }
    }
    take(receiver, arriving).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_is_delivered_refused_or_held_at_every_quiet_moment() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/gate.rhai", GATE)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut senders = [sender(&gateway, "calm").await, sender(&gateway, "quick").await];
    let mut receivers = [gateway.agent().await, gateway.agent().await];
    let mut away = [Identity::generate(), Identity::generate()];
    let mut books = [Books::default(), Books::default()];
    for times in [1, 7, 23] {
        // All at once, and a scraper that does not wait for a quiet moment.
        let ([a, b], [c, d], [away_a, away_b]) = (&mut senders, &mut receivers, &away);
        let [books_a, books_b] = &mut books;
        let (_, (), ()) = tokio::join!(
            async {
                for _ in 0..5 {
                    Scrape::of(&gateway).await;
                }
            },
            burst(a, c, away_a, times, books_a),
            burst(b, d, away_b, times, books_b),
        );
        let scrape = Scrape::of(&gateway).await;
        sum(&books).check(&scrape);
        let refused = |reason| {
            let labels = [("reason", reason)];
            scrape.count("conexus_messages_refused_total", &labels)
        };
        for reason in ["denied", "not_relayed", "unknown_agent"] {
            assert!(refused(reason) > 0, "{reason}");
        }
    }

    // One that is over its rate; what it says besides counts no less.
    let mut hasty = sender(&gateway, "hasty").await;
    let mut more = Books::default();
    let mut quiet = gateway.agent().await;
    // An ERROR over the rate is no more answered than any other, so it is left out here.
    let offers: Vec<_> = (0..60)
        .map(|_| {
            let (id, text) = hasty.offer(&quiet.did(), "in a hurry");
            Letter { kind: MessageType::Offer, id, text, fate: Fate::Delivered }
        })
        .collect();
    let back = send(&mut hasty, &offers).await;
    let mut arriving = BTreeSet::new();
    for Letter { kind, id, .. } in offers {
        note(&mut more.received, kind);
        match back.get(&id) {
            Some(reason) => more.refuse(kind, reason),
            None => {
                note(&mut more.delivered, kind);
                arriving.insert(id);
            }
        }
    }
    take(&mut quiet, arriving).await;
    let limited = more.refused[&("OFFER", "rate_limited".to_owned())];
    let [books_a, books_b] = books;
    let mut all = [books_a, books_b, more];
    let scrape = Scrape::of(&gateway).await;
    sum(&all).check(&scrape);
    // The PING at the end was one, too.
    assert!(scrape.count("conexus_rate_limited_messages_total", &[]) >= limited);

    // Those who were away come, and take what was held for them.
    for (books, away) in all.iter_mut().zip(&mut away) {
        let identity = std::mem::replace(away, Identity::generate());
        let mut back = gateway.connect(Subprotocol::V1_1, identity).await;
        back.register().await;
        let held = std::mem::take(&mut books.held);
        for (kind, count) in held {
            *books.delivered.entry(kind).or_default() += count;
            for _ in 0..count {
                back.text().await;
            }
        }
        back.ping().await;
    }
    sum(&all).check(&Scrape::of(&gateway).await);
}

fn sum(all: &[Books]) -> Books {
    let mut sum = Books::default();
    for books in all {
        for (into, from) in [
            (&mut sum.received, &books.received),
            (&mut sum.delivered, &books.delivered),
            (&mut sum.held, &books.held),
        ] {
            from.iter().for_each(|(kind, n)| *into.entry(kind).or_default() += n);
        }
        for (of, n) in &books.refused {
            *sum.refused.entry(of.clone()).or_default() += n;
        }
        sum.malformed += books.malformed;
    }
    sum
}
