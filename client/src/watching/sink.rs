//! What one watch was told and has not read yet: bounded, and its end is always the truth.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::Item;

/// So many words wait at least, however few agents are watched.
const LEAST: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    /// Oldest first, each with the DID that it is about.
    queue: VecDeque<(Arc<str>, Item)>,
    /// How many of these are about each agent.
    counts: HashMap<Arc<str>, usize>,
    reader: Option<Waker>,
    ended: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sink {
    inner: Mutex<Inner>,
    room: usize,
}

impl Sink {
    /// For a watch of so many agents.
    pub(super) fn new(agents: usize) -> Self {
        // More than one for each, so that a full queue always has one to spare.
        Self { inner: Mutex::default(), room: LEAST.max(agents.saturating_mul(2)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a word about an agent; who is to be woken for it. Where there is no room, the oldest ones
    /// that have a later one of the same agent behind them make place: an eighth of all, so that it
    /// does not take a search for each word.
    pub(super) fn push(&self, did: &str, item: Item) -> Option<Waker> {
        let mut inner = self.inner();
        let Inner { queue, counts, reader, .. } = &mut *inner;
        let did = counts.get_key_value(did).map_or_else(|| did.into(), |(did, _)| Arc::clone(did));
        *counts.entry(Arc::clone(&did)).or_default() += 1;
        queue.push_back((did, item));
        if queue.len() > self.room {
            let mut surplus = queue.len() - (self.room - self.room / 8);
            queue.retain(|(did, _)| match counts.get_mut(did) {
                Some(count) if surplus > 0 && *count > 1 => {
                    *count -= 1;
                    surplus -= 1;
                    false
                }
                _ => true,
            });
        }
        reader.take()
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        let mut inner = self.inner();
        inner.ended = true;
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut inner = self.inner();
        match inner.queue.pop_front() {
            Some((did, item)) => {
                if let Entry::Occupied(mut count) = inner.counts.entry(did) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
                Poll::Ready(Some(item))
            }
            None if inner.ended => Poll::Ready(None),
            None => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::{Presence, PresenceState};

    use super::*;

    fn word(did: &str, number: usize) -> Item {
        let (did, since) = (did.to_owned(), number.to_string());
        Ok(Presence { did, state: PresenceState::Online, reason: None, since })
    }

    fn read(sink: &Sink) -> Vec<(String, usize)> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut words = Vec::new();
        while let Poll::Ready(Some(Ok(presence))) = sink.poll(&mut cx) {
            words.push((presence.did, presence.since.parse().unwrap()));
        }
        words
    }

    #[test]
    fn who_does_not_read_is_left_the_last_word_about_each_agent() {
        let sink = Sink::new(2);
        sink.push("quiet", word("quiet", 0));
        for number in 1..1000 {
            sink.push("busy", word("busy", number));
        }
        let words = read(&sink);
        assert!((LEAST / 8 * 7..=LEAST).contains(&words.len()), "{}", words.len());
        assert_eq!(words.first(), Some(&("quiet".to_owned(), 0)));
        assert_eq!(words.last(), Some(&("busy".to_owned(), 999)));
        assert!(words.is_sorted_by_key(|(_, number)| *number));
    }

    #[test]
    fn what_was_told_before_the_end_is_read_before_it() {
        let sink = Sink::new(1);
        sink.push("x", word("x", 1));
        sink.end();
        assert_eq!(read(&sink).len(), 1);
        assert!(sink.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(None));
    }
}
