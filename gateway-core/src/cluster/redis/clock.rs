//! The engine's clock, as it is known here: never ahead of what it is.
//!
//! An answer that tells the time was made before it came in. So what it tells, and what has passed here
//! since it came in, is a moment that the engine's clock has reached. Of the last few answers the one
//! that lay about for the shortest time is the best.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// So that a clock that was set back is believed before long.
const ANSWERS: usize = 4;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct EngineClock(Mutex<VecDeque<(u64, Instant)>>);

impl EngineClock {
    /// Notes that an answer with this time, in microseconds since 1970, has just come in.
    pub(super) fn told(&self, micros: u64) {
        let mut answers = self.0.lock();
        if answers.len() == ANSWERS {
            answers.pop_front();
        }
        answers.push_back((micros, Instant::now()));
    }

    /// The moment so long after now, or somewhat before that. None before the first answer.
    pub(super) fn after(&self, time: Duration) -> Option<u64> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let answers = self.0.lock();
        let reached =
            answers.iter().map(|(told, at)| told.saturating_add(micros(at.elapsed()))).max();
        Some(reached?.saturating_add(micros(time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_freshest_answer_counts_and_a_step_back_is_believed() {
        let clock = EngineClock::default();
        assert_eq!(clock.after(SECOND), None);
        clock.told(5_000_000);
        tokio::time::advance(SECOND).await;
        assert_eq!(clock.after(SECOND), Some(7_000_000));
        // This one was under way for 300 ms.
        clock.told(5_700_000);
        assert_eq!(clock.after(Duration::ZERO), Some(6_000_000));
        for _ in 0..ANSWERS {
            clock.told(1_000_000);
        }
        assert_eq!(clock.after(Duration::ZERO), Some(1_000_000));
    }
}
