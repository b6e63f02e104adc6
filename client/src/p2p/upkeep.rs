//! When the way is sought anew: a connection that was open and is interrupted or failed.
//!
//! The initiator restarts ICE at once where the way has failed, and after a while where it may come back by
//! itself; the other side waits longer, so that the two seldom cross. Restarts in a row are bounded and
//! their pauses double. Nothing here sleeps or sends: `session` asks when something is due.

use std::time::Duration;

use tokio::time::Instant;

use super::transport::PathState;

/// A way that is interrupted may come back by itself for that long.
const INTERRUPTED: Duration = Duration::from_secs(2);

/// How much longer the side waits that did not begin the connection.
const ANSWERER_WAITS: Duration = Duration::from_secs(3);

/// Pauses between attempts double from here.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The pause before the attempt that follows this many.
pub(crate) fn pause_after(attempts: u32) -> Duration {
    FIRST_PAUSE * 2_u32.saturating_pow(attempts.saturating_sub(1).min(6))
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A restart of ICE.
    Restart,
    /// The end: so many restarts did not help.
    GiveUp(u32),
    /// Nothing.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Until a restart.
    Restart(Instant),
    /// For what comes of one.
    Outcome(Instant),
}

/// How an open connection fares.
#[derive(Debug)]
pub(crate) struct Upkeep {
    max: u32,
    /// How long a restart may take.
    patience: Duration,
    path: PathState,
    wait: Option<Wait>,
    in_a_row: u32,
    total: u32,
}

impl Upkeep {
    pub(crate) fn new(max: u32, patience: Duration) -> Self {
        Self { max, patience, path: PathState::Connected, wait: None, in_a_row: 0, total: 0 }
    }

    /// Restarts so far.
    pub(crate) fn restarts(&self) -> u32 {
        self.total
    }

    /// Whether the way is being sought.
    pub(crate) fn is_seeking(&self) -> bool {
        self.wait.is_some()
    }

