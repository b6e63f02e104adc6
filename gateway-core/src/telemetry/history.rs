//! What became of agents lately: who registered, renewed, left, or was refused.
//!
//! Bounded, and in memory alone. Registrations that were refused are kept apart and are fewer: who
//! has no key to prove can make as many of them as it likes, and is not to push out the others.

use std::{borrow::Cow, collections::VecDeque, net::SocketAddr, sync::Arc};

use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Telemetry,
    events::{Topic, now_ms},
};
use crate::session::handle::{SessionHandle, SessionId};

/// One entry in this many may be a refusal.
const REFUSALS: usize = 4;

/// What happened to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HistoryKind {
    /// It registered.
    Registered,
    /// It renewed its registration.
    Renewed,
    /// A newer session of it took this one's place.
    Replaced,
    /// Its session ended.
    Left,
    /// A registration in its name was refused. Who it really was is not known.
    Refused,
}

/// Something that happened to an agent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HistoryEntry {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// What.
    pub kind: HistoryKind,
    /// The agent, as it spells itself.
    pub did: Box<str>,
    /// Its session; `null` where a registration was refused, and where it was on a node that died.
    #[schema(value_type = Option<String>)]
    pub session: Option<SessionId>,
    /// The address that it came from.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// The subprotocol that was spoken.
    pub subprotocol: &'static str,
    /// Why: a word for an end, a sentence for a refusal.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Cow<'static, str>>,
    /// The WebSocket's close code.
    pub code: Option<u16>,
    #[serde(skip)]
    pub(crate) key: AgentKey,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct History {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// How many there were so far, which orders those of the two queues.
    count: u64,
    entries: VecDeque<(u64, Arc<HistoryEntry>)>,
    refusals: VecDeque<(u64, Arc<HistoryEntry>)>,
}

impl Default for History {
    fn default() -> Self {
        Self::new(10_000)
    }
}

impl History {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, kept: Mutex::default() }
    }

    fn keep(&self, entry: Arc<HistoryEntry>) {
        let is_refusal = entry.kind == HistoryKind::Refused;
        let capacity = if is_refusal { self.capacity.div_ceil(REFUSALS) } else { self.capacity };
        let mut kept = self.kept.lock();
        kept.count += 1;
        let number = kept.count;
        let queue = if is_refusal { &mut kept.refusals } else { &mut kept.entries };
        queue.push_back((number, entry));
        if queue.len() > capacity {
            queue.pop_front();
        }
    }

    /// The latest entries, newest first: of one agent or of all, of one kind or of all.
    pub(crate) fn latest(
        &self,
        agent: Option<AgentKey>,
        kind: Option<HistoryKind>,
        limit: usize,
    ) -> Vec<Arc<HistoryEntry>> {
        let kept = self.kept.lock();
        let wanted = |(_, entry): &&(u64, Arc<HistoryEntry>)| {
            agent.is_none_or(|agent| entry.key == agent)
                && kind.is_none_or(|kind| entry.kind == kind)
        };
        let mut entries = kept.entries.iter().rev().filter(wanted).peekable();
        let mut refusals = kept.refusals.iter().rev().filter(wanted).peekable();
        let newest_first = std::iter::from_fn(|| match (entries.peek(), refusals.peek()) {
            (Some((one, _)), Some((other, _))) if one < other => refusals.next(),
            (Some(_), _) => entries.next(),
            (None, _) => refusals.next(),
        });
        newest_first.take(limit).map(|(_, entry)| Arc::clone(entry)).collect()
    }
}

impl Telemetry {
    /// Notes what happened to a session's agent.
    pub(crate) fn happened(
        &self,
        kind: HistoryKind,
        session: &SessionHandle,
        reason: Option<&'static str>,
        code: Option<u16>,
    ) {
        self.note(HistoryEntry {
            at_ms: now_ms(),
            kind,
            did: session.agent.as_str().into(),
            session: Some(session.id),
            address: session.facts().address,
            subprotocol: session.subprotocol.as_str(),
            reason: reason.map(Cow::Borrowed),
            code,
            key: session.agent.key(),
        });
    }

