//! How long to wait between attempts to reconnect, and when to stop.
//!
//! Delays double and are spread over half their length, so that agents which lost the
//! same gateway do not return all at once. A session that breaks again soon does not
//! start the count anew. The driver asks; nothing here sleeps.

use std::time::Duration;

use rand::Rng;

/// The longest wait that a gateway may ask for (`reconnect_in`).
const LONGEST_HINT: Duration = Duration::from_secs(300);

/// When and how often a lost connection is dialed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// The first delay; each further one is twice as long. Default: 1 s.
    pub initial: Duration,
    /// No delay is longer. Default: 30 s.
    pub max: Duration,
    /// Attempts in a row before the client gives up; 0 means never. Default: 5.
    pub max_attempts: u32,
    /// A session that held this long starts the count anew. Default: 10 s.
    pub stable_after: Duration,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
            max_attempts: 5,
            stable_after: Duration::from_secs(10),
        }
    }
}

/// A policy at work: the attempts since the last stable session.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: ReconnectPolicy,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(policy: ReconnectPolicy) -> Self {
        Self { policy, attempts: 0 }
    }

    /// Attempts handed out since the last stable session.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long to wait before the next attempt; none when they are used up. The gateway's
    /// `hint` goes before the policy's own delay and is already spread.
    pub(crate) fn next_delay(&mut self, hint: Option<Duration>) -> Option<Duration> {
        if self.policy.max_attempts != 0 && self.attempts >= self.policy.max_attempts {
            return None;
        }
        let base = self.base();
        self.attempts = self.attempts.saturating_add(1);
        Some(match hint {
            Some(hint) => hint.min(LONGEST_HINT),
            None => base.mul_f64(rand::rng().random_range(0.5..=1.0)),
        })
    }

    /// Takes note of how long a session held.
    pub(crate) fn session_held(&mut self, held: Duration) {
        if held >= self.policy.stable_after {
            self.attempts = 0;
        }
    }

    fn base(&self) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempts);
        self.policy.initial.saturating_mul(factor).min(self.policy.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(max_attempts: u32) -> Backoff {
        Backoff::new(ReconnectPolicy { max_attempts, ..ReconnectPolicy::default() })
    }

    #[test]
    fn delays_double_from_one_second_to_thirty_and_keep_half_for_jitter() {
        let mut backoff = backoff(0);
        for whole in [1, 2, 4, 8, 16, 30, 30, 30] {
            let whole = Duration::from_secs(whole);
            let delay = backoff.next_delay(None).unwrap();
            assert!(whole / 2 <= delay && delay <= whole, "{delay:?} of {whole:?}");
        }
    }

    #[test]
    fn delays_of_many_agents_differ() {
        let delays: std::collections::HashSet<_> =
            (0..32).map(|_| backoff(1).next_delay(None).unwrap()).collect();
        assert!(delays.len() > 1);
    }

    #[test]
    fn attempts_run_out() {
        let mut backoff = backoff(2);
        assert!(backoff.next_delay(None).is_some());
        assert!(backoff.next_delay(None).is_some());
        assert_eq!(backoff.next_delay(None), None);
        assert_eq!(backoff.attempts(), 2);
    }

    #[test]
    fn zero_attempts_means_forever() {
        let mut backoff = backoff(0);
        assert!((0..10_000).all(|_| backoff.next_delay(None).is_some()));
    }

    #[test]
    fn a_hint_replaces_the_delay_but_not_beyond_five_minutes() {
        let mut backoff = backoff(0);
        let hint = Duration::from_millis(1234);
        assert_eq!(backoff.next_delay(Some(hint)), Some(hint));
        assert_eq!(backoff.next_delay(Some(Duration::MAX)), Some(LONGEST_HINT));
    }

    #[test]
    fn only_a_stable_session_starts_the_count_anew() {
        let mut backoff = backoff(1);
        backoff.next_delay(None).unwrap();
        backoff.session_held(Duration::from_secs(9));
        assert_eq!(backoff.next_delay(None), None);
        backoff.session_held(Duration::from_secs(10));
        assert!(backoff.next_delay(None).unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn huge_policies_do_not_overflow() {
        let policy = ReconnectPolicy {
            initial: Duration::MAX,
            max: Duration::from_secs(3600),
            max_attempts: 0,
            stable_after: Duration::MAX,
        };
        let mut backoff = Backoff { policy, attempts: u32::MAX };
        assert!(backoff.next_delay(None).unwrap() <= Duration::from_secs(3600));
        assert_eq!(backoff.attempts(), u32::MAX);
    }
}
