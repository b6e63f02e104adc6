//! Counters without a meeting point.
//!
//! A counter that several threads count on travels between their caches with every message. So each
//! thread counts on a stripe of its own, as long as there are enough, and whoever reads adds them
//! up. `accounting` and the counts of hooks are kept so.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// More threads than these share stripes, which costs time and no count.
const STRIPES: usize = 8;

/// What a cache keeps together; two lines, since they are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// One of `T`, a struct of atomic counters, for each of several threads.
#[derive(Debug, Default)]
pub(crate) struct Striped<T>([Apart<T>; STRIPES]);

impl<T> Striped<T> {
    /// The calling thread's.
    pub(crate) fn mine(&self) -> &T {
        thread_local! {
            static STRIPE: Cell<Option<usize>> = const { Cell::new(None) };
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let stripe = STRIPE.get().unwrap_or_else(|| {
            let stripe = NEXT.fetch_add(1, Relaxed) % STRIPES;
            STRIPE.set(Some(stripe));
            stripe
        });
        &self.0[stripe].0
    }

    /// All of them, to add up.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().map(|stripe| &stripe.0)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU64, thread};

    use super::*;

    #[test]
    fn nothing_that_is_counted_on_any_thread_is_lost() {
        let counter = Striped::<AtomicU64>::default();
        thread::scope(|scope| {
            for _ in 0..3 * STRIPES {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counter.mine().fetch_add(1, Relaxed);
                    }
                });
            }
        });
        let total: u64 = counter.all().map(|stripe| stripe.load(Relaxed)).sum();
        assert_eq!(total, 3 * STRIPES as u64 * 1000);
    }
}
