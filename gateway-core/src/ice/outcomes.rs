//! How agents say that they connected to each other: counted by words of WebRTC's, never by an agent's
//! own.
//!
//! What is told is believed: nobody but the two agents knows. `http` takes it, `telemetry` shows it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Deserialize;

/// Where a candidate of the pair in use is from (RFC 8445, section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CandidateKind {
    Host,
    Srflx,
    Prflx,
    Relay,
}

impl CandidateKind {
    const ALL: [Self; 4] = [Self::Host, Self::Srflx, Self::Prflx, Self::Relay];

    const fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Srflx => "srflx",
            Self::Prflx => "prflx",
            Self::Relay => "relay",
        }
    }
}

/// What the pair's packets go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Udp,
    Tcp,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Udp, Self::Tcp];

    const fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// The pair that two agents are connected by, as one of them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) local: CandidateKind,
    pub(crate) remote: CandidateKind,
    pub(crate) protocol: Protocol,
}

/// What came of looking for a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// One was found, within this time.
    Connected(Pair, Duration),
    /// There was none.
    Failed,
}

/// Upper bounds of the time to connect, in milliseconds: from one machine to a way by a relay that was
/// tried last. A last bucket has no bound.
const BOUNDS_MS: [u64; 12] = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000];

/// Outcomes, counted.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// By local kind, remote kind and protocol, in the order of each one's `ALL`.
    connected:
        [[[AtomicU64; Protocol::ALL.len()]; CandidateKind::ALL.len()]; CandidateKind::ALL.len()],
    failed: AtomicU64,
    /// Times to connect, not added up.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    millis: AtomicU64,
}

impl Outcomes {
    pub(crate) fn count(&self, outcome: Outcome) {
        let Outcome::Connected(Pair { local, remote, protocol }, time) = outcome else {
            self.failed.fetch_add(1, Relaxed);
            return;
        };
        let of_pair = &self.connected[local as usize][remote as usize][protocol as usize];
        of_pair.fetch_add(1, Relaxed);
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < millis);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.millis.fetch_add(millis, Relaxed);
    }

    /// How often each came out: `outcome`, `local`, `remote`, `transport`.
    pub(crate) fn all(&self) -> impl Iterator<Item = ([&'static str; 4], u64)> {
        let connected = CandidateKind::ALL.into_iter().flat_map(move |local| {
            CandidateKind::ALL.into_iter().flat_map(move |remote| {
                Protocol::ALL.into_iter().map(move |protocol| {
                    let count = &self.connected[local as usize][remote as usize][protocol as usize];
                    let words = ["connected", local.word(), remote.word(), protocol.word()];
                    (words, count.load(Relaxed))
                })
            })
        });
        connected.chain([(["failed", "none", "none", "none"], self.failed.load(Relaxed))])
    }

    /// The times to connect: their sum, and how many are in each bucket, by its upper bound in seconds.
    pub(crate) fn times(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = BOUNDS_MS.iter().map(|bound| Duration::from_millis(*bound).as_secs_f64());
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        let buckets = bounds.chain([f64::INFINITY]).zip(counts).collect();
        (Duration::from_millis(self.millis.load(Relaxed)).as_secs_f64(), buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(local: CandidateKind, remote: CandidateKind, protocol: Protocol) -> Pair {
        Pair { local, remote, protocol }
    }

    #[test]
    fn an_outcome_counts_once_where_it_belongs() {
        let outcomes = Outcomes::default();
        let direct = pair(CandidateKind::Host, CandidateKind::Prflx, Protocol::Udp);
        let relayed = pair(CandidateKind::Relay, CandidateKind::Srflx, Protocol::Tcp);
        for (pair, millis) in [(direct, 10), (direct, 11), (relayed, 100_000)] {
            outcomes.count(Outcome::Connected(pair, Duration::from_millis(millis)));
        }
        outcomes.count(Outcome::Failed);
        let counted: Vec<_> = outcomes.all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            counted,
            [
                (["connected", "host", "prflx", "udp"], 2),
                (["connected", "relay", "srflx", "tcp"], 1),
                (["failed", "none", "none", "none"], 1),
            ]
        );
        assert_eq!(outcomes.all().count(), 33);
        let (sum, buckets) = outcomes.times();
        let filled: Vec<_> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.01, 1), (0.02, 1), (f64::INFINITY, 1)]);
        assert!((sum - 100.021).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn places_in_the_table_are_those_of_the_lists() {
        assert!(CandidateKind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert!(Protocol::ALL.iter().enumerate().all(|(at, protocol)| *protocol as usize == at));
    }
}
