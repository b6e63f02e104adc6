//! What one connection asked the gateway for, beside what is wanted: the difference is sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use conexus_protocol::{AgentKey, Payload, Presence, Subprotocol, Unwatch, Watch};
use serde_json::Value;

use super::{WatchFault, Watches};
use crate::{Refusal, Session};

/// So many agents are on one list, and so many bytes each of them and the rest of it take at most.
const LIST: usize = 100;
const DID_BYTES: usize = 80;
const ENVELOPE_BYTES: usize = 600;

/// So many lists are remembered for the refusals that may come of them; the gateway answers them
/// one after the other.
const REMEMBERED: usize = 64;

/// An agent on a list, and which wish it was for.
type Asked = (AgentKey, u64);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct LinkWatches {
    watches: Arc<Watches>,
    subprotocol: Subprotocol,
    list: usize,
    /// What the gateway was asked for, by wish.
    sent: HashMap<AgentKey, u64>,
    /// Lists by the id of their WATCH.
    lists: VecDeque<(String, Vec<Asked>)>,
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
        }
    }

    /// Waits until what is wanted may have changed. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.watches.changed.notified().await;
    }

    /// What to send so that the gateway tells of those who are wanted, and of nobody else. Whoever
    /// sends it says so by [`asked`](Self::asked) for each list.
    pub(crate) fn difference(&mut self) -> (Vec<Payload>, Vec<(Payload, Vec<Asked>)>) {
        let (mut fresh, mut gone) = (Vec::new(), Vec::new());
        let wanted = self.watches.wanted();
        for (key, target) in &wanted.targets {
            if self.sent.get(key) != Some(&target.serial) {
                fresh.push((*key, target.serial, target.did.clone()));
            }
        }
        self.sent.retain(|key, _| {
            let stays = wanted.targets.contains_key(key);
            if !stays {
                gone.push(key.did());
            }
            stays
        });
        drop(wanted);
        if self.subprotocol == Subprotocol::V1 {
            for (key, serial, _) in fresh {
                self.watches.refused(key, serial, &WatchFault::Unsupported(self.subprotocol));
            }
            return (Vec::new(), Vec::new());
        }
        // Those who are told first are those who were wanted first.
        fresh.sort_by_key(|(_, serial, _)| *serial);
        let gone = gone.chunks(self.list).map(|dids| Unwatch { dids: dids.to_vec() }.into());
        let gone = gone.collect();
        let lists = fresh.chunks(self.list).map(|list| {
            let dids = list.iter().map(|(_, _, did)| did.clone()).collect();
            (Watch { dids }.into(), list.iter().map(|(key, serial, _)| (*key, *serial)).collect())
        });
        (gone, lists.collect())
    }

    /// A list was sent, under this id.
    pub(crate) fn asked(&mut self, id: String, list: Vec<Asked>) {
        self.sent.extend(list.iter().copied());
        if self.lists.len() == REMEMBERED {
            self.lists.pop_front();
        }
        self.lists.push_back((id, list));
    }

    /// The gateway tells of an agent; whether a watch is all that it was for.
    pub(crate) fn told(&self, presence: &Presence) -> bool {
        self.watches.told(presence)
    }

    /// The gateway refuses something; whether it was on a list, or a list.
    pub(crate) fn refused(&mut self, refusal: &Refusal) -> bool {
        let Some(id) = refusal.correlation_id.as_deref() else { return false };
        let Some((_, list)) = self.lists.iter().find(|(asked, _)| asked == id) else {
            return false;
        };
        let one = place(refusal).and_then(|place| list.get(place)).map(std::slice::from_ref);
        let reason = WatchFault::Refused(Box::new(refusal.clone()));
        for (key, serial) in one.unwrap_or(list) {
            if self.sent.get(key) == Some(serial) {
                self.sent.remove(key);
            }
            self.watches.refused(*key, *serial, &reason);
        }
        true
    }
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
