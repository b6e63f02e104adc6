//! What operators are told of the cluster: whether this node is part of it, and who else is.
//!
//! A look at what the node knows already: the last roster, which leases have ended since, what is under
//! way to whom. Nobody is asked. `admin::nodes`, the overview, problems and metrics show it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    cluster::{Cluster, Station, frame, ids::MemberId, members::Member},
    core::{Core, millis},
    phase::Phase,
};

/// A node's place in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ClusterSummary {
    /// Whether this node is part of it right now. While it is not, its own agents reach each other, and
    /// nobody else.
    pub(crate) joined: bool,
    /// Since when, or since when not, in Unix milliseconds.
    pub(crate) since_ms: i64,
    /// Why not.
    pub(crate) why: Option<String>,
    /// The number that this node drew when it joined. One that was given up by the others comes back
    /// under another.
    pub(crate) member: Option<String>,
    /// Nodes whose lease lives and that this one can talk to, itself included.
    pub(crate) nodes: usize,
    /// `cluster.lease`.
    pub(crate) lease_ms: u64,
    /// How long the engine took for the last few operations; null before the first.
    pub(crate) engine_us: Option<EngineLatency>,
    /// Messages under way to other nodes.
    pub(crate) under_way: UnderWay,
}

/// How long the engine takes, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct EngineLatency {
    /// Half of the last few operations took no longer.
    pub(crate) median: u64,
    /// The slowest of them.
    pub(crate) slowest: u64,
}

/// What is under way to a node, and not confirmed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UnderWay {
    /// Messages.
    pub(crate) messages: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// One node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NodeReport {
    /// How it calls itself (`server.node_id`).
    pub(crate) id: String,
    /// Its own DID. Nodes may share one.
    pub(crate) did: String,
    /// The version of the program.
    pub(crate) version: String,
    /// Whether it is the one that answers.
    pub(crate) this: bool,
    /// `running` or `draining`.
    pub(crate) phase: &'static str,
    /// Agents that are there, as it last told.
    pub(crate) agents: u64,
    /// When it started, in Unix milliseconds, by its own clock.
    pub(crate) started_ms: i64,
    /// The number that it drew when it joined; null without a cluster, or while this node is apart.
    pub(crate) member: Option<String>,
    /// How long its lease runs unless it is renewed; null without a cluster.
    pub(crate) lease_left_ms: Option<u64>,
    /// Whether messages from here reach it.
    pub(crate) reachable: bool,
    /// Why not.
    pub(crate) why_not: Option<String>,
    /// What is under way to it from here.
    pub(crate) under_way: UnderWay,
}

/// This node's place in its cluster, if it is in one.
pub(crate) fn summary(core: &Core) -> Option<ClusterSummary> {
    let cluster = core.cluster.as_ref()?;
    let (member, why, engine) = match &*cluster.station.borrow() {
        Station::Joined(joined) => (Some(joined.member), None, joined.link.latency()),
        Station::Apart(away) => (None, Some(away.to_string()), None),
    };
    let now = Instant::now();
    let counts = |(_, about): &(MemberId, Member)| member.is_some() && about.counts(now);
    let others = others(core, cluster).filter(counts).count();
    Some(ClusterSummary {
        joined: member.is_some(),
        since_ms: unix_ms_of(core, cluster.stationed_at()),
        why,
        member: member.map(|member| member.to_string()),
        nodes: 1 + others,
        lease_ms: millis(cluster.settings.lease),
        engine_us: engine.map(|(median, slowest)| EngineLatency {
            median: micros(median),
            slowest: micros(slowest),
        }),
        under_way: core
            .router
            .presence
            .delivery()
            .map(|delivery| delivery.under_way().into())
            .unwrap_or_default(),
    })
}

/// All nodes that this one knows of: itself, then the others by their names.
pub(crate) fn nodes(core: &Core) -> Vec<NodeReport> {
    let Some(cluster) = &core.cluster else { return vec![this(core)] };
    let now = Instant::now();
    let is_apart = cluster.joined().is_err();
    let under_way = under_way(core);
    let mut nodes: Vec<_> = others(core, cluster)
        .map(|(member, about)| {
            let under_way = under_way.get(&member).copied().unwrap_or_default();
            NodeReport { under_way, ..other(member, &about, is_apart, now) }
        })
        .collect();
    nodes.sort_by(|a, b| (&a.id, &a.member).cmp(&(&b.id, &b.member)));
    nodes.insert(0, this(core));
    nodes
}

fn this(core: &Core) -> NodeReport {
    let cluster = core.cluster.as_deref();
    let member = cluster.and_then(|cluster| Some(cluster.joined().ok()?.member));
    let lease_left = cluster.map(|cluster| cluster.lease_left(Instant::now()));
    NodeReport {
        id: core.node_id.clone(),
        did: core.router.voice.did().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        this: true,
        phase: if core.phase() == Phase::Running { "running" } else { "draining" },
        agents: core.router.presence.online() as u64,
        started_ms: core.clock.started_at().as_unix_millis(),
        member: member.map(|member| member.to_string()),
        lease_left_ms: lease_left.map(millis),
        reachable: true,
        why_not: None,
        under_way: UnderWay::default(),
    }
}

