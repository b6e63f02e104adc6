//! What operators are told of the cluster: whether this node is part of it, and who else is.
//!
//! A look at what the node knows already: the last roster, which leases have ended since, what is under
//! way to whom. Nobody is asked. `admin::nodes`, the overview, problems and metrics show it.

use std::time::Duration;

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
    let others = others(core, cluster).filter(|(_, about)| about.counts(now)).count();
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
        under_way: total(cluster),
    })
}

/// All nodes that this one knows of: itself, then the others by their names.
pub(crate) fn nodes(core: &Core) -> Vec<NodeReport> {
    let Some(cluster) = &core.cluster else { return vec![this(core)] };
    let now = Instant::now();
    let apart = cluster.joined().err();
    let mut nodes: Vec<_> = others(core, cluster)
        .map(|(member, about)| other(cluster, member, &about, apart.is_some(), now))
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

fn other(
    cluster: &Cluster,
    member: MemberId,
    about: &Member,
    apart: bool,
    now: Instant,
) -> NodeReport {
    let info = &about.info;
    let why_not = if apart {
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
        under_way: under_way(cluster, member),
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

fn under_way(_cluster: &Cluster, _member: MemberId) -> UnderWay {
    UnderWay::default()
}

fn total(_cluster: &Cluster) -> UnderWay {
    UnderWay::default()
}

fn unix_ms_of(core: &Core, instant: Instant) -> i64 {
    core.clock.wall(core.clock.moment(instant)).as_unix_millis()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
