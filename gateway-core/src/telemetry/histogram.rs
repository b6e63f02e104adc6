//! Times, counted by buckets: fine enough for quantiles of a second, exact enough for Prometheus.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::striped::Striped;

/// Upper bounds in microseconds: ten to a decade (the preferred numbers R10 of ISO 3), so that a
/// quantile is at most a quarter off. A last bucket has no bound.
pub(crate) const BOUNDS: [u64; 61] = [
    10, 12, 16, 20, 25, 32, 40, 50, 63, 80, //
    100, 125, 160, 200, 250, 320, 400, 500, 630, 800, //
    1_000, 1_250, 1_600, 2_000, 2_500, 3_200, 4_000, 5_000, 6_300, 8_000, //
    10_000, 12_500, 16_000, 20_000, 25_000, 32_000, 40_000, 50_000, 63_000, 80_000, //
    100_000, 125_000, 160_000, 200_000, 250_000, 320_000, 400_000, 500_000, 630_000,
    800_000, //
    1_000_000, 1_250_000, 1_600_000, 2_000_000, 2_500_000, 3_200_000, 4_000_000, 5_000_000,
    6_300_000, 8_000_000, 10_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// Times of some kind, counted on any thread.
#[derive(Debug, Default)]
pub(crate) struct Histogram(Striped<Counters>);

#[derive(Debug)]
struct Counters {
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Counters {
    fn default() -> Self {
        Self { nanos: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

/// The counts at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) nanos: u64,
    /// Not added up.
    pub(crate) buckets: [u64; BUCKETS],
}

impl Default for Times {
    fn default() -> Self {
        Self { nanos: 0, buckets: [0; BUCKETS] }
    }
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound * 1000 < nanos);
        let counters = self.0.mine();
        counters.buckets[bucket].fetch_add(1, Relaxed);
        counters.nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Times {
        let mut times = Times::default();
        for stripe in self.0.all() {
            times.nanos = times.nanos.wrapping_add(stripe.nanos.load(Relaxed));
            for (sum, bucket) in times.buckets.iter_mut().zip(&stripe.buckets) {
                *sum += bucket.load(Relaxed);
            }
        }
        times
    }
}

impl Times {
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was counted since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        since.nanos = since.nanos.wrapping_sub(earlier.nanos);
        for (now, before) in since.buckets.iter_mut().zip(&earlier.buckets) {
            *now = now.saturating_sub(*before);
        }
        since
    }

    /// The time that this share of all stays under, in microseconds, as if each bucket were filled
    /// evenly; `None` where nothing was counted. Above the last bound there is only that bound.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    pub(crate) fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (self.count() as f64 * share).max(f64::MIN_POSITIVE);
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            if *count > 0 && (below + count) as f64 >= rank {
                let from = index.checked_sub(1).map_or(0, |before| BOUNDS[before]);
                let to = BOUNDS.get(index).copied().unwrap_or(from);
                let part = (rank - below as f64) / *count as f64;
                return Some(from + ((to - from) as f64 * part).round() as u64);
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_their_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        for micros in 1..=1000 {
            histogram.observe(Duration::from_micros(micros));
        }
        let times = histogram.snapshot();
        assert_eq!((times.count(), times.nanos), (1000, 500_500_000));
        for (share, expected) in [(0.5, 500), (0.9, 900), (0.99, 990)] {
            let quantile = times.quantile(share).unwrap();
            assert!(quantile.abs_diff(expected) <= 10, "{share}: {quantile}");
        }
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_beyond_all_to_the_last() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(10));
        histogram.observe(Duration::from_nanos(10_001));
        histogram.observe(Duration::from_secs(3600));
        let times = histogram.snapshot();
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[BOUNDS.len()]), (1, 1, 1));
        assert_eq!(times.quantile(1.0), BOUNDS.last().copied());
    }

    #[test]
    fn what_was_counted_since_is_told_apart() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100));
        let before = histogram.snapshot();
        histogram.observe(Duration::from_micros(900));
        let since = histogram.snapshot().since(&before);
        assert_eq!((since.count(), since.nanos), (1, 900_000));
        assert!(BOUNDS.is_sorted());
    }
}
