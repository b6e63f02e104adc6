//! Who works on how much: requests that were handed out and are not answered yet.
//!
//! Everything here has a bound and an end: a request that is never answered counts for a while, and
//! beyond the bound the oldest is forgotten.

use std::collections::{HashMap, VecDeque};

/// An agent's key.
pub(crate) type Key = [u8; 32];
/// A request: who asked, and its id.
type Request = (Key, Box<str>);

/// Requests that are being worked on.
#[derive(Debug)]
pub(crate) struct Load {
    pending: HashMap<Request, Pending>,
    /// In the order of their beginnings, which is that of their ends. May name requests that were
    /// answered, or asked again, meanwhile.
    order: VecDeque<(u64, Request)>,
    counts: HashMap<Key, usize>,
    begun: u64,
    bound: usize,
    lasts_ms: i64,
}

#[derive(Debug)]
struct Pending {
    worker: Key,
    number: u64,
    until_ms: i64,
}

impl Load {
    pub(crate) fn new(bound: usize, lasts_ms: i64) -> Self {
        let (pending, order, counts) = Default::default();
        Self { pending, order, counts, begun: 0, bound, lasts_ms }
    }

    /// Who was given this request.
    pub(crate) fn worker(&self, from: Key, id: &str) -> Option<Key> {
        self.pending.get(&(from, id.into())).map(|pending| pending.worker)
    }

    /// How much this agent works on.
    pub(crate) fn of(&self, worker: &Key) -> usize {
        self.counts.get(worker).copied().unwrap_or_default()
    }

    /// Gives a request to an agent, in place of whoever had it.
    pub(crate) fn begin(&mut self, worker: Key, from: Key, id: &str, now_ms: i64) {
        self.expire(now_ms);
        self.end(from, id);
        while self.order.len() >= self.bound {
            self.forget_oldest();
        }
        self.begun += 1;
        let (number, until_ms) = (self.begun, now_ms.saturating_add(self.lasts_ms));
        let request: Request = (from, id.into());
        self.order.push_back((number, request.clone()));
        self.pending.insert(request, Pending { worker, number, until_ms });
        *self.counts.entry(worker).or_default() += 1;
    }

    /// An agent answered.
    pub(crate) fn answered(&mut self, worker: Key, to: Key, id: &str) {
        if self.worker(to, id) == Some(worker) {
            self.end(to, id);
        }
    }

    /// An agent left: whatever it had, it will not do.
    pub(crate) fn left(&mut self, worker: Key) {
        if self.counts.remove(&worker).is_some() {
            self.pending.retain(|_, pending| pending.worker != worker);
        }
    }

    /// Forgets what has had its time.
    pub(crate) fn expire(&mut self, now_ms: i64) {
        while let Some((number, request)) = self.order.front() {
            let runs = self
                .pending
                .get(request)
                .is_some_and(|pending| pending.number == *number && pending.until_ms > now_ms);
            if runs {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((number, (from, id))) = self.order.pop_front() else { return };
        let same = |pending: &Pending| pending.number == number;
        if self.pending.get(&(from, id.clone())).is_some_and(same) {
            self.end(from, &id);
        }
    }

    fn end(&mut self, from: Key, id: &str) {
        let Some(Pending { worker, .. }) = self.pending.remove(&(from, id.into())) else { return };
        if let Some(count) = self.counts.get_mut(&worker) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Key = [1; 32];
    const BOB: Key = [2; 32];
    const CAROL: Key = [3; 32];

    #[test]
    fn an_answer_ends_a_request_and_only_of_who_was_asked() {
        let mut load = Load::new(10, 100);
        load.begin(BOB, ALICE, "1", 0);
        load.begin(BOB, ALICE, "2", 0);
        load.answered(CAROL, ALICE, "1");
        assert_eq!(load.of(&BOB), 2);
        load.answered(BOB, ALICE, "1");
        load.answered(BOB, ALICE, "1");
        assert_eq!((load.of(&BOB), load.worker(ALICE, "2")), (1, Some(BOB)));
    }

    #[test]
    fn what_is_never_answered_counts_for_a_while() {
        let mut load = Load::new(10, 100);
        load.begin(BOB, ALICE, "1", 0);
        load.begin(BOB, ALICE, "2", 50);
        load.expire(100);
        assert_eq!(load.of(&BOB), 1);
        load.expire(150);
        assert_eq!(load.of(&BOB), 0);
        assert!(load.pending.is_empty() && load.order.is_empty() && load.counts.is_empty());
    }

    #[test]
    fn beyond_the_bound_the_oldest_is_forgotten() {
        let mut load = Load::new(3, 100);
        for id in ["1", "2", "3", "4", "5"] {
            load.begin(BOB, ALICE, id, 0);
        }
        assert_eq!((load.of(&BOB), load.worker(ALICE, "2")), (3, None));
        for _ in 0..100 {
            load.begin(BOB, ALICE, "5", 0);
            load.answered(BOB, ALICE, "5");
        }
        assert!(load.order.len() <= 3);
    }

    #[test]
    fn a_request_that_is_given_to_another_counts_there() {
        let mut load = Load::new(10, 100);
        load.begin(BOB, ALICE, "1", 0);
        load.begin(CAROL, ALICE, "1", 50);
        assert_eq!((load.of(&BOB), load.of(&CAROL)), (0, 1));
        load.expire(100);
        assert_eq!(load.of(&CAROL), 1);
    }

    #[test]
    fn who_leaves_has_nothing_left() {
        let mut load = Load::new(10, 100);
        load.begin(BOB, ALICE, "1", 0);
        load.begin(CAROL, ALICE, "2", 0);
        load.left(BOB);
        assert_eq!((load.of(&BOB), load.of(&CAROL)), (0, 1));
        load.begin(BOB, ALICE, "3", 0);
        assert_eq!(load.of(&BOB), 1);
    }
}
