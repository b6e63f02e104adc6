//! What is counted of one hook at one point in one generation.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use conexus_plugin_api::{Answer, Verdict};
use serde::Serialize;

use super::hook::HookFault;
use crate::striped::Striped;

/// Upper bounds of the histogram's buckets, in microseconds; a last one has no bound.
pub(crate) const BUCKETS: [u64; 16] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000, 1_000_000];

const VERDICTS: [&str; 8] =
    ["continue", "allow", "deny", "redirect", "copy", "hold", "extend", "set"];
const FAULTS: [&str; 6] = ["error", "panic", "timeout", "bad_return", "overload", "quarantined"];

/// See the [module](self). Relaxed throughout: read for reports, never to decide.
#[derive(Debug, Default)]
pub(crate) struct Stats(Striped<Counters>);

#[derive(Debug, Default)]
struct Counters {
    verdicts: [AtomicU64; VERDICTS.len()],
    faults: [AtomicU64; FAULTS.len()],
    overruns: AtomicU64,
    mismatches: AtomicU64,
    slow: AtomicU64,
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len() + 1],
}

impl Stats {
    pub(crate) fn answered(&self, answer: &Answer) {
        let counters = self.0.mine();
        if answer.is_continue() {
            counters.verdicts[0].fetch_add(1, Relaxed);
        }
        for verdict in answer.verdicts() {
            let index = match verdict {
                Verdict::Allow => 1,
                Verdict::Deny { .. } => 2,
                Verdict::Redirect(_) => 3,
                Verdict::Copy(_) => 4,
                Verdict::Hold(_) => 5,
                Verdict::Extend(_) => 6,
                _ => 7,
            };
            counters.verdicts[index].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn failed(&self, fault: &HookFault) {
        let index = FAULTS.iter().position(|kind| *kind == fault.kind()).unwrap_or(0);
        self.0.mine().faults[index].fetch_add(1, Relaxed);
    }

    /// A call took so long, whatever came of it.
    pub(crate) fn took(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| *bound < nanos / 1000);
        let counters = self.0.mine();
        counters.buckets[bucket].fetch_add(1, Relaxed);
        counters.nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn overran(&self) {
        self.0.mine().overruns.fetch_add(1, Relaxed);
    }

    /// In shadow mode, its verdict would have led to another ruling.
    pub(crate) fn mismatched(&self) {
        self.0.mine().mismatches.fetch_add(1, Relaxed);
    }

    pub(crate) fn was_slow(&self) {
        self.0.mine().slow.fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> HookCounts {
        let total = |counter: &dyn Fn(&Counters) -> &AtomicU64| -> u64 {
            self.0.all().map(|counters| counter(counters).load(Relaxed)).sum()
        };
        let named = |names: &[&'static str], count: &dyn Fn(usize) -> u64| {
            let counts = names.iter().enumerate().map(|(index, name)| (*name, count(index)));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        let bucket = |index: usize| total(&|counters| &counters.buckets[index]);
        let buckets: Vec<u64> = (0..=BUCKETS.len()).map(bucket).collect();
        HookCounts {
            calls: buckets.iter().sum(),
            verdicts: named(&VERDICTS, &|index| total(&|counters| &counters.verdicts[index])),
            faults: named(&FAULTS, &|index| total(&|counters| &counters.faults[index])),
            overruns: total(&|counters| &counters.overruns),
            slow: total(&|counters| &counters.slow),
            mismatches: total(&|counters| &counters.mismatches),
            total_us: total(&|counters| &counters.nanos) / 1000,
            p50_us: quantile(&buckets, 0.5),
            p99_us: quantile(&buckets, 0.99),
            buckets,
        }
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct HookCounts {
    /// Calls that ran, whatever came of them.
    pub calls: u64,
    /// By verdict, `continue` included; without those that never came.
    pub verdicts: std::collections::BTreeMap<&'static str, u64>,
    /// By kind of failure; without those that never came.
    pub faults: std::collections::BTreeMap<&'static str, u64>,
    /// Calls whose answer counted although they were over their budget.
    pub overruns: u64,
    /// Calls over their warning threshold.
    pub slow: u64,
    /// Verdicts in shadow mode that would have led to another ruling, had they been obeyed.
    pub mismatches: u64,
    /// The time of all calls, in microseconds.
    pub total_us: u64,
    /// The bound of the bucket that holds the median, in microseconds; 0 without calls.
    pub p50_us: u64,
    /// The bound of the bucket that holds the 99th percentile, in microseconds; 0 without calls.
    pub p99_us: u64,
    /// Calls by time: up to 1, 2, 5, 10, 20, 50, 100, 200 and 500 µs, 1, 2, 5, 10, 50 and 250 ms,
    /// 1 s, and above.
    pub buckets: Vec<u64>,
}

impl HookCounts {
    /// What was counted of the same hook elsewhere comes on top. The quantiles are found anew.
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        for (verdict, count) in &other.verdicts {
            *self.verdicts.entry(verdict).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.overruns += other.overruns;
        self.slow += other.slow;
        self.mismatches += other.mismatches;
        self.total_us += other.total_us;
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += count;
        }
        (self.p50_us, self.p99_us) = (quantile(&self.buckets, 0.5), quantile(&self.buckets, 0.99));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of a count"
)]
fn quantile(buckets: &[u64], share: f64) -> u64 {
    let total: u64 = buckets.iter().sum();
    let rank = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (bucket, bound) in buckets.iter().zip(BUCKETS.iter().chain([&u64::MAX])) {
        seen += bucket;
        if seen >= rank && total > 0 {
            return *bound;
        }
    }
    0
}

/// Lets a line of the log through now and then, and counts the ones it swallows.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    next_ms: AtomicI64,
    swallowed: AtomicU64,
}

impl LogGate {
    const EVERY_MS: i64 = 1000;

    /// How many lines were swallowed since the last one, if it is time for one now.
    pub(crate) fn open(&self, now_ms: i64) -> Option<u64> {
        let next = self.next_ms.load(Relaxed);
        let free = now_ms >= next || next - now_ms > Self::EVERY_MS;
        let mine = free
            && self
                .next_ms
                .compare_exchange(next, now_ms + Self::EVERY_MS, Relaxed, Relaxed)
                .is_ok();
        if mine {
            Some(self.swallowed.swap(0, Relaxed))
        } else {
            self.swallowed.fetch_add(1, Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let stats = Stats::default();
        assert_eq!(stats.snapshot().p50_us, 0);
        for _ in 0..98 {
            stats.took(Duration::from_micros(3));
        }
        stats.took(Duration::from_millis(7));
        stats.took(Duration::from_secs(5));
        let counts = stats.snapshot();
        assert_eq!((counts.calls, counts.p50_us, counts.p99_us), (100, 5, 10_000));
        assert_eq!(counts.buckets.last(), Some(&1));
    }

    #[test]
    fn counts_of_one_hook_at_two_places_add_up() {
        let (one, other) = (Stats::default(), Stats::default());
        one.answered(&Answer::default());
        other.answered(&Answer::default());
        other.failed(&HookFault::TimedOut);
        one.took(Duration::from_micros(3));
        (0..9).for_each(|_| other.took(Duration::from_millis(7)));
        let mut counts = one.snapshot();
        counts.add(&other.snapshot());
        assert_eq!((counts.calls, counts.p50_us, counts.total_us), (10, 10_000, 63_003));
        assert_eq!((counts.verdicts["continue"], counts.faults["timeout"]), (2, 1));
    }

    #[test]
    fn a_gate_lets_one_line_a_second_through_and_counts_the_others() {
        let gate = LogGate::default();
        assert_eq!(gate.open(5_000), Some(0));
        assert_eq!(gate.open(5_001), None);
        assert_eq!(gate.open(5_999), None);
        assert_eq!(gate.open(6_000), Some(2));
        assert_eq!(gate.open(1_000), Some(0), "a clock that was set back does not silence it");
    }
}
