//! When each message of an open loop is to be sent.
//!
//! The messages of all pairs together come at a steady rate, the pairs taking turns. The time of
//! each is fixed beforehand, so that waiting for a slow server does not move the later ones: a
//! generator that waits along with its victim would hide what it is there to measure.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::{board::Span, timer::Timer};

/// A steady rate, shared by pairs that take turns.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    begin: Instant,
    until: Instant,
    /// Between two messages of anybody, in seconds.
    step: f64,
    pairs: u64,
}

impl Rhythm {
    /// When the pair of that place in the turn sends its message of that number.
    fn time(&self, place: usize, message: u64) -> Instant {
        let steps = message * self.pairs + place as u64;
        self.begin + Duration::from_secs_f64(steps as f64 * self.step)
    }
}

/// A pair's place in the turn.
pub(super) struct Slot {
    place: usize,
    rhythm: Arc<OnceLock<Rhythm>>,
    waker: AtomicWaker,
}

impl Slot {
    /// When the messages from `next` on should have been sent, as far as that is past.
    pub(super) fn due(&self, next: u64, now: Instant) -> impl Iterator<Item = Instant> {
        let rhythm = self.rhythm.get();
        (next..).map_while(move |message| {
            let time = rhythm?.time(self.place, message);
            (time <= now && time < rhythm?.until).then_some(time)
        })
    }

    /// Has this task woken when a message is due.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

/// The turn: who takes part, by worker.
pub(super) struct Schedule {
    rhythm: Arc<OnceLock<Rhythm>>,
    places: AtomicUsize,
    slots: Box<[Mutex<Vec<Arc<Slot>>>]>,
}

impl Schedule {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            rhythm: Arc::default(),
            places: AtomicUsize::new(0),
            slots: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// A further place; before the start.
    pub(super) fn join(&self, worker: usize) -> Arc<Slot> {
        let place = self.places.fetch_add(1, Relaxed);
        let rhythm = Arc::clone(&self.rhythm);
        let slot = Arc::new(Slot { place, rhythm, waker: AtomicWaker::new() });
        self.slots[worker].lock().push(Arc::clone(&slot));
        slot
    }

    /// Fixes the time of every message.
    pub(super) fn begin(&self, span: &Span, per_second: f64) {
        let pairs = self.places.load(Relaxed).max(1) as u64;
        let Span { begin, until, .. } = *span;
        self.rhythm.get_or_init(|| Rhythm { begin, until, step: 1.0 / per_second, pairs });
    }

    /// Wakes that worker's pairs, each when a message of its own is due, until the end.
    pub(super) async fn beat(&self, worker: usize) -> std::io::Result<()> {
        let mut timer = Timer::new()?;
        let Some(rhythm) = self.rhythm.get() else { return Ok(()) };
        let mut slots = self.slots[worker].lock().clone();
        // They register in any order.
        slots.sort_by_key(|slot| slot.place);
        if slots.is_empty() {
            return Ok(());
        }
        for message in 0.. {
            for slot in &slots {
                let due = rhythm.time(slot.place, message);
                if due >= rhythm.until {
                    return Ok(());
                }
                if due > Instant::now() {
                    timer.sleep_until(due).await?;
                }
                slot.waker.wake();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(pairs: usize, per_second: f64, seconds: u64) -> (Vec<Arc<Slot>>, Span) {
        let schedule = Schedule::new(1);
        let slots = (0..pairs).map(|_| schedule.join(0)).collect();
        let span = Span::new(Duration::ZERO, Duration::from_secs(seconds));
        schedule.begin(&span, per_second);
        (slots, span)
    }

    #[test]
    fn pairs_take_turns_at_a_steady_rate() {
        let (slots, span) = schedule(2, 4.0, 1);
        let millis = |slot: &Slot| -> Vec<u128> {
            slot.due(0, span.until).map(|time| (time - span.begin).as_millis()).collect()
        };
        assert_eq!(millis(&slots[0]), [0, 500]);
        assert_eq!(millis(&slots[1]), [250, 750]);
    }

    #[test]
    fn a_stall_moves_no_message() {
        let (slots, span) = schedule(1, 1000.0, 10);
        let after = span.begin + Duration::from_millis(100);
        assert_eq!(slots[0].due(0, span.begin).count(), 1);
        assert_eq!(slots[0].due(1, after).count(), 100, "all that a stall has put off");
        assert_eq!(slots[0].due(101, after).count(), 0);
        let late = span.until + Duration::from_secs(5);
        assert_eq!(slots[0].due(0, late).count(), 10_000, "and nothing beyond the end");
    }

    #[test]
    fn nothing_is_due_before_the_start() {
        let schedule = Schedule::new(1);
        assert_eq!(schedule.join(0).due(0, Instant::now()).count(), 0);
    }

    #[tokio::test]
    async fn the_beat_wakes_each_pair_in_its_time() {
        let schedule = Schedule::new(1);
        let slots = [schedule.join(0), schedule.join(0)];
        let span = Span::new(Duration::ZERO, Duration::from_millis(20));
        schedule.begin(&span, 1000.0);
        let mut sent = [0, 0];
        let beat = schedule.beat(0);
        tokio::pin!(beat);
        let played = std::future::poll_fn(|cx| {
            for (slot, sent) in slots.iter().zip(&mut sent) {
                slot.register(cx.waker());
                *sent += slot.due(*sent, Instant::now()).count() as u64;
            }
            beat.as_mut().poll(cx)
        });
        played.await.unwrap();
        let rest = slots.iter().zip(sent).map(|(slot, sent)| slot.due(sent, span.until).count());
        assert!(rest.sum::<usize>() <= 1, "all but perhaps the last were woken for: {sent:?}");
    }
}
