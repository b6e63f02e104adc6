//! The list of agents over all nodes: each of them is asked at once, and what they say is merged by key.
//!
//! Every node orders its agents by their keys, and a page continues behind a key: so a cursor means the
//! same on every node, and depends on none of them. An agent that is moving may be with two nodes, or
//! with none, for a moment; of two the newer registration is shown.

use std::{collections::BTreeMap, sync::Arc};

use conexus_plugin_api::{Agent, AgentFilter};
use conexus_protocol::AgentKey;
use futures_util::future::join_all;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    delivery::Delivery,
    frame::{Answer, Filter, Question, Shown},
    ids::{Epoch, MemberId},
};
use crate::{core::Core, pace::OncePerSecond, session::handle::SessionHandle};

/// Lists that are put together at once; further ones wait. Each asks all nodes.
const AT_ONCE: usize = 16;
/// More than its share that each node is asked for: keys are spread evenly, but not quite.
const SLACK: usize = 32;
/// How many agents one answer has at most, and how many bytes of them: it is one message in the engine.
const ANSWERED: usize = 1000;
const ANSWERED_BYTES: usize = 256 * 1024;
/// How many agents are written down before messages get their turn.
const WRITTEN_AT_ONCE: usize = 64;

/// What all lists have in common.
#[derive(Debug)]
pub(crate) struct Lists {
    places: Semaphore,
    missed: OncePerSecond,
}

impl Default for Lists {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), missed: OncePerSecond::new() }
    }
}

/// An agent in the list.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) agent: Arc<Agent>,
    /// None while its registration is being put down.
    epoch: Option<Epoch>,
    pub(crate) connected_ms: i64,
    pub(crate) last_activity_ms: i64,
}

/// A part of the list.
#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) agents: Vec<Listed>,
    /// How many are wanted in all.
    pub(crate) total: usize,
    /// The key to continue behind, if there are more.
    pub(crate) next: Option<AgentKey>,
    /// Nodes that did not answer: their agents are missing.
    pub(crate) missing: Vec<String>,
}

/// Agents whose key follows `after`, in the order of their keys, on all nodes.
pub(crate) async fn list(
    core: &Core,
    after: Option<AgentKey>,
    limit: usize,
    filter: &AgentFilter,
) -> List {
    let Some(delivery) = core.router.presence.delivery() else {
        return here(core, after, limit, filter).await;
    };
    let cluster = &delivery.cluster;
    // Only ever closed with the process.
    let _place = cluster.lists.places.acquire().await;
    let mut merging = Merging::new(here(core, after, limit, filter).await, limit);
    match cluster.joined() {
        Ok(joined) => {
            let members = cluster.members.load_full();
            let now = Instant::now();
            let others = members
                .iter()
                .filter(|(member, about)| *member != joined.member && now < about.until);
            let (asked, mute): (Vec<_>, Vec<_>) = others
                .map(|(member, about)| (member, about.info.node_id.clone(), about.counts(now)))
                .partition(|(.., counts)| *counts);
            merging.others(asked.into_iter().map(|(member, node, _)| (member, node)), after);
            // They are there, but speak as this node does not.
            merging.missing.extend(mute.into_iter().map(|(_, node, _)| node));
            merging.ask(delivery, filter).await;
        }
        Err(_) => merging.missing.push("any other node".to_owned()),
    }
    let list = merging.into_list();
    if !list.missing.is_empty() {
        cluster.tally.questions.partial_lists.one();
        if let Some(more) = cluster.lists.missed.due() {
            let nodes = list.missing.join(", ");
            warn!(node = %core.node_id, %nodes, more, "a list of agents is partial, without those of");
        }
    }
    list
}

