//! Who is in the cluster, as this node was told last.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    backplane::{NodeInfo, Roster},
    frame,
    ids::MemberId,
};

/// One look at the roster.
#[derive(Debug, Default)]
pub(crate) struct Members(BTreeMap<MemberId, Member>);

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) info: NodeInfo,
    /// When its lease is over unless it is renewed, by this node's monotonic clock.
    pub(crate) until: Instant,
}

impl Members {
    /// The roster as it was answered at `now`.
    pub(crate) fn new(roster: Roster, now: Instant) -> Self {
        let member = |left: Duration, info| Member { info, until: now + left };
        let listed = roster.members.into_iter();
        Self(listed.map(|listed| (listed.member, member(listed.left, listed.info))).collect())
    }

    pub(crate) fn get(&self, member: MemberId) -> Option<&Member> {
        self.0.get(&member)
    }

    /// Whether what this member has counts at `now`, and can be reached from here.
    pub(crate) fn counts(&self, member: MemberId, now: Instant) -> bool {
        self.get(member).is_some_and(|member| member.counts(now))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.0.iter().map(|(member, about)| (*member, about))
    }
}

impl Member {
    /// Whether its lease lives at `now`, and it speaks as this node does.
    pub(crate) fn counts(&self, now: Instant) -> bool {
        now < self.until && self.info.frames == frame::VERSION
    }
}
