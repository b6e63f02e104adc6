//! Messages under way from one sender to one receiver, and when each was, or should have been, sent.
//!
//! Order per pair is guaranteed, so the oldest is the one that arrives; nothing in a message has to
//! tell which it is. What a refusal was about cannot be told: the newest is taken off, so that
//! latencies may come out too long, never too short.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    board::{Board, Phase},
    message::Refusal,
};

/// What a stamp is, and so which messages count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stamp {
    /// When it was written. What arrives in the measured time counts.
    Written,
    /// When it should have been. What should have been sent in the measured time counts, however
    /// late it comes, and also if it never does: a stall hides nothing.
    Intended,
}

/// See the [module](self). What is left when it is dropped is missing.
pub(super) struct Flight {
    board: Arc<Board>,
    worker: usize,
    stamp: Stamp,
    stamps: VecDeque<Instant>,
}

impl Flight {
    pub(super) fn new(board: Arc<Board>, worker: usize, stamp: Stamp) -> Self {
        Self { board, worker, stamp, stamps: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.stamps.len()
    }

    pub(super) fn sent(&mut self, stamps: impl ExactSizeIterator<Item = Instant>) {
        self.board.tally(self.worker).sent += stamps.len() as u64;
        self.stamps.extend(stamps);
    }

    /// So many arrived, a moment ago.
    pub(super) fn arrived(&mut self, count: usize, now: Instant) {
        let count = count.min(self.stamps.len());
        let measuring = self.board.phase() == Phase::Measuring;
        let mut tally = self.board.tally(self.worker);
        tally.settled += count as u64;
        if measuring {
            tally.messages += count as u64;
        }
        for stamp in self.stamps.drain(..count) {
            if self.stamp.counts(&self.board, measuring, stamp) {
                tally.latency.record(now.saturating_duration_since(stamp));
            }
        }
    }

    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let mut tally = self.board.tally(self.worker);
        tally.errors.refusal(refusal);
        if self.stamps.pop_back().is_some() {
            tally.settled += 1;
        }
    }
}

impl Stamp {
    fn counts(self, board: &Board, measuring: bool, stamp: Instant) -> bool {
        match self {
            Self::Written => measuring,
            Self::Intended => board.span().is_some_and(|span| span.has(stamp)),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut tally = self.board.tally(self.worker);
        tally.settled += self.stamps.len() as u64;
        tally.errors.missing(self.stamps.len() as u64);
        for stamp in &self.stamps {
            // At least as long as that.
            if self.stamp == Stamp::Intended && self.stamp.counts(&self.board, false, *stamp) {
                tally.latency.record(now.saturating_duration_since(*stamp));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::board::Span;

    fn board() -> Arc<Board> {
        let board = Arc::new(Board::new(1));
        board.start(Span::new(Duration::ZERO, Duration::from_secs(10)));
        board.enter(Phase::Measuring);
        board
    }

    fn refusal() -> Refusal {
        Refusal::read(br#"{"payload":{"code":"TIMEOUT"},"type":"ERROR"}"#).unwrap()
    }

    #[test]
    fn the_oldest_arrives_and_the_newest_is_refused() {
        let board = board();
        let begin = board.span().unwrap().from;
        let mut flight = Flight::new(Arc::clone(&board), 0, Stamp::Written);
        let at = |ms| begin + Duration::from_millis(ms);
        flight.sent([at(0), at(10), at(20)].into_iter());
        assert_eq!(board.counts(), (0, 3));
        flight.refused(&refusal());
        flight.arrived(1, at(30));
        assert_eq!((flight.len(), board.counts()), (1, (1, 1)));
        let latency = board.total().latency.max();
        assert!((latency - 30_000.0).abs() < 30.0, "{latency}");
        // More than are under way are somebody else's.
        flight.arrived(5, at(30));
        assert_eq!(board.counts(), (2, 0));
        assert_eq!(board.total().errors.summary(), "1 refused (TIMEOUT)");
    }

    #[test]
    fn what_was_intended_in_the_measured_time_counts_whenever_it_arrives() {
        let board = board();
        let span = *board.span().unwrap();
        let second = Duration::from_secs(1);
        let mut flight = Flight::new(Arc::clone(&board), 0, Stamp::Intended);
        flight.sent([span.from - second, span.from, span.until - second].into_iter());
        board.enter(Phase::Draining);
        flight.arrived(2, span.from + second);
        let total = board.total();
        assert_eq!((total.messages, total.latency.count()), (0, 1), "it arrived too late to count");
        drop(flight);
        let total = board.total();
        assert_eq!(total.latency.count(), 2, "the one that never came");
        assert_eq!(total.errors.summary(), "1 missing");
        assert_eq!(board.counts(), (0, 0));
    }
}
