//! What one connection asked the gateway for, beside what is wanted: the difference is sent.
//!
//! What the gateway refuses for the moment alone is asked for again, later and later, before anybody
//! is told of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use conexus_protocol::{
    AgentKey, ErrorCode, Payload, Presence, RefusalReason, Subprotocol, Unwatch, Watch,
};
use rand::Rng as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::{WatchFault, Watches};
use crate::{Refusal, Session};

/// So many agents are on one list, and so many bytes each of them and the rest of it take at most.
const LIST: usize = 100;
const DID_BYTES: usize = 80;
const ENVELOPE_BYTES: usize = 600;

/// So many lists are remembered for the refusals that may come of them; further ones while somebody
/// on them was not answered.
const REMEMBERED: usize = 64;

/// What is refused for the moment is asked for again after these times, and so often.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
const AGAIN: u32 = 6;

/// The wish of those whom nobody wants.
const UNWANTED: u64 = 0;

/// An agent on a list, and which wish it was for.
type Asked = (AgentKey, u64);

/// What was refused for the moment.
#[derive(Debug)]
struct Postponed {
    serial: u64,
    /// How often it was refused in a row.
    times: u32,
    /// When to ask again; none while the answer is under way.
    due: Option<Instant>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct LinkWatches {
    watches: Arc<Watches>,
    subprotocol: Subprotocol,
    list: usize,
    /// What the gateway was asked for, by wish.
    sent: HashMap<AgentKey, u64>,
    /// Lists by the id of their WATCH or UNWATCH.
    lists: VecDeque<(String, Vec<Asked>)>,
    postponed: HashMap<AgentKey, Postponed>,
}

impl LinkWatches {
    pub(crate) fn new(watches: Arc<Watches>, session: &Session) -> Self {
        let fitting = session.max_message_bytes.saturating_sub(ENVELOPE_BYTES) / DID_BYTES;
        Self {
            watches,
            subprotocol: session.subprotocol,
            list: fitting.clamp(1, LIST),
            sent: HashMap::new(),
            lists: VecDeque::new(),
            postponed: HashMap::new(),
        }
    }

    /// Waits until there may be something to send. Cancel-safe.
    pub(crate) async fn changed(&self) {
        let changed = self.watches.changed.notified();
        match self.postponed.values().filter_map(|postponed| postponed.due).min() {
            Some(due) => tokio::select! {
                () = changed => {}
                () = sleep_until(due) => {}
            },
            None => changed.await,
        }
    }

    /// What to send so that the gateway tells of those who are wanted, and of nobody else. Whoever
    /// sends it says so by [`asked`](Self::asked) for each list.
    pub(crate) fn difference(&mut self) -> Vec<(Payload, Vec<Asked>)> {
        let (mut fresh, mut gone) = (Vec::new(), Vec::new());
        let wanted = self.watches.wanted();
        let serial_of = |key: &AgentKey| wanted.targets.get(key).map_or(UNWANTED, |it| it.serial);
        let sent = &mut self.sent;
        self.postponed.retain(|key, postponed| {
            let serial = serial_of(key);
            serial == postponed.serial && (serial != UNWANTED || sent.contains_key(key))
        });
        let now = Instant::now();
        let is_due = |key: &AgentKey| {
            let due = self.postponed.get(key).and_then(|postponed| postponed.due);
            due.is_none_or(|due| due <= now)
        };
        for (key, target) in &wanted.targets {
            if sent.get(key) != Some(&target.serial) && is_due(key) {
                fresh.push((*key, target.serial, target.did.clone()));
            }
        }
        sent.retain(|key, _| {
            let is_gone = !wanted.targets.contains_key(key) && is_due(key);
            // Whoever asked by hand goes on watching.
            if is_gone && !wanted.by_hand.contains(key) {
                gone.push(*key);
            }
            !is_gone
        });
        drop(wanted);
        if self.subprotocol == Subprotocol::V1 {
            for (key, serial, _) in fresh {
                self.watches.refused(key, serial, &WatchFault::Unsupported(self.subprotocol));
            }
            return Vec::new();
        }
        // Those who are told first are those who were wanted first.
        fresh.sort_by_key(|(_, serial, _)| *serial);
        let gone = gone.chunks(self.list).map(|list| {
            let dids = list.iter().map(AgentKey::did).collect();
            (Unwatch { dids }.into(), list.iter().map(|key| (*key, UNWANTED)).collect())
        });
        let lists = fresh.chunks(self.list).map(|list| {
            let dids = list.iter().map(|(_, _, did)| did.clone()).collect();
            (Watch { dids }.into(), list.iter().map(|(key, serial, _)| (*key, *serial)).collect())
        });
        gone.chain(lists).collect()
    }