    /// When to ask what is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.wait.map(|wait| match wait {
            Wait::Restart(at) | Wait::Outcome(at) => at,
        })
    }

    /// The connection stands differently.
    pub(crate) fn path(&mut self, path: PathState, is_initiator: bool, now: Instant) {
        self.path = path;
        let longer = if is_initiator { Duration::ZERO } else { ANSWERER_WAITS };
        match path {
            PathState::Connected => {
                self.wait = None;
                self.in_a_row = 0;
            }
            PathState::Disconnected => self.restart_by(now + INTERRUPTED + longer),
            PathState::Failed => match self.wait {
                // What came of the last restart: not this way either.
                Some(Wait::Outcome(_)) => self.failed(now),
                _ => self.restart_by(now + longer),
            },
            PathState::New | PathState::Connecting | PathState::Closed => {}
        }
    }

    /// The time of [`due`](Self::due) has come.
    pub(crate) fn fire(&mut self, now: Instant) -> Due {
        match self.wait {
            Some(Wait::Restart(at)) if at <= now => self.restart(now),
            Some(Wait::Outcome(at)) if at <= now => {
                self.failed(now);
                Due::Nothing
            }
            _ => Due::Nothing,
        }
    }

    /// The other side has begun a restart, which we have answered.
    pub(crate) fn answered_theirs(&mut self, now: Instant) {
        if self.path != PathState::Connected {
            self.wait = Some(Wait::Outcome(now + self.patience));
        }
    }

    /// The restart that is under way has come to nothing.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.wait.is_some() {
            self.wait = Some(Wait::Restart(now + pause_after(self.in_a_row)));
        }
    }

    fn restart_by(&mut self, at: Instant) {
        match self.wait {
            Some(Wait::Outcome(_)) => {}
            Some(Wait::Restart(earlier)) if earlier <= at => {}
            _ => self.wait = Some(Wait::Restart(at)),
        }
    }

    fn restart(&mut self, now: Instant) -> Due {
        if self.in_a_row >= self.max {
            return Due::GiveUp(self.in_a_row);
        }
        self.in_a_row += 1;
        self.total += 1;
        self.wait = Some(Wait::Outcome(now + self.patience));
        Due::Restart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn upkeep() -> (Upkeep, Instant) {
        (Upkeep::new(5, PATIENCE), Instant::now())
    }

    #[test]
    fn a_failed_way_is_sought_at_once_by_the_initiator_and_later_by_the_other() {
        for (path, is_initiator, wait) in [
            (PathState::Failed, true, 0),
            (PathState::Failed, false, 3),
            (PathState::Disconnected, true, 2),
            (PathState::Disconnected, false, 5),
        ] {
            let (mut upkeep, now) = upkeep();
            upkeep.path(path, is_initiator, now);
            assert_eq!(upkeep.due(), Some(now + seconds(wait)), "{path:?} {is_initiator}");
            assert_eq!(upkeep.fire(now + seconds(wait)), Due::Restart);
        }
    }

    #[test]
    fn an_interrupted_way_that_fails_is_sought_earlier_and_one_that_is_back_not_at_all() {
        let (mut upkeep, now) = upkeep();
        upkeep.path(PathState::Disconnected, true, now);
        upkeep.path(PathState::Failed, true, now + seconds(1));
        assert_eq!(upkeep.due(), Some(now + seconds(1)));
        upkeep.path(PathState::Connected, true, now + seconds(1));
        assert_eq!(upkeep.due(), None);
        assert_eq!(upkeep.fire(now + seconds(9)), Due::Nothing);
    }

    #[test]
    fn restarts_in_a_row_are_bounded_and_their_pauses_double() {
        let (mut upkeep, mut now) = upkeep();
        upkeep.path(PathState::Failed, true, now);
        for pause in [1, 2, 4, 8, 16] {
            assert_eq!(upkeep.fire(now), Due::Restart);
            assert_eq!(upkeep.due(), Some(now + PATIENCE), "that long it may take");
            now += PATIENCE;
            assert_eq!(upkeep.fire(now), Due::Nothing);
            assert_eq!(upkeep.due(), Some(now + seconds(pause)));
            now += seconds(pause);
        }
        assert_eq!(upkeep.fire(now), Due::GiveUp(5));
        assert_eq!(upkeep.restarts(), 5);
    }

    #[test]
    fn a_way_that_was_found_begins_the_count_anew() {
        let (mut upkeep, now) = upkeep();
        for _ in 0..20 {
            upkeep.path(PathState::Failed, true, now);
            assert_eq!(upkeep.fire(now), Due::Restart);
            upkeep.path(PathState::Connected, true, now);
        }
        assert_eq!(upkeep.restarts(), 20);
    }

    #[test]
    fn a_restart_that_is_refused_or_fails_is_followed_by_another_after_a_pause() {
        let (mut upkeep, now) = upkeep();
        upkeep.path(PathState::Failed, true, now);
        assert_eq!(upkeep.fire(now), Due::Restart);
        upkeep.failed(now);
        assert_eq!(upkeep.due(), Some(now + seconds(1)));
        assert_eq!(upkeep.fire(now + seconds(1)), Due::Restart);
        upkeep.path(PathState::Failed, true, now + seconds(4));
        assert_eq!(upkeep.due(), Some(now + seconds(6)));
    }

    #[test]
    fn the_other_sides_restart_takes_the_place_of_ours() {
        let (mut upkeep, now) = upkeep();
        upkeep.path(PathState::Failed, false, now);
        upkeep.answered_theirs(now + seconds(1));
        assert_eq!(upkeep.due(), Some(now + seconds(1) + PATIENCE));
        upkeep.path(PathState::Connected, false, now + seconds(2));
        upkeep.answered_theirs(now + seconds(3));
        assert!(!upkeep.is_seeking(), "nothing is missing here");
        upkeep.failed(now + seconds(3));
        assert!(!upkeep.is_seeking());
    }
}
