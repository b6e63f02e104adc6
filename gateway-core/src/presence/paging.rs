//! Pages of the list of agents, put together shard by shard.

use std::{collections::BinaryHeap, sync::Arc};

use conexus_protocol::AgentKey;

use super::Shard;
use crate::{clock::Moment, session::handle::SessionHandle};

/// A page as far as it was put together.
pub(super) struct Paging {
    after: Option<AgentKey>,
    limit: usize,
    total: usize,
    /// The first ones so far, and one more, which tells whether there is a next page.
    first: BinaryHeap<Listed>,
}

impl Paging {
    pub(super) fn new(after: Option<AgentKey>, limit: usize) -> Self {
        let first = BinaryHeap::with_capacity(limit.min(1024) + 2);
        Self { after, limit, total: 0, first }
    }

    pub(super) fn look_through<'a>(
        &mut self,
        sessions: impl IntoIterator<Item = &'a Arc<SessionHandle>>,
        wanted: &impl Fn(&SessionHandle) -> bool,
    ) {
        for session in sessions.into_iter().filter(|session| wanted(session)) {
            self.total += 1;
            let key = session.agent.key();
            let is_full = self.first.len() > self.limit;
            if self.after.is_some_and(|after| key <= after)
                || is_full && self.first.peek().is_some_and(|last| key >= last.key)
            {
                continue;
            }
            if is_full {
                self.first.pop();
            }
            self.first.push(Listed { key, session: Arc::clone(session) });
        }
    }

    pub(super) fn into_page(self) -> Page {
        let mut agents = self.first.into_sorted_vec();
        let more = agents.len() > self.limit;
        agents.truncate(self.limit);
        let next = agents.last().filter(|_| more).map(|last| last.key);
        let agents = agents.into_iter().map(|listed| listed.session).collect();
        Page { agents, total: self.total, next }
    }
}

/// Who is to be listed, of one shard.
pub(super) fn present(shard: &Shard, now: Moment) -> impl Iterator<Item = &Arc<SessionHandle>> {
    let owners = shard.values().filter_map(|slot| slot.owner.as_ref());
    let present = owners.filter(move |owner| !owner.leaving && owner.session.is_live(now));
    present.map(|owner| &owner.session)
}

/// A part of the list of agents.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) agents: Vec<Arc<SessionHandle>>,
    pub(crate) total: usize,
    /// The key to continue behind, if there are more.
    pub(crate) next: Option<AgentKey>,
}

struct Listed {
    key: AgentKey,
    session: Arc<SessionHandle>,
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Listed {}
impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Listed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}
