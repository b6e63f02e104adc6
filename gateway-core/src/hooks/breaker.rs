//! The breaker: a hook that fails too often is not asked for a while.
//!
//! Closed, open, and in between: after the cooldown one call is let through, and decides whether
//! the hook is asked again.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::config::PolicySettings;

/// Failures that are remembered while more calls work than fail.
const MOST_FAILURES: usize = 1000;

#[derive(Debug)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// One call is out; no further one until it has an end, or has been out for too long.
    Probing {
        since: Instant,
    },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Breaker {
    errors: usize,
    window: Duration,
    cooldown: Duration,
    /// Nothing has failed lately: nobody needs the lock.
    calm: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    failures: VecDeque<Instant>,
    /// Since the oldest of the failures.
    successes: usize,
}

/// What a breaker shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// The hook is asked.
    Closed,
    /// It is quarantined.
    Open,
    /// One call finds out whether it works again.
    HalfOpen,
}

impl Breaker {
    pub(crate) fn new(settings: &PolicySettings) -> Self {
        Self {
            errors: settings.breaker_errors as usize,
            window: settings.breaker_window,
            cooldown: settings.breaker_cooldown,
            calm: AtomicBool::new(true),
            inner: Mutex::new(Inner {
                state: State::Closed,
                failures: VecDeque::new(),
                successes: 0,
            }),
        }
    }

    /// One that never opens.
    pub(crate) fn never() -> Self {
        Self::new(&PolicySettings { breaker_errors: u32::MAX, ..PolicySettings::default() })
    }

    /// Whether a success has nothing to tell it.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(SeqCst)
    }

    /// Whether the hook may be asked now. Who asks must tell what came of it.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        if self.calm.load(SeqCst) {
            return true;
        }
        let mut inner = self.inner.lock();
        match inner.state {
            State::Closed => true,
            State::Open { until } if now < until => false,
            State::Probing { since } if now < since + self.cooldown => false,
            State::Open { .. } | State::Probing { .. } => {
                inner.state = State::Probing { since: now };
                true
            }
        }
    }

    /// A call worked; true if that closed the breaker.
    pub(crate) fn succeeded(&self, now: Instant) -> bool {
        if self.calm.load(SeqCst) {
            return false;
        }
        let mut inner = self.inner.lock();
        let probed = matches!(inner.state, State::Probing { .. });
        inner.successes = inner.successes.saturating_add(1);
        if probed {
            inner.state = State::Closed;
            inner.failures.clear();
        }
        let window = self.window;
        inner.failures.retain(|failure| now.saturating_duration_since(*failure) < window);
        let calm = inner.failures.is_empty() && matches!(inner.state, State::Closed);
        self.calm.store(calm, SeqCst);
        probed
    }

    /// A call failed; true if that opened the breaker. Unless it is to count `always`, it does not
    /// while more calls work than fail: one agent's odd messages are not to close a hook to all.
    pub(crate) fn failed(&self, now: Instant, always: bool) -> bool {
        let mut inner = self.inner.lock();
        self.calm.store(false, SeqCst);
        match inner.state {
            // Begun before it opened.
            State::Open { .. } => return false,
            State::Probing { .. } => {}
            State::Closed => {
                let window = self.window;
                inner.failures.retain(|failure| now.saturating_duration_since(*failure) < window);
                if inner.failures.is_empty() {
                    inner.successes = 0;
                }
                inner.failures.push_back(now);
                if inner.failures.len() < self.errors {
                    return false;
                }
                if !always && inner.failures.len() < inner.successes {
                    // As many as are needed to see that they have come to be the most.
                    let most = self.errors.max(MOST_FAILURES);
                    let spare = inner.failures.len().saturating_sub(most);
                    inner.failures.drain(..spare);
                    inner.successes = inner.successes.min(most + 1);
                    return false;
                }
            }
        }
        inner.failures.clear();
        inner.state = State::Open { until: now + self.cooldown };
        true
    }

    /// A call was given up by whoever asked: if it was the probe, the next call is one.
    pub(crate) fn unsettled(&self, now: Instant) {
        if self.calm.load(SeqCst) {
            return;
        }
        let mut inner = self.inner.lock();
        if matches!(inner.state, State::Probing { .. }) {
            inner.state = State::Open { until: now };
        }
    }

    /// What it failed for is over: the next call finds out.
    pub(crate) fn retry(&self, now: Instant) {
        let mut inner = self.inner.lock();
        if !matches!(inner.state, State::Closed) {
            inner.state = State::Open { until: now };
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.inner.lock().state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(&PolicySettings { breaker_errors: 3, ..PolicySettings::default() })
    }

    #[test]
    fn it_opens_at_the_last_failure_that_is_tolerated_and_lets_one_call_probe() {
        let (breaker, start) = (breaker(), Instant::now());
        assert!(!breaker.failed(start, false) && !breaker.failed(start, false));
        breaker.succeeded(start);
        assert!(breaker.failed(start, false), "most calls fail");
        assert!(!breaker.admits(start));
        let later = start + Duration::from_secs(30);
        assert!(breaker.admits(later));
        assert!(!breaker.admits(later), "one probe at a time");
        assert!(breaker.failed(later, false), "a failed probe opens it again");
        let again = later + Duration::from_secs(30);
        assert!(breaker.admits(again));
        assert!(breaker.succeeded(again));
        assert!(breaker.admits(again) && breaker.admits(again));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn failures_outside_of_the_window_are_forgotten() {
        let (breaker, start) = (breaker(), Instant::now());
        for n in 0..10 {
            assert!(!breaker.failed(start + Duration::from_secs(20 * n), false));
        }
    }

    #[test]
    fn a_probe_that_never_ends_does_not_keep_it_open_for_good() {
        let (breaker, start) = (breaker(), Instant::now());
        for _ in 0..3 {
            breaker.failed(start, false);
        }
        let probe = start + Duration::from_secs(30);
        assert!(breaker.admits(probe));
        assert!(breaker.admits(probe + Duration::from_secs(30)));
    }

    #[test]
    fn a_few_failures_among_many_successes_do_not_open_it_unless_they_take_too_long() {
        let (breaker, start) = (breaker(), Instant::now());
        for _ in 0..100 {
            assert!(!breaker.failed(start, false));
            for _ in 0..9 {
                breaker.succeeded(start);
            }
        }
        assert!(breaker.failed(start, true));
    }

    #[test]
    fn a_probe_that_was_given_up_makes_way_for_the_next() {
        let (breaker, start) = (breaker(), Instant::now());
        for _ in 0..3 {
            breaker.failed(start, false);
        }
        let probe = start + Duration::from_secs(30);
        assert!(breaker.admits(probe) && !breaker.admits(probe));
        breaker.unsettled(probe);
        assert!(breaker.admits(probe));
    }
}
