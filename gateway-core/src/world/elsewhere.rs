//! Agents on other nodes, as hooks and operators reach them.
//!
//! A hook that does not wait knows of them what its node remembers. One of scope "cluster", and an
//! operator, has the directory and the other nodes asked. What is handed to another node is on its way:
//! what becomes of it there is told to those who wait alone.

use std::sync::Arc;

use conexus_plugin_api::{Agent, AgentFilter, MAX_AGENTS, host::StateError};
use conexus_protocol::{AgentKey, CloseReason};
use tracing::debug;

use super::dismiss;
use crate::{
    cluster::{
        Cluster,
        backplane::Away,
        delivery::Delivery,
        frame::{Answer, Question},
        ids::MemberId,
        lists,
        places::Place,
    },
    core::Core,
};

/// What this node remembers of an agent on another one.
pub(super) fn remembered(core: &Core, key: AgentKey) -> Option<Arc<Agent>> {
    Some(core.cluster.as_ref()?.places.get(key)?.agent)
}

/// The agent of a key, wherever it is.
pub(super) async fn find(core: &Core, key: AgentKey) -> Result<Option<Arc<Agent>>, StateError> {
    if let Some(facts) = core.router.presence.facts(key, core.clock.now()) {
        return Ok(Some(facts));
    }
    let Some(cluster) = &core.cluster else { return Ok(None) };
    let mut places = cluster.find(&[key]).await.map_err(|_| StateError::Unavailable)?;
    Ok(places.pop().flatten().map(|place| place.agent))
}

/// Agents that the filter wants, wherever they are.
pub(super) async fn search(
    core: &Core,
    filter: &AgentFilter,
) -> Result<Vec<Arc<Agent>>, StateError> {
    let limit = if filter.limit == 0 { MAX_AGENTS } else { filter.limit.min(MAX_AGENTS) };
    let list = lists::list(core, None, limit, filter).await;
    match list.missing.is_empty() {
        true => Ok(list.agents.into_iter().map(|listed| listed.agent).collect()),
        false => Err(StateError::Unavailable),
    }
}

/// On which other node an agent is right now, if there are others.
pub(crate) async fn place(core: &Core, key: AgentKey) -> Result<Option<Place>, Away> {
    match &core.cluster {
        Some(cluster) => Ok(cluster.find_anew(&[key]).await?.pop().flatten()),
        None => Ok(None),
    }
}

/// The name of a node, as far as this one knows it.
pub(crate) fn node_id(cluster: &Cluster, member: MemberId) -> String {
    let members = cluster.members.load();
    members.get(member).map_or_else(|| member.to_string(), |about| about.info.node_id.clone())
}

/// Has the session of an agent ended that may be on another node; whether this node remembers one.
pub(super) fn disconnect(core: &Core, key: AgentKey, reason: &str) -> bool {
    let Some(delivery) = core.router.presence.delivery().cloned() else { return false };
    let cluster = &delivery.cluster;
    if cluster.joined().is_err() {
        return false;
    }
    let is_remembered = cluster.places.get(key).is_some();
    let Ok(permit) = Arc::clone(&cluster.closing).try_acquire_owned() else { return false };
    let (runtime, reason) = (cluster.runtime.clone(), reason.to_owned());
    // Hooks may be on a thread of their own.
    runtime.spawn(async move {
        let closed = close(&delivery, key, CloseReason::Denied, &reason).await;
        debug!(agent = %key.did(), ?closed, "policy ends a session on another node");
        drop(permit);
    });
    is_remembered
}

/// What came of having a session on another node ended.
#[derive(Debug)]
pub(crate) enum Closed {
    /// It is on no other node.
    Nowhere,
    /// Whether it was there, and not ending already, on the node of this name.
    Answered { agent: Arc<Agent>, node: String, was_there: bool },
    /// The node of this name did not answer in time: its session may have ended.
    Silent { node: String },
    /// This node is apart from the others.
    Apart(Away),
}

/// Has the session of an agent on another node ended.
pub(crate) async fn close(
    delivery: &Arc<Delivery>,
    key: AgentKey,
    close: CloseReason,
    reason: &str,
) -> Closed {
    let cluster = &delivery.cluster;
    let place = match cluster.find_anew(&[key]).await {
        Ok(mut places) => places.pop().flatten(),
        Err(away) => return Closed::Apart(away),
    };
    let Some(Place { member, agent, .. }) = place else { return Closed::Nowhere };
    let node = node_id(cluster, member);
    let reason = reason.to_owned();
    let question = Question::Close { key: *key.as_bytes(), close: close.code(), reason };
    match delivery.ask(member, question).await {
        Ok(Answer::Closed(was_there)) => Closed::Answered { agent, node, was_there },
        Ok(_) | Err(_) => Closed::Silent { node },
    }
}

/// Another node wants a session of this node's ended.
pub(crate) fn closed(core: &Core, key: AgentKey, code: u16, reason: &str) -> Answer {
    let close = [CloseReason::Denied, CloseReason::Removed];
    let Some(close) = close.into_iter().find(|close| close.code() == code) else {
        return Answer::Nothing;
    };
    let session = core.router.presence.holder(key);
    Answer::Closed(session.is_some_and(|session| dismiss(&session, close, reason)))
}
