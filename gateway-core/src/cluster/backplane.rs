//! What the nodes of a cluster ask of the engine that they share.
//!
//! The trait is small on purpose: leases, the directory, channels, and hooks' shared state. All that
//! makes a cluster of it is above, in Rust, and is tested over an engine in memory. Each operation is
//! atomic by itself, and is decided by the engine's own clock. A [`Link`] is one connection: once it
//! has failed it stays so, and whoever needs the engine connects anew.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use conexus_plugin_api::{
    Agent,
    host::{StateError, Value},
};
use conexus_protocol::AgentKey;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::ids::{Bucket, Epoch, MemberId};

/// The engine cannot be reached, did not answer in time, or answered what makes no sense.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Away(pub(crate) Arc<str>);

/// An engine that nodes share.
pub(crate) trait Backplane: Send + Sync + std::fmt::Debug {
    /// Connects, and listens on the channel of `member` before it returns. `events` gets what comes
    /// in, in order; while it is full the link waits, and is given up when that takes too long.
    fn connect(
        &self,
        member: MemberId,
        events: mpsc::Sender<LinkEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Away>>;
}

/// What comes in by a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Something on this member's channel: a batch of [frames](super::frame).
    Frames(Bytes),
    /// A change in a part of the directory that this link [follows](Link::follow).
    Change(Change),
    /// This link [listens no more](Link::unlisten): all frames that were heard came before.
    Unlistened,
    /// The link has failed. The last event.
    Lost(Away),
}

/// One connection to the engine. Dropping the last clone ends it.
///
/// Whatever writes does so before `within` of its call has passed, by the engine's clock, or not at
/// all: what lay about in a buffer while the engine was paused does no harm afterwards.
pub(crate) trait Link: Send + Sync + std::fmt::Debug {
    /// Renews a member's lease, or enters it, and tells who else is there. One write, whatever the
    /// number of agents.
    fn renew<'a>(
        &'a self,
        member: MemberId,
        about: &'a NodeInfo,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Roster, Away>>;

    /// Takes a member off the roster whose lease is over; true for one of many who try. That one is to
    /// bury it: to [clear](Self::clear) what it had, and to say so [in the end](Self::buried). When it
    /// has not done so `within` that time, the member is [shown](Roster::unburied) to all, and one of
    /// those who strike it then is told so again.
    fn strike(&self, member: MemberId, within: Duration) -> BoxFuture<'_, Result<bool, Away>>;

    /// Nothing is left to be done about a member that was struck off.
    fn buried(&self, member: MemberId) -> BoxFuture<'_, Result<(), Away>>;

    /// Takes a member off the roster, alive or not, that has nothing in the directory any more: it
    /// leaves in order, and nobody is to bury it.
    fn retire(&self, member: MemberId) -> BoxFuture<'_, Result<(), Away>>;

    /// Puts an agent down as being on this member, unless a newer registration is known. While the
    /// engine's clock is behind the last epoch that it gave, as after it was set back, ages do not
    /// count: each claim is newer than all before.
    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Claimed, Away>>;

    /// Takes agents out of the directory, each if it is still down with this member and epoch.
    fn release<'a>(
        &'a self,
        member: MemberId,
        releases: &'a [Release],
    ) -> BoxFuture<'a, Result<(), Away>>;

    /// Puts down all agents of one part of the directory that this member has, and takes out those
    /// that it has no more. Which of them it has no right to, since a newer registration is known. One
    /// that is down with the same epoch is the same registration, of a node that has joined anew: it
    /// belongs to this member from now on.
    fn announce<'a>(
        &'a self,
        member: MemberId,
        bucket: Bucket,
        agents: &'a [Announced],
    ) -> BoxFuture<'a, Result<Vec<Outcome>, Away>>;

    /// Replaces what is told of an agent, if it is still down with this member and epoch.
    fn describe<'a>(
        &'a self,
        member: MemberId,
        epoch: Epoch,
        agent: &'a Agent,
    ) -> BoxFuture<'a, Result<(), Away>>;

    /// Where agents are, in the order of the keys. Whether the member still counts is not asked.
    fn find<'a>(&'a self, keys: &'a [AgentKey]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, Away>>;

    /// What a member has in one part of the directory.
    fn entries(&self, member: MemberId, bucket: Bucket) -> BoxFuture<'_, Result<Vec<Entry>, Away>>;

    /// Which of these agents, all of one part of the directory, are not down as being on this member:
    /// their places among them. A question that is answered with next to nothing where all are.
    fn missing<'a>(
        &'a self,
        member: MemberId,
        bucket: Bucket,
        agents: &'a [AgentKey],
    ) -> BoxFuture<'a, Result<Vec<usize>, Away>>;

    /// Takes all of that out, for this reason.
    fn clear(
        &self,
        member: MemberId,
        bucket: Bucket,
        reason: &'static str,
    ) -> BoxFuture<'_, Result<(), Away>>;

    /// From when it returns until [`unfollow`](Self::unfollow), changes in a part of the directory
    /// come in as [`LinkEvent::Change`].
    fn follow(&self, bucket: Bucket) -> BoxFuture<'_, Result<(), Away>>;

    fn unfollow(&self, bucket: Bucket) -> BoxFuture<'_, Result<(), Away>>;

    /// Listens to the channel of its member no more: what is published there from when it returns is
    /// heard by nobody. [`LinkEvent::Unlistened`] comes behind all that was heard before.
    fn unlisten(&self) -> BoxFuture<'_, Result<(), Away>>;

    /// Puts frames on a member's channel, behind what was put there by earlier calls, whichever of their
    /// futures is looked at first. Whether anybody listens there.
    fn publish(&self, to: MemberId, frames: Bytes) -> BoxFuture<'_, Result<bool, Away>>;

    /// Puts bans down and lifts others, for all nodes. False if there is no room for so many: then
    /// nothing has changed.
    fn ban<'a>(
        &'a self,
        bans: &'a [SharedBan],
        lifted: &'a [AgentKey],
    ) -> BoxFuture<'a, Result<bool, Away>>;

    /// All bans that hold, unless they are those of `known`.
    fn bans(&self, known: Option<BansAt>) -> BoxFuture<'_, Result<Option<BanList>, Away>>;

    /// Does something to the state that hooks share.
    fn state<'a>(
        &'a self,
        request: &'a StateRequest,
    ) -> BoxFuture<'a, Result<Result<StateReply, StateError>, Away>>;

    /// How long the last few operations took, for operators: half of them, and the slowest.
    fn latency(&self) -> Option<(Duration, Duration)> {
        None
    }
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeInfo {
    /// `server.node_id`, or the name made from its identity.
    pub(crate) node_id: String,
    pub(crate) did: String,
    pub(crate) version: String,
    /// [`frame::VERSION`](super::frame::VERSION).
    pub(crate) frames: u8,
    /// By its own clock, for people.
    pub(crate) started_ms: i64,
    pub(crate) agents: u64,
    /// It takes no new agents.
    pub(crate) draining: bool,
    /// `cluster.lease` of this node. The others need not have the same.
    #[serde(default)]
    pub(crate) lease_ms: u64,
}