    /// Notes something of an agent for whoever asks later, and tells those who listen now.
    pub(crate) fn note(&self, entry: HistoryEntry) {
        match entry.kind {
            HistoryKind::Refused => self.hub.refusal(entry.key, &entry),
            _ => self.hub.publish(Topic::Session, &[entry.key], &entry),
        }
        self.history.keep(Arc::new(entry));
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::events::{Listener, Topics};

    /// The name of the next event, and of which kind it is or how many were missed.
    async fn next(listener: &mut Listener) -> (String, Value) {
        let frame = String::from_utf8(listener.next().await.to_vec()).unwrap();
        let (name, data) = frame.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        let told = data.get("kind").or(data.get("missed")).unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), told.clone())
    }

    fn entry(kind: HistoryKind, identity: &Identity, at_ms: i64) -> Arc<HistoryEntry> {
        Arc::new(HistoryEntry {
            at_ms,
            kind,
            did: identity.did().into(),
            session: None,
            address: ([127, 0, 0, 1], 1).into(),
            subprotocol: "ioap.v1",
            reason: None,
            code: None,
            key: identity.key(),
        })
    }

    fn times(entries: &[Arc<HistoryEntry>]) -> Vec<i64> {
        entries.iter().map(|entry| entry.at_ms).collect()
    }

    #[test]
    fn the_newest_comes_first_and_the_oldest_is_forgotten() {
        let (one, other) = (Identity::generate(), Identity::generate());
        let history = History::new(3);
        for at in 1..=5 {
            history.keep(entry(
                HistoryKind::Registered,
                if at % 2 == 0 { &one } else { &other },
                at,
            ));
        }
        assert_eq!(times(&history.latest(None, None, 9)), [5, 4, 3]);
        assert_eq!(times(&history.latest(None, None, 2)), [5, 4]);
        assert_eq!(times(&history.latest(Some(one.key()), None, 9)), [4]);
        assert!(history.latest(None, Some(HistoryKind::Left), 9).is_empty());
    }

    #[test]
    fn refusals_push_out_no_others_and_stand_in_their_place() {
        let someone = Identity::generate();
        let history = History::new(8);
        history.keep(entry(HistoryKind::Registered, &someone, 1));
        for at in 2..=9 {
            history.keep(entry(HistoryKind::Refused, &someone, at));
        }
        history.keep(entry(HistoryKind::Left, &someone, 10));
        assert_eq!(times(&history.latest(None, None, 9)), [10, 9, 8, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_overtakes_no_listener_and_is_counted() {
        const REFUSALS: u64 = 5_000;
        let telemetry = Arc::new(Telemetry::default());
        let someone = Identity::generate();
        let note = |kind| telemetry.note((*entry(kind, &someone, 1)).clone());
        let mut listener = telemetry.listen(Topics::default().with(Topic::Session), None).unwrap();
        note(HistoryKind::Registered);
        (0..REFUSALS).for_each(|_| note(HistoryKind::Refused));
        note(HistoryKind::Left);
        let listening = async {
            assert_eq!(next(&mut listener).await, ("session".into(), json!("registered")));
            let mut told = 0;
            while next(&mut listener).await.1 == json!("refused") {
                told += 1;
            }
            assert_eq!(next(&mut listener).await, ("lagged".into(), json!(REFUSALS - told)));
            assert!(told > 0);
            note(HistoryKind::Refused);
            assert_eq!(next(&mut listener).await, ("session".into(), json!("refused")));
        };
        tokio::select! {
            () = telemetry.hub.serve(|key| key.did()) => unreachable!("it serves until dropped"),
            () = listening => {}
        }
    }

    #[test]
    fn a_history_of_no_length_keeps_nothing() {
        let someone = Identity::generate();
        let history = History::new(0);
        history.keep(entry(HistoryKind::Registered, &someone, 1));
        history.keep(entry(HistoryKind::Refused, &someone, 2));
        assert!(history.latest(None, None, 9).is_empty());
    }
}
