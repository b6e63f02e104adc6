//! Which OFFERs and requests are new: a valid signature says who wrote a message, not when.
//!
//! A message counts once, within a minute of its timestamp; its id is remembered until the timestamp
//! alone would refuse it. Where there is no room another is refused rather than one forgotten. `peers`
//! and `calls` ask, by the gateway's clock.

use std::collections::HashMap;

use conexus_protocol::{AgentKey, Timestamp};

/// How old a message may be, and how far ahead its sender's clock, in milliseconds.
const WINDOW: i64 = 60_000;

/// Ids that are remembered of one agent.
const PER_AGENT: usize = 256;

/// Ids that are remembered in all.
const IN_ALL: usize = 8192;

/// Whether a message counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does, and never again.
    Fresh,
    /// It does not say when it was written.
    Undated,
    /// It is not of now.
    Stale,
    /// It came before.
    Replayed,
    /// The memory has no room for it.
    Full,
}

impl Verdict {
    /// What its sender is told (`details.reason`), if anything: a replay is its sender's word no more.
    pub(crate) fn told(self) -> Option<&'static str> {
        match self {
            Self::Undated | Self::Stale => Some("stale"),
            Self::Full => Some("full"),
            Self::Fresh | Self::Replayed => None,
        }
    }
}

/// The memory of ids.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    /// By agent and id: the millisecond after which the timestamp alone refuses it.
    agents: HashMap<AgentKey, HashMap<Box<str>, i64>>,
    count: usize,
    /// Ids are forgotten up to here. The gateway's clock may go back when it is another gateway's.
    forgotten: Option<i64>,
}

impl Freshness {
    pub(crate) fn judge(
        &mut self,
        key: AgentKey,
        id: &str,
        written: Option<Timestamp>,
        now: Timestamp,
    ) -> Verdict {
        let Some(written) = written else { return Verdict::Undated };
        let (written, now) = (written.as_unix_millis(), now.as_unix_millis());
        let until = written.saturating_add(WINDOW);
        let is_forgotten = self.forgotten.is_some_and(|forgotten| until < forgotten);
        if now.abs_diff(written) > WINDOW.unsigned_abs() || is_forgotten {
            return Verdict::Stale;
        }
        if self.agents.get(&key).is_some_and(|ids| ids.contains_key(id)) {
            return Verdict::Replayed;
        }
        if self.is_full(key) {
            self.forget(now);
            if self.is_full(key) {
                return Verdict::Full;
            }
        }
        self.agents.entry(key).or_default().insert(id.into(), until);
        self.count += 1;
        Verdict::Fresh
    }

    fn is_full(&self, key: AgentKey) -> bool {
        self.count >= IN_ALL || self.agents.get(&key).is_some_and(|ids| ids.len() >= PER_AGENT)
    }

    fn forget(&mut self, now: i64) {
        self.forgotten = self.forgotten.max(Some(now));
        self.agents.retain(|_, ids| {
            ids.retain(|_, until| *until >= now);
            !ids.is_empty()
        });
        self.count = self.agents.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn key(number: u16) -> AgentKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        AgentKey::from_bytes(bytes)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(NOW + millis)
    }

    #[test]
    fn a_message_counts_once_and_within_a_minute_either_way() {
        for (written, verdict) in [
            (0, Verdict::Fresh),
            (-60_000, Verdict::Fresh),
            (60_000, Verdict::Fresh),
            (-60_001, Verdict::Stale),
            (60_001, Verdict::Stale),
        ] {
            let mut fresh = Freshness::default();
            assert_eq!(fresh.judge(key(1), "a", Some(at(written)), at(0)), verdict, "{written}");
            let again = fresh.judge(key(1), "a", Some(at(written)), at(0));
            assert_ne!(again, Verdict::Fresh, "{written}");
        }
        assert_eq!(Freshness::default().judge(key(1), "a", None, at(0)), Verdict::Undated);
    }

    #[test]
    fn ids_are_each_agents_own() {
        let mut fresh = Freshness::default();
        assert_eq!(fresh.judge(key(1), "a", Some(at(0)), at(0)), Verdict::Fresh);
        assert_eq!(fresh.judge(key(2), "a", Some(at(0)), at(0)), Verdict::Fresh);
        assert_eq!(fresh.judge(key(1), "a", Some(at(5)), at(9)), Verdict::Replayed);
    }

    #[test]
    fn a_full_memory_refuses_and_forgets_only_what_is_stale_by_itself() {
        let mut fresh = Freshness::default();
        for id in 0..PER_AGENT {
            assert_eq!(fresh.judge(key(1), &id.to_string(), Some(at(0)), at(0)), Verdict::Fresh);
        }
        assert_eq!(fresh.judge(key(1), "one more", Some(at(0)), at(0)), Verdict::Full);
        assert_eq!(fresh.judge(key(2), "another's", Some(at(0)), at(0)), Verdict::Fresh);
        assert_eq!(fresh.judge(key(1), "0", Some(at(0)), at(60_000)), Verdict::Replayed);
        assert_eq!(fresh.judge(key(1), "later", Some(at(60_000)), at(60_000)), Verdict::Full);
        assert_eq!(fresh.judge(key(1), "later", Some(at(60_001)), at(60_001)), Verdict::Fresh);
        assert_eq!(fresh.judge(key(1), "0", Some(at(0)), at(60_001)), Verdict::Stale);
    }

    #[test]
    fn all_agents_together_are_bounded_too() {
        let mut fresh = Freshness::default();
        let agents = u16::try_from(IN_ALL / PER_AGENT).unwrap();
        for agent in 0..agents {
            for id in 0..PER_AGENT {
                let verdict = fresh.judge(key(agent), &id.to_string(), Some(at(0)), at(0));
                assert_eq!(verdict, Verdict::Fresh);
            }
        }
        assert_eq!(fresh.judge(key(agents), "x", Some(at(0)), at(0)), Verdict::Full);
        assert_eq!(fresh.judge(key(agents), "x", Some(at(61_000)), at(61_000)), Verdict::Fresh);
        assert_eq!(fresh.count, 1);
    }

    #[test]
    fn a_clock_that_goes_back_lets_nothing_forgotten_pass() {
        let mut fresh = Freshness::default();
        for id in 0..PER_AGENT {
            fresh.judge(key(1), &id.to_string(), Some(at(0)), at(0));
        }
        assert_eq!(fresh.judge(key(1), "x", Some(at(90_000)), at(90_000)), Verdict::Fresh);
        assert_eq!(fresh.judge(key(1), "0", Some(at(0)), at(30_000)), Verdict::Stale);
    }
}