/// Agents of this node.
async fn here(core: &Core, after: Option<AgentKey>, limit: usize, filter: &AgentFilter) -> List {
    let (presence, now) = (&core.router.presence, core.clock.now());
    let is_all = filter.capability.is_none() && filter.name.is_none() && filter.label.is_none();
    let page = match is_all {
        true => presence.page_in_turns(after, limit, now, |_| true).await,
        false => {
            let wanted = |session: &SessionHandle| filter.wants(&session.facts());
            presence.search_in_turns(after, limit, now, wanted).await
        }
    };
    let mut agents = Vec::with_capacity(page.agents.len());
    for some in page.agents.chunks(WRITTEN_AT_ONCE) {
        agents.extend(some.iter().map(|session| listed(core, session)));
        tokio::task::yield_now().await;
    }
    List { agents, total: page.total, next: page.next, missing: Vec::new() }
}

fn listed(core: &Core, session: &SessionHandle) -> Listed {
    let key = session.agent.key();
    let tenure = core.cluster.as_ref().and_then(|_| core.router.presence.tenure(key));
    Listed {
        agent: session.facts(),
        epoch: tenure.and_then(|tenure| tenure.newest()),
        connected_ms: core.clock.wall(session.connected_at).as_unix_millis(),
        last_activity_ms: core.clock.wall(session.last_activity()).as_unix_millis(),
    }
}

/// What another node is answered that puts a list together.
pub(crate) async fn answer(
    core: &Core,
    after: Option<AgentKey>,
    limit: usize,
    filter: Filter,
) -> Answer {
    let Filter { name, capability, label } = filter;
    let filter = AgentFilter { name, capability, label, limit: 0 };
    let list = here(core, after, limit.clamp(1, ANSWERED), &filter).await;
    let (mut agents, mut bytes) = (Vec::new(), 0);
    let mut more = list.next.is_some();
    for listed in list.agents {
        let Ok(agent) = serde_json::to_string(&*listed.agent) else { continue };
        bytes += agent.len();
        // One at least: else nobody would ever come to those behind it.
        if bytes > ANSWERED_BYTES && !agents.is_empty() {
            more = true;
            break;
        }
        let Listed { epoch, connected_ms, last_activity_ms, .. } = listed;
        agents.push(Shown { agent, epoch, connected_ms, last_activity_ms });
    }
    Answer::Page { agents, total: list.total as u64, more }
}

/// Another node, and what it has still to say.
struct Source {
    member: MemberId,
    node_id: String,
    /// Behind which key it goes on.
    after: Option<AgentKey>,
    is_counted: bool,
    more: bool,
}

/// A list while it is put together.
struct Merging {
    limit: usize,
    agents: BTreeMap<AgentKey, Listed>,
    total: usize,
    /// Where what this node has shown of itself ends, if it has more.
    end: Option<AgentKey>,
    sources: Vec<Source>,
    missing: Vec<String>,
}