    /// A list was sent, under this id.
    pub(crate) fn asked(&mut self, id: String, list: Vec<Asked>) {
        for (key, serial) in &list {
            if *serial != UNWANTED {
                self.sent.insert(*key, *serial);
            }
            if let Some(postponed) = self.postponed.get_mut(key) {
                postponed.due = None;
            }
        }
        if self.lists.len() >= REMEMBERED {
            let wanted = self.watches.wanted();
            let is_open = |(key, serial): &Asked| {
                let target = wanted.targets.get(key);
                target.is_some_and(|it| it.serial == *serial && it.latest.is_none())
            };
            self.lists.retain(|(_, list)| list.iter().any(is_open));
        }
        self.lists.push_back((id, list));
    }

    /// The gateway tells of an agent; whether a watch is all that it was for.
    pub(crate) fn told(&mut self, presence: &Presence) -> bool {
        if !self.postponed.is_empty()
            && let Ok(key) = AgentKey::parse_did(&presence.did)
            && self.postponed.get(&key).is_some_and(|it| it.serial != UNWANTED)
        {
            self.postponed.remove(&key);
        }
        self.watches.told(presence)
    }

    /// The gateway refuses something; whether it was on a list, or a list.
    pub(crate) fn refused(&mut self, refusal: &Refusal) -> bool {
        let Some(id) = refusal.correlation_id.as_deref() else { return false };
        let Some((_, list)) = self.lists.iter().find(|(asked, _)| asked == id) else {
            return false;
        };
        let list = list.clone();
        let one = place(refusal).and_then(|place| list.get(place)).copied();
        let refused = one.as_ref().map_or(&*list, std::slice::from_ref);
        for asked in refused {
            self.refused_one(*asked, refusal);
        }
        if one.is_some() && refusal.code == ErrorCode::MalformedMessage {
            // It is why nothing of the list was taken: the others are asked for without it.
            self.ask_again(&list);
        }
        true
    }

    fn refused_one(&mut self, (key, serial): Asked, refusal: &Refusal) {
        if is_passing(refusal) && self.postpone(key, serial) {
            tracing::debug!(did = key.did(), %refusal, "to watch it is refused for the moment");
        } else {
            self.ask_again(&[(key, serial)]);
            self.postponed.remove(&key);
            let reason = WatchFault::Refused(Box::new(refusal.clone()));
            self.watches.refused(key, serial, &reason);
        }
    }

    /// Whether it is to be asked for again later.
    fn postpone(&mut self, key: AgentKey, serial: u64) -> bool {
        let earlier = self.postponed.get(&key).filter(|it| it.serial == serial);
        let times = earlier.map_or(0, |earlier| earlier.times);
        if times == AGAIN {
            return false;
        }
        match serial {
            // The gateway still tells of it.
            UNWANTED => _ = self.sent.entry(key).or_insert(UNWANTED),
            _ => self.ask_again(&[(key, serial)]),
        }
        let delay = FIRST_DELAY.saturating_mul(1 << times).min(LONGEST_DELAY);
        let now = Instant::now();
        let span = now + delay / 2..=now + delay;
        // Together with others, on one list, if it can be.
        let mut others = self.postponed.values().filter_map(|postponed| postponed.due);
        let due = others
            .find(|due| span.contains(due))
            .unwrap_or_else(|| now + delay.mul_f64(rand::rng().random_range(0.5..=1.0)));
        self.postponed.insert(key, Postponed { serial, times: times + 1, due: Some(due) });
        true
    }

    /// The gateway does not tell of these, unless they were asked for anew.
    fn ask_again(&mut self, list: &[Asked]) {
        for (key, serial) in list {
            if self.sent.get(key) == Some(serial) {
                self.sent.remove(key);
            }
        }
        self.watches.changed.notify_one();
    }
}

/// Whether the answer may be another one soon.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(
        refusal.reason,
        Some(RefusalReason::RateLimited | RefusalReason::PolicyError | RefusalReason::Draining)
    )
}

/// Which place on a list a refusal is about; none where it is the list as a whole.
fn place(refusal: &Refusal) -> Option<usize> {
    let member = refusal.details.as_ref()?.get("member").and_then(Value::as_str)?;
    member.strip_prefix("payload.dids[")?.strip_suffix(']')?.parse().ok()
}

impl Drop for LinkWatches {
    fn drop(&mut self) {
        self.watches.forget_states();
    }
}
