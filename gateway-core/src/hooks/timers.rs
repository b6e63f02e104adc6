//! One thread that knows what is due when: ticks of instances, and timers that plugins set.
//!
//! It only looks at the clock; the calls run on the pool.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::instance::Instance;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// `on_tick`, and again after so long.
    Tick(Duration),
    /// A plugin's timer.
    Timer(u64),
}

struct Entry {
    at: Instant,
    due: Due,
    instance: Weak<Instance>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.due) == (other.at, other.due)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.due).cmp(&(other.at, other.due))
    }
}

#[derive(Default)]
struct Inner {
    entries: BinaryHeap<Reverse<Entry>>,
    running: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// See the [module](self). The thread begins with the first entry and ends with this.
#[derive(Default)]
pub(crate) struct Timers(Arc<Shared>);

/// Further away than this nothing is waited for.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Timers {
    /// Calls `on_tick` of an instance from now on, for as long as it lives.
    pub(crate) fn tick(&self, every: Duration, instance: Weak<Instance>) {
        self.push(every, instance, Due::Tick(every));
    }

    /// Calls `on_timer` of an instance once.
    pub(crate) fn after(&self, after: Duration, instance: Weak<Instance>, tag: u64) {
        self.push(after, instance, Due::Timer(tag));
    }

    fn push(&self, after: Duration, instance: Weak<Instance>, due: Due) {
        let mut inner = self.0.inner.lock();
        let at = Instant::now() + after.min(A_YEAR);
        inner.entries.push(Reverse(Entry { at, due, instance }));
        if !inner.running {
            let shared = Arc::clone(&self.0);
            let started =
                thread::Builder::new().name("conexus-timers".into()).spawn(move || run(&shared));
            inner.running = started.is_ok();
        }
        self.0.changed.notify_one();
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.0.inner.lock().closed = true;
        self.0.changed.notify_all();
    }
}

fn run(shared: &Shared) {
    let mut inner = shared.inner.lock();
    while !inner.closed {
        let now = Instant::now();
        match inner.entries.peek() {
            None => shared.changed.wait(&mut inner),
            Some(Reverse(next)) if next.at > now => {
                let at = next.at;
                shared.changed.wait_until(&mut inner, at);
            }
            Some(_) => {
                let Some(Reverse(entry)) = inner.entries.pop() else { continue };
                // An instance that is gone takes its ticks along.
                let Some(instance) = entry.instance.upgrade() else { continue };
                if let Due::Tick(every) = entry.due {
                    let at = now + every.min(A_YEAR);
                    inner.entries.push(Reverse(Entry { at, ..entry }));
                }
                let due = entry.due;
                // It may be the last hold on the instance.
                parking_lot::MutexGuard::unlocked(&mut inner, move || instance.is_due(due));
            }
        }
    }
}