/// Who is there, by the engine's clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    pub(crate) members: Vec<Listed>,
    /// The member that asked was not on the roster before: it is new, was struck off, or the engine
    /// has lost its memory.
    pub(crate) entered: bool,
    /// Members that were struck off, and that nobody has buried in time.
    pub(crate) unburied: Vec<MemberId>,
    /// The engine's clock, as in an [`Epoch`].
    pub(crate) now: Epoch,
}

/// One member of the roster.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) member: MemberId,
    pub(crate) info: NodeInfo,
    /// How long its lease runs from now on; zero when it is over.
    pub(crate) left: Duration,
}

/// An agent that is to be put down.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) member: MemberId,
    pub(crate) agent: Arc<Agent>,
    /// How long ago its proof was seen to hold: the epoch is that much before now.
    pub(crate) age: Duration,
}

/// What came of a claim.
#[derive(Debug, Clone)]
pub(crate) enum Claimed {
    /// It is down, with this epoch. Who had it before, if somebody did, this member included.
    Won { epoch: Epoch, before: Option<(MemberId, Epoch)> },
    /// A newer registration is known.
    Lost { to: MemberId, epoch: Epoch },
}

/// An agent of this member's that is to be put down again.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) agent: Arc<Agent>,
    /// Of its registration, where it has one already; else how long ago that was.
    pub(crate) epoch: Result<Epoch, Duration>,
}

/// What came of one agent of an announcement.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) key: AgentKey,
    pub(crate) claimed: Claimed,
}

/// An agent that is to be taken out.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) key: AgentKey,
    pub(crate) epoch: Epoch,
    /// Why, as watchers are told.
    pub(crate) reason: &'static str,
}

/// What the directory knows of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: AgentKey,
    pub(crate) member: MemberId,
    pub(crate) epoch: Epoch,
    pub(crate) agent: Arc<Agent>,
}

/// A change in the directory. They come in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: AgentKey,
    pub(crate) member: MemberId,
    pub(crate) epoch: Epoch,
    pub(crate) kind: ChangeKind,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It is here now, and was nowhere before.
    Came,
    /// It is here now, and was on another member, or here already, before.
    Moved,
    /// It is nowhere any more, for this reason.
    Left(String),
}

/// A ban, as all nodes share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedBan {
    pub(crate) key: AgentKey,
    /// For how long from now on.
    pub(crate) left: Duration,
    pub(crate) about: BanAbout,
}

/// What there is to say of a ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BanAbout {
    pub(crate) did: String,
    pub(crate) reason: String,
    pub(crate) by: String,
}

/// As of which change bans are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BansAt {
    /// Another one when the engine has lost its memory meanwhile; zero while it was told of none.
    pub(crate) origin: u64,
    pub(crate) version: u64,
}

/// All bans that hold.
#[derive(Debug, Clone)]
pub(crate) struct BanList {
    pub(crate) at: BansAt,
    pub(crate) bans: Vec<SharedBan>,
}

/// Something that a hook wants of the state that all nodes share.
#[derive(Debug, Clone)]
pub(crate) struct StateRequest {
    /// Whose keys.
    pub(crate) namespace: Arc<str>,
    pub(crate) key: String,
    pub(crate) operation: StateOperation,
}

/// As [`Namespace`](crate::state::Namespace) has them.
#[derive(Debug, Clone)]
pub(crate) enum StateOperation {
    Get,
    Set { value: Value, ttl: Option<Duration> },
    Delete,
    Incr { by: i64, ttl: Option<Duration> },
    Cas { expected: Option<Value>, value: Value, ttl: Option<Duration> },
    Expire { ttl: Option<Duration> },
    RateLimit { count: u32, per: Duration },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StateReply {
    Value(Option<Value>),
    Done,
    Flag(bool),
    Number(i64),
}