impl Merging {
    fn new(here: List, limit: usize) -> Self {
        let key = |listed: &Listed| AgentKey::from_bytes(listed.agent.key);
        Self {
            limit,
            agents: here.agents.into_iter().map(|listed| (key(&listed), listed)).collect(),
            total: here.total,
            end: here.next,
            sources: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn others(&mut self, nodes: impl Iterator<Item = (MemberId, String)>, after: Option<AgentKey>) {
        let source =
            |(member, node_id)| Source { member, node_id, after, is_counted: false, more: true };
        self.sources = nodes.map(source).collect();
    }

    /// Up to which key everything is known; everything is, if there is none.
    fn known_up_to(&self) -> Option<Option<AgentKey>> {
        let waiting = self.sources.iter().filter(|source| source.more);
        waiting.map(|source| source.after).min()
    }

    /// Whether the page is complete.
    fn is_full(&self) -> bool {
        match self.known_up_to() {
            None => true,
            Some(None) => false,
            Some(Some(bound)) => self.agents.range(..=bound).nth(self.limit - 1).is_some(),
        }
    }

    async fn ask(&mut self, delivery: &Arc<Delivery>, filter: &AgentFilter) {
        let until = Instant::now() + delivery.cluster.settings.takeover_timeout;
        let share = self.limit / (self.sources.len() + 1) + SLACK;
        let limit = share.min(self.limit).min(ANSWERED);
        // Whoever is not counted is asked in any case, for the total.
        while self.sources.iter().any(|source| !source.is_counted) || !self.is_full() {
            let bound = self.agents.keys().nth(self.limit - 1).copied();
            let behind = |source: &Source| match (source.after, bound) {
                (Some(after), Some(bound)) => after < bound,
                _ => true,
            };
            let asked = self.sources.iter().enumerate().filter(|(_, source)| source.more);
            let asked = asked.filter(|(_, source)| !source.is_counted || behind(source));
            let answers = asked.map(|(index, source)| {
                let question = Question::Page {
                    after: source.after.map(|key| *key.as_bytes()),
                    limit: u32::try_from(limit).unwrap_or(u32::MAX),
                    filter: Filter {
                        name: filter.name.clone(),
                        capability: filter.capability.clone(),
                        label: filter.label.clone(),
                    },
                };
                async move {
                    let asked = delivery.ask(source.member, question);
                    (index, timeout_at(until, asked).await.ok().and_then(Result::ok))
                }
            });
            for (index, answer) in join_all(answers).await {
                self.take(index, answer);
            }
        }
    }

    fn take(&mut self, index: usize, answer: Option<Answer>) {
        let source = &mut self.sources[index];
        let taken = match answer {
            Some(Answer::Page { agents, total, more }) => {
                let read = agents.iter().map(|shown| read(shown, source.after));
                read.collect::<Option<Vec<_>>>().map(|agents| (agents, total, more))
            }
            _ => None,
        };
        // One that says there are more and shows none would be asked for ever.
        let Some((agents, total, more)) =
            taken.filter(|(agents, _, more)| !more || !agents.is_empty())
        else {
            (source.is_counted, source.more) = (true, false);
            self.missing.push(source.node_id.clone());
            return;
        };
        if !std::mem::replace(&mut source.is_counted, true) {
            self.total = self.total.saturating_add(usize::try_from(total).unwrap_or(usize::MAX));
        }
        source.more = more;
        if let Some((last, _)) = agents.last() {
            source.after = Some(*last);
        }
        for (key, listed) in agents {
            self.add(key, listed);
        }
    }

    fn add(&mut self, key: AgentKey, listed: Listed) {
        match self.agents.get_mut(&key) {
            None => {
                self.agents.insert(key, listed);
            }
            Some(known) => {
                self.total = self.total.saturating_sub(1);
                // One that is just being put down is the newest.
                let is_newer =
                    known.epoch.is_some() && (listed.epoch.is_none() || listed.epoch > known.epoch);
                if is_newer {
                    *known = listed;
                }
            }
        }
    }

    fn into_list(self) -> List {
        let is_cut = self.end.is_some()
            || self.sources.iter().any(|source| source.more)
            || self.agents.len() > self.limit;
        let agents: Vec<_> = self.agents.into_iter().take(self.limit).collect();
        let next = agents.last().map(|(key, _)| *key).filter(|_| is_cut);
        let agents = agents.into_iter().map(|(_, listed)| listed).collect();
        List { agents, total: self.total, next, missing: self.missing }
    }
}

/// An agent that another node shows, if that is one whose key comes behind this one.
fn read(shown: &Shown, after: Option<AgentKey>) -> Option<(AgentKey, Listed)> {
    let agent: Agent = serde_json::from_str(&shown.agent).ok()?;
    let key = AgentKey::from_bytes(agent.key);
    let Shown { epoch, connected_ms, last_activity_ms, .. } = *shown;
    let listed = Listed { agent: Arc::new(agent), epoch, connected_ms, last_activity_ms };
    after.is_none_or(|after| key > after).then_some((key, listed))
}

#[cfg(test)]
mod tests;
