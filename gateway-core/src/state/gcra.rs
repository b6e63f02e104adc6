//! Rate limits: the generic cell rate algorithm (ITU-T I.371), as virtual scheduling.
//!
//! One number per key: when its burst is whole again. The crate `governor` does the same for the
//! limits of connections, but its clocks are read, not told: it has no way to be asked about a given
//! moment, which virtual time needs. `limits` keeps to it, too, for its tables.

use std::time::Duration;

/// A moment further away than a whole burst was put down by a clock that went back since. Calls
/// that overlap differ by less than this, and must not count as that.
const SLACK_NS: i64 = 1_000_000_000;

const NS_PER_MS: i64 = 1_000_000;

/// When a key's burst is whole again, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WholeAt(i64);

impl WholeAt {
    /// The first millisecond at which it is so.
    pub(crate) const fn as_millis(self) -> i64 {
        let (millis, rest) = (self.0.div_euclid(NS_PER_MS), self.0.rem_euclid(NS_PER_MS));
        if rest == 0 { millis } else { millis + 1 }
    }
}

/// So many per time, at least one of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// What one costs, in time. Rounded down, so that a burst is whole again after `per` at last.
    interval: i64,
    /// What a whole burst costs.
    burst: i64,
}

impl Rate {
    pub(crate) fn new(count: u32, per: Duration) -> Option<Self> {
        Self::with_burst(count, per, count)
    }

    /// The same with a burst of its own.
    pub(crate) fn with_burst(count: u32, per: Duration, burst: u32) -> Option<Self> {
        let per = i64::try_from(per.as_nanos()).unwrap_or(i64::MAX);
        if count == 0 || per == 0 || burst == 0 {
            return None;
        }
        let interval = (per / i64::from(count)).max(1);
        Some(Self { interval, burst: interval.saturating_mul(i64::from(burst)) })
    }

    /// Whether there is one left, and when the burst is whole again after that.
    pub(crate) fn admit(self, taken: Option<WholeAt>, now_ms: i64) -> (bool, WholeAt) {
        let now = now_ms.saturating_mul(NS_PER_MS);
        let debt = taken.map_or(0, |WholeAt(whole)| whole.saturating_sub(now).max(0));
        // The clock went back, or the rate was another: never more than a whole burst is owed.
        let jumped = debt > self.burst.saturating_add(SLACK_NS);
        let debt = if jumped { self.burst } else { debt };
        match debt.checked_add(self.interval).filter(|owed| *owed <= self.burst) {
            Some(owed) => (true, WholeAt(now.saturating_add(owed))),
            None => (false, WholeAt(now.saturating_add(debt))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `tries` are admitted at a moment.
    fn admitted(rate: Rate, state: &mut Option<WholeAt>, now_ms: i64, tries: usize) -> usize {
        let mut admit = || {
            let (admitted, whole_at) = rate.admit(*state, now_ms);
            *state = Some(whole_at);
            admitted
        };
        (0..tries).filter(|_| admit()).count()
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_evenly_spread() {
        let rate = Rate::new(3, Duration::from_secs(1)).unwrap();
        let mut state = None;
        assert_eq!(admitted(rate, &mut state, 0, 10), 3);
        assert_eq!(admitted(rate, &mut state, 333, 10), 0);
        assert_eq!(admitted(rate, &mut state, 334, 10), 1);
        assert_eq!(admitted(rate, &mut state, 667, 10), 1);
        // Rounding never makes a rate stricter than it is written.
        assert_eq!(admitted(rate, &mut state, 1667, 10), 3);
    }

    #[test]
    fn a_burst_is_whole_again_after_its_time() {
        for count in [1, 2, 3, 7, 10, 999, 1000] {
            let rate = Rate::new(count, Duration::from_secs(60)).unwrap();
            let mut state = None;
            for round in 0..5 {
                let now = round * 60_000;
                assert_eq!(admitted(rate, &mut state, now, 2000), count as usize, "{count}");
                assert!(state.unwrap().as_millis() <= now + 60_000);
            }
        }
    }

    #[test]
    fn a_rate_of_nothing_or_over_no_time_is_none() {
        assert!(Rate::new(0, Duration::from_secs(1)).is_none());
        assert!(Rate::new(1, Duration::ZERO).is_none());
        assert!(Rate::new(u32::MAX, Duration::from_nanos(1)).is_some());
    }

    #[test]
    fn a_clock_that_goes_back_owes_at_most_a_whole_burst() {
        let rate = Rate::new(10, Duration::from_secs(1)).unwrap();
        let mut state = None;
        assert_eq!(admitted(rate, &mut state, 1_000_000_000, 20), 10);
        // An hour back: the burst still counts as taken, and is whole a second later.
        assert_eq!(admitted(rate, &mut state, 996_400_000, 20), 0);
        assert_eq!(admitted(rate, &mut state, 996_400_100, 20), 1);
        assert_eq!(admitted(rate, &mut state, 996_401_100, 20), 10);
    }

    #[test]
    fn overlapping_calls_with_older_times_win_nothing() {
        let rate = Rate::new(10_000, Duration::from_secs(1)).unwrap();
        let mut state = None;
        let mut sum = 0;
        for _ in 0..1000 {
            sum += admitted(rate, &mut state, 1_000_001, 20);
            sum += admitted(rate, &mut state, 1_000_000, 20);
        }
        assert_eq!(sum, 10_000);
    }

    #[test]
    fn wild_numbers_do_no_harm() {
        for now in [i64::MIN, -1, 0, i64::MAX] {
            for (count, per) in
                [(1, Duration::MAX), (u32::MAX, Duration::MAX), (u32::MAX, Duration::from_nanos(1))]
            {
                let rate = Rate::new(count, per).unwrap();
                let (_, first) = rate.admit(None, now);
                for then in [i64::MIN, 0, i64::MAX] {
                    rate.admit(Some(first), then).1.as_millis();
                }
            }
        }
    }
}
