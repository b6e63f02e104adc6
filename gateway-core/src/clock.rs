//! Time as the gateway reckons it: milliseconds since it started, which fit an atomic.
//!
//! Leases and activity are compared far more often than they are shown, so they are kept on the
//! monotonic clock and turned into a wall-clock time only for `/agents` and the like.

use std::time::Duration;

use conexus_protocol::Timestamp;
use tokio::time::Instant;

/// A moment, in whole milliseconds since the gateway started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(crate) const fn as_millis(self) -> u64 {
        self.0
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `self` until `later`; zero when it has passed.
    pub(crate) const fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// The gateway's clock: one monotonic origin and the wall-clock time that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    started_at: Timestamp,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now(), started_at: Timestamp::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// The moment of a monotonic instant; one before the start counts as the start.
    pub(crate) fn moment(&self, instant: Instant) -> Moment {
        let millis = instant.duration_since(self.origin).as_millis();
        Moment(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The monotonic instant of a moment, for timers. A moment far beyond any timer is a year off.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.origin
            .checked_add(Duration::from_millis(moment.0))
            .unwrap_or_else(|| Instant::now() + A_YEAR)
    }

    /// When the gateway started, by the wall clock.
    pub(crate) const fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The wall-clock time of a moment.
    pub(crate) fn wall(&self, moment: Moment) -> Timestamp {
        let nanos = self.started_at.as_unix_nanos() + i128::from(moment.0) * 1_000_000;
        let millis = i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(i64::MAX);
        Timestamp::from_unix_millis(millis)
    }
}
