//! What a node counts of its cluster, for operators.
//!
//! Plain atomics, each counted where the thing happens: a handful for each batch of messages, none for
//! a message that stays on this node. `telemetry::families::cluster` and `admin::nodes` read them;
//! `docs/metrics.md` says what each means. What hooks ask of the cluster is counted by `hooks::shared`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::telemetry::histogram::Histogram;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares a struct of counts, and the list of them by name, as a label of metrics has it.
macro_rules! counts {
    ($(#[doc = $about:literal])+ $Name:ident { $( $(#[doc = $doc:literal])* $count:ident, )+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Default)]
        pub(crate) struct $Name { $( $(#[doc = $doc])* pub(crate) $count: Count, )+ }

        impl $Name {
            /// Every count by its name.
            pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$( (stringify!($count), self.$count.get()), )+].into_iter()
            }
        }
    };
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) links: Links,
    pub(crate) leases: Leases,
    pub(crate) claims: Claims,
    pub(crate) burials: Burials,
    pub(crate) forwarded: Forwarded,
    pub(crate) arrived: Arrived,
    pub(crate) traffic: Traffic,
    pub(crate) stale: Stale,
    pub(crate) lookups: Lookups,
    pub(crate) questions: Questions,
    /// From a message's being sent to another node to the word that it is delivered there.
    pub(crate) round_trip: Histogram,
}

counts! {
    /// Links to the engine.
    Links {
        /// Came about.
        made,
        /// Could not be made.
        refused,
        /// Failed after they had been made.
        lost,
    }
}

counts! {
    /// This node's own lease.
    Leases {
        /// Was renewed, or entered anew.
        renewed,
        /// Could not be renewed.
        failed,
        /// Was entered anew: this node was new, had been given up, or the engine had lost its memory.
        entered,
    }
}

counts! {
    /// Registrations of this node's agents, as the directory took them.
    Claims {
        /// Of an agent that was nowhere, or on this node.
        won,
        /// Of an agent that was on another node, whose session ended for it.
        took_over,
        /// A newer one is on another node: the session here was not begun, or ended.
        lost,
        /// The engine was away: it is put down when that is back.
        put_off,
        /// The other node did not say within `cluster.takeover_timeout` that its session had ended.
        unyielded,
        /// Put down again, after this node was apart or the engine had lost its memory.
        announced,
    }
}

/// Nodes whose lease ended, seen to by this one.
#[derive(Debug, Default)]
pub(crate) struct Burials {
    pub(crate) nodes: Count,
    /// Agents of theirs, told to observers as `node_lost`.
    pub(crate) agents: Count,
}

counts! {
    /// Messages of this node's senders that went to another node.
    Forwarded {
        /// Written to the target's socket there.
        delivered,
        /// The target was not there any more: they were resolved anew.
        gone,
        /// The target's outbox had no room.
        full,
        /// Too much was under way to that node.
        overflowed,
        /// What became of them is not known: the node, the link or a batch was lost.
        lost,
    }
}

counts! {
    /// Messages of other nodes' senders that came here, by what they were answered.
    Arrived {
        delivered,
        gone,
        full,
    }
}

/// Batches of frames.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: Count,
    pub(crate) sent_bytes: Count,
    pub(crate) received: Count,
    pub(crate) received_bytes: Count,
    /// Were put on the channel of a node that did not listen.
    pub(crate) unheard: Count,
}

counts! {
    /// Batches that were not taken.
    Stale {
        /// Came by an older link of the sender's than was heard of before.
        old_link,
        /// Were for a member that this node was once.
        not_addressed,
        /// Came while this node's own lease was not certain.
        untrusted,
        /// Came from a node of another version of the frames.
        version,
        /// Could not be read.
        malformed,
    }
}

counts! {
    /// Where an agent of another node is.
    Lookups {
        /// Was remembered.
        remembered,
        /// The directory was asked, and knew it.
        found,
        /// The directory was asked, and knew nothing.
        absent,
        /// The directory did not answer.
        failed,
    }
}

/// What this node asked other nodes.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    pub(crate) answered: Count,
    /// Not within `cluster.takeover_timeout`, or the node was lost.
    pub(crate) unanswered: Count,
    /// Messages of which this node asked what became of them.
    pub(crate) unsettled: Count,
    /// Lists of agents that lack those of a node which did not answer.
    pub(crate) partial_lists: Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_listed_by_their_names() {
        let links = Links::default();
        links.made.one();
        links.lost.add(2);
        let all: Vec<_> = links.all().collect();
        assert_eq!(all, [("made", 1), ("refused", 0), ("lost", 2)]);
    }
}
