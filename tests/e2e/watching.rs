//! WATCH, UNWATCH and PRESENCE: who is told that an agent comes or goes, when, and who is not.

mod changes;
mod command;
mod lists;
mod policy;
mod pressure;
mod sdk;

use conexus_protocol::{
    Envelope, MessageType, Presence, PresenceState, Rules, Timestamp, Unwatch, Watch,
};

use crate::support::agent::Agent;

/// A PRESENCE as most tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    did: String,
    state: PresenceState,
    reason: Option<String>,
}

pub(crate) fn online(did: &str) -> Seen {
    Seen { did: did.into(), state: PresenceState::Online, reason: None }
}

pub(crate) fn offline(did: &str, reason: &str) -> Seen {
    Seen { did: did.into(), state: PresenceState::Offline, reason: Some(reason.into()) }
}

/// Not there, and nobody noted when it went.
pub(crate) fn absent(did: &str) -> Seen {
    Seen { did: did.into(), state: PresenceState::Offline, reason: None }
}

/// Sends WATCH; its id.
async fn watch(agent: &mut Agent, dids: &[&str]) -> String {
    let dids = dids.iter().map(|did| (*did).to_owned()).collect();
    let (id, text) = agent.sign("anybody", Watch { dids });
    agent.send(text).await;
    id
}

/// Sends UNWATCH, which nothing answers.
async fn unwatch(agent: &mut Agent, dids: &[&str]) {
    let dids = dids.iter().map(|did| (*did).to_owned()).collect();
    let (_, text) = agent.sign("anybody", Unwatch { dids });
    agent.send(text).await;
}

/// The next message, which must be a PRESENCE that the gateway signed.
async fn presence(agent: &mut Agent) -> Presence {
    let text = agent.text().await;
    read(&text)
}

fn read(text: &str) -> Presence {
    let envelope = Envelope::parse(text, Rules::V1_1).unwrap();
    assert_eq!(envelope.kind, MessageType::Presence, "{text}");
    let gateway = conexus_protocol::AgentId::parse(&envelope.from).unwrap();
    envelope.verify(gateway.public_key()).unwrap();
    let presence: Presence = envelope.payload().unwrap();
    time(&presence.since);
    presence
}

/// A `since`, in Unix milliseconds.
fn time(since: &str) -> i64 {
    Timestamp::parse(since).unwrap().as_unix_millis()
}

pub(crate) async fn seen(agent: &mut Agent) -> Seen {
    let Presence { did, state, reason, .. } = presence(agent).await;
    Seen { did, state, reason }
}

/// Watches, and reads the state that each of these has.
pub(crate) async fn watched(agent: &mut Agent, dids: &[&str]) -> Vec<Seen> {
    watch(agent, dids).await;
    let mut states = Vec::new();
    for _ in dids {
        states.push(seen(agent).await);
    }
    states
}