fn other(member: MemberId, about: &Member, is_apart: bool, now: Instant) -> NodeReport {
    let info = &about.info;
    let why_not = if is_apart {
        Some("this node is apart from the cluster".to_owned())
    } else if now >= about.until {
        Some("its lease is over: it has died, or the engine cannot be reached from it".to_owned())
    } else if info.frames != frame::VERSION {
        Some(foreign_frames(info.frames))
    } else {
        None
    };
    NodeReport {
        id: info.node_id.clone(),
        did: info.did.clone(),
        version: info.version.clone(),
        this: false,
        phase: if info.draining { "draining" } else { "running" },
        agents: info.agents,
        started_ms: info.started_ms,
        member: Some(member.to_string()),
        lease_left_ms: Some(millis(about.until.saturating_duration_since(now))),
        reachable: why_not.is_none(),
        why_not,
        under_way: UnderWay::default(),
    }
}

/// Why nodes that are both there do not talk.
pub(crate) fn foreign_frames(theirs: u8) -> String {
    format!(
        "it speaks version {theirs} of what nodes tell each other, this one version {}",
        frame::VERSION
    )
}

/// The roster without this process, under whichever number it was on it.
fn others<'a>(
    core: &'a Core,
    cluster: &'a Cluster,
) -> impl Iterator<Item = (MemberId, Member)> + use<'a> {
    let member = cluster.joined().ok().map(|joined| joined.member);
    let started_ms = core.clock.started_at().as_unix_millis();
    let is_this = move |id: MemberId, about: &Member| {
        let info = &about.info;
        member == Some(id)
            || (info.node_id == core.node_id
                && info.started_ms == started_ms
                && info.did == core.router.voice.did())
    };
    let members = cluster.members.load();
    let others: Vec<_> = members
        .iter()
        .filter(|(id, about)| !is_this(*id, about))
        .map(|(id, about)| (id, about.clone()))
        .collect();
    others.into_iter()
}

/// The other nodes of the last roster.
pub(crate) fn peers(core: &Core) -> Vec<(MemberId, Member)> {
    core.cluster.as_deref().map(|cluster| others(core, cluster).collect()).unwrap_or_default()
}

impl From<(usize, usize)> for UnderWay {
    fn from((messages, bytes): (usize, usize)) -> Self {
        Self { messages: messages as u64, bytes: bytes as u64 }
    }
}

/// What is under way to each node that anything was sent to.
fn under_way(core: &Core) -> BTreeMap<MemberId, UnderWay> {
    let peers = core.router.presence.delivery().map(|delivery| delivery.peers());
    let peers = peers.into_iter().flatten();
    peers.map(|peer| (peer.member, peer.load().into())).collect()
}

fn unix_ms_of(core: &Core, instant: Instant) -> i64 {
    core.clock.wall(core.clock.moment(instant)).as_unix_millis()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::trial::{Trial, until};

    fn reached(core: &Core) -> Vec<String> {
        let nodes = nodes(core).into_iter().filter(|node| node.reachable);
        nodes.map(|node| node.id).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_told_as_this_one_knows_them() {
        let trial = Trial::new();
        let [a, b, c] = trial.nodes().await;
        assert_eq!(reached(&b.core), ["node-1", "node-0", "node-2"]);
        let told = nodes(&b.core);
        assert!(told[0].this && !told[1].this);
        assert!(told.iter().all(|node| node.lease_left_ms.is_some_and(|left| left > 0)));
        let here = summary(&b.core).unwrap();
        assert_eq!((here.joined, here.nodes, &here.member), (true, 3, &told[0].member));

        c.kill();
        until("the lease of a killed node ends", || reached(&b.core).len() == 2).await;
        let lost = nodes(&b.core).into_iter().find(|node| node.id == "node-2");
        assert!(lost.is_none_or(|lost| lost.why_not.is_some_and(|why| why.contains("lease"))));

        let joined_at = here.since_ms;
        b.cut_off(true);
        b.apart().await;
        let apart = summary(&b.core).unwrap();
        assert_eq!((apart.joined, apart.nodes, &apart.member), (false, 1, &None));
        assert!(apart.since_ms > joined_at && apart.why.is_some(), "{apart:?}");
        assert_eq!(reached(&b.core), ["node-1"], "its own agents alone");
        let why = nodes(&b.core)[1].why_not.clone().unwrap();
        assert!(why.contains("apart"), "{why}");
        b.cut_off(false);
        b.joined().await;
        until("both are whole again", || {
            reached(&a.core).len() == 2 && reached(&b.core).len() == 2
        })
        .await;
        assert!(
            nodes(&a.core).iter().filter(|node| node.id == "node-1" && node.reachable).count() == 1
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stops_is_draining_to_the_others_until_it_has_left() {
        let trial = Trial::new();
        let [a, mut b] = trial.nodes().await;
        let phases = || {
            let others = nodes(&a.core).into_iter().filter(|node| !node.this);
            others.map(|node| node.phase).collect::<Vec<_>>()
        };
        assert_eq!(phases(), ["running"]);
        let seen = until("it is draining to the other", || phases() == ["draining"]);
        tokio::join!(seen, b.stop());
        until("it is off the roster", || phases().is_empty()).await;
    }
}
