//! The events of one agent as lines: what the gateway tells, and what a recording has.
//!
//! All texts in them are of agents' choosing, or of somebody's who edited the recording; whoever
//! prints one makes it harmless.

use conexus_protocol::AgentKey;
use jiff::{Timestamp, fmt::strtime};
use serde::Deserialize;

use crate::cli::terminal::harmless;

/// One line of a recording.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "topic", rename_all = "snake_case")]
pub(super) enum Event {
    Message(Message),
    Session(Session),
    Lagged(Lagged),
}

/// A message at a turn of its way.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Message {
    pub(super) at_ms: i64,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) outcome: String,
    pub(super) reason: Option<String>,
    pub(super) latency_us: Option<u64>,
    pub(super) trace: String,
}

/// An agent came, renewed, left or was refused.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Session {
    pub(super) at_ms: i64,
    pub(super) kind: String,
    pub(super) did: String,
    pub(super) reason: Option<String>,
}

/// Some events were not told.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Lagged {
    pub(super) missed: u64,
}

fn is(did: &str, key: AgentKey) -> bool {
    AgentKey::parse_did(did) == Ok(key)
}

impl Event {
    /// Whether it is about what passes between these two, or about one of them alone.
    pub(super) fn is_between(&self, one: AgentKey, other: AgentKey) -> bool {
        match self {
            Self::Message(Message { from, to, .. }) => {
                is(from, one) && is(to, other) || is(from, other) && is(to, one)
            }
            Self::Session(session) => is(&session.did, one) || is(&session.did, other),
            Self::Lagged(_) => true,
        }
    }

    /// One line for people, as seen by the agent that is followed.
    pub(super) fn line(&self, followed: AgentKey) -> String {
        match self {
            Self::Message(message) => message.line(followed),
            Self::Session(session) => {
                format!("{}  -- {}", clock(session.at_ms), session.words())
            }
            Self::Lagged(Lagged { missed }) => {
                format!("{:12}  -- up to {missed} events were too many, and are missing here", "")
            }
        }
    }
}

impl Message {
    fn line(&self, followed: AgentKey) -> String {
        let (sends, receives) = (is(&self.from, followed), is(&self.to, followed));
        let (arrow, end) = match (sends, receives) {
            (true, true) => ("<>", "itself".to_owned()),
            (true, false) => ("->", short(&self.to)),
            _ => ("<-", short(&self.from)),
        };
        let (kind, outcome) = (harmless(&self.kind), self.outcome());
        let (at, trace) = (clock(self.at_ms), harmless(&self.trace));
        format!("{at}  {arrow} {kind:<13}  {end:<9}  {outcome:<24}  {trace}")
    }

    /// How it fared, in words.
    pub(super) fn outcome(&self) -> String {
        let outcome = harmless(&self.outcome);
        match (&self.reason, self.latency_us) {
            (Some(reason), _) => format!("{outcome}: {}", harmless(reason)),
            (None, Some(micros)) => format!("{outcome} in {}", duration(micros)),
            (None, None) => outcome,
        }
    }
}

impl Session {
    pub(super) fn words(&self) -> String {
        let kind = harmless(&self.kind);
        match &self.reason {
            Some(reason) if *reason != self.kind => format!("{kind} ({})", harmless(reason)),
            _ => kind,
        }
    }
}

/// The end of a DID: what tells agents apart.
pub(super) fn short(did: &str) -> String {
    const END: usize = 8;
    let did = harmless(did);
    match did.char_indices().rev().nth(END - 1) {
        Some((at, _)) if at > 0 => format!("…{}", &did[at..]),
        _ => did,
    }
}

/// The time of day, UTC.
pub(super) fn clock(at_ms: i64) -> String {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    strtime::format("%H:%M:%S%.3f", time).unwrap_or_default()
}

/// A length of time as people read it.
pub(super) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;
    use serde_json::json;

    use super::*;

    fn message(from: &str, to: &str) -> Event {
        serde_json::from_value(json!({
            "topic": "message", "at_ms": 1_760_000_000_123_i64, "id": "7", "correlation_id": null,
            "trace": "4bf92f3577b34da6a3ce929d0e0e4736", "type": "OFFER", "from": from, "to": to,
            "bytes": 9, "outcome": "delivered", "reason": null, "latency_us": 1234,
        }))
        .unwrap()
    }

    #[test]
    fn a_message_is_one_line_as_its_end_sees_it() {
        let [a, b] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]));
        let end = |identity: &Identity| short(identity.did());
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            message(a.did(), b.did()).line(a.key()),
            format!(
                "08:53:20.123  -> OFFER          {}  delivered in 1.2 ms       {trace}",
                end(&b)
            )
        );
        let incoming = message(b.did(), &a.key().legacy_did()).line(a.key());
        assert!(incoming.contains(&format!("<- OFFER          {}", end(&b))), "{incoming}");
        assert!(message(a.did(), a.did()).line(a.key()).contains("<> OFFER          itself"));
    }

    #[test]
    fn nothing_that_an_agent_wrote_moves_the_cursor() {
        let (a, hostile) = (Identity::from_seed(&[1; 32]), "\u{1b}[2J\u{1b}]0;x\u{7}\n\u{202e}");
        let text = format!("{}{}", message(a.did(), hostile).line(a.key()), short(hostile));
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
    }

    #[test]
    fn between_two_is_what_they_send_each_other_in_any_spelling() {
        let [a, b, c] = [1, 2, 3].map(|seed| Identity::from_seed(&[seed; 32]));
        let between = |event: &Event| event.is_between(a.key(), b.key());
        assert!(between(&message(a.did(), &b.key().legacy_did())));
        assert!(between(&message(b.did(), a.did())));
        assert!(!between(&message(a.did(), c.did())) && !between(&message(a.did(), a.did())));
    }

    #[test]
    fn short_names_are_ends() {
        assert_eq!(short("did:key:z6MkabcdefghIJKL"), "…efghIJKL");
        assert_eq!(short("short"), "short");
        assert_eq!(short("12345678"), "12345678");
        assert_eq!(short("äöüäöüäöü"), "…öüäöüäöü");
    }
}
