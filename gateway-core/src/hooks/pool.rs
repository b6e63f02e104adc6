//! Threads for calls that may block.
//!
//! Bounded in threads and in what waits for them. A call that does not come back in time is given
//! up: its thread counts as lost and another takes its place, until too many are lost.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread,
};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use crate::{config::PolicySettings, script::STACK_BYTES};

type Work = Box<dyn FnOnce() + Send>;

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const GIVEN_UP: u8 = 3;

struct Job {
    work: Work,
    state: Arc<AtomicU8>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    lost: usize,
    closed: bool,
}

struct Shared {
    inner: Mutex<Inner>,
    more: Condvar,
    max_threads: usize,
    max_queue: usize,
    max_lost: usize,
}

/// See the [module](self). Dropping it lets the threads end.
pub(crate) struct Pool(Arc<Shared>);

/// How full a pool is.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
pub struct PoolUsage {
    /// Threads at work or ready for it.
    pub threads: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Threads whose call was given up and has not come back.
    pub lost: usize,
}

/// Too much is waiting.
#[derive(Debug)]
pub(crate) struct PoolFull;

impl Pool {
    pub(crate) fn new(settings: &PolicySettings) -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::default(),
            more: Condvar::new(),
            max_threads: settings.blocking_threads,
            max_queue: settings.blocking_queue,
            max_lost: settings.lost_threads,
        }))
    }

    /// Runs it on a thread of the pool, which it must not panic on.
    pub(crate) fn submit(&self, work: impl FnOnce() + Send + 'static) -> Result<Ticket, PoolFull> {
        let state = Arc::new(AtomicU8::new(WAITING));
        let job = Job { work: Box::new(work), state: Arc::clone(&state) };
        // What is dropped is dropped without the lock: it may be the last of an instance.
        let mut inner = self.0.inner.lock();
        if inner.queue.len() >= self.0.max_queue {
            staff(&self.0, &mut inner);
            return Err(PoolFull);
        }
        inner.queue.push_back(job);
        staff(&self.0, &mut inner);
        if inner.threads == 0 {
            // All are lost, and no more may be.
            let job = inner.queue.pop_back();
            drop(inner);
            drop(job);
            return Err(PoolFull);
        }
        self.0.more.notify_one();
        drop(inner);
        Ok(Ticket { state, shared: Arc::clone(&self.0) })
    }

    pub(crate) fn usage(&self) -> PoolUsage {
        let inner = self.0.inner.lock();
        PoolUsage { threads: inner.threads, waiting: inner.queue.len(), lost: inner.lost }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.inner.lock().closed = true;
        self.0.more.notify_all();
    }
}

/// Starts another thread where more waits than idle threads will take, and one may be started.
fn staff(shared: &Arc<Shared>, inner: &mut Inner) {
    if inner.idle < inner.queue.len() && inner.threads < shared.max_threads {
        let serving = Arc::clone(shared);
        let started = thread::Builder::new()
            .name("conexus-hook".into())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&serving));
        inner.threads += usize::from(started.is_ok());
    }
}

/// A call on its way through the pool.
pub(crate) struct Ticket {
    state: Arc<AtomicU8>,
    shared: Arc<Shared>,
}

impl Ticket {
    /// Nobody waits for it any more; whether it had begun.
    pub(crate) fn give_up(&self) -> bool {
        let mut inner = self.shared.inner.lock();
        if self.state.compare_exchange(WAITING, GIVEN_UP, SeqCst, SeqCst).is_ok() {
            let at = inner.queue.iter().position(|job| Arc::ptr_eq(&job.state, &self.state));
            let job = at.and_then(|at| inner.queue.remove(at));
            drop(inner);
            drop(job);
            return false;
        }
        if self.state.compare_exchange(RUNNING, GIVEN_UP, SeqCst, SeqCst).is_ok() {
            inner.lost += 1;
            if inner.lost <= self.shared.max_lost {
                // Another may be started in its place.
                inner.threads -= 1;
                staff(&self.shared, &mut inner);
            }
        }
        true
    }
}

fn serve(shared: &Arc<Shared>) {
    loop {
        let job = {
            let mut inner = shared.inner.lock();
            loop {
                if let Some(job) = inner.queue.pop_front() {
                    job.state.store(RUNNING, SeqCst);
                    break job;
                }
                if inner.closed {
                    inner.threads = inner.threads.saturating_sub(1);
                    return;
                }
                inner.idle += 1;
                shared.more.wait(&mut inner);
                inner.idle -= 1;
            }
        };
        (job.work)();
        let mut inner = shared.inner.lock();
        if job.state.compare_exchange(RUNNING, DONE, SeqCst, SeqCst).is_err() {
            // It was given up, and is back after all.
            let replaced = inner.lost <= shared.max_lost;
            inner.lost -= 1;
            if replaced {
                if inner.threads >= shared.max_threads {
                    return;
                }
                // Its place was not taken.
                inner.threads += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(threads: usize, queue: usize, lost: usize) -> Pool {
        Pool::new(&PolicySettings {
            blocking_threads: threads,
            blocking_queue: queue,
            lost_threads: lost,
            ..PolicySettings::default()
        })
    }

    /// Occupies a thread until the sender is dropped; returns once it runs.
    fn occupy(pool: &Pool) -> (Ticket, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel::<()>();
        let (running, runs) = mpsc::channel();
        let ticket = pool
            .submit(move || {
                let _ = running.send(());
                let _ = released.recv();
            })
            .unwrap_or_else(|PoolFull| panic!("no room"));
        runs.recv().unwrap();
        (ticket, release)
    }

    #[test]
    fn work_beyond_the_queue_is_refused() {
        let pool = pool(1, 1, 1);
        let (_running, _release) = occupy(&pool);
        assert!(pool.submit(|| {}).is_ok());
        assert!(pool.submit(|| {}).is_err());
    }

    #[test]
    fn a_lost_thread_is_replaced_until_too_many_are_lost() {
        let pool = pool(1, 8, 1);
        let (first, release_first) = occupy(&pool);
        first.give_up();
        assert_eq!(pool.usage().lost, 1);
        let (second, _release_second) = occupy(&pool);
        second.give_up();
        assert_eq!(pool.usage().lost, 2);
        // No third one: what comes now waits until one is back.
        let (done, is_done) = mpsc::channel();
        assert!(pool.submit(move || done.send(()).unwrap()).is_ok());
        assert_eq!(pool.usage().waiting, 1);
        drop((release_first, _release_second));
        is_done.recv().unwrap();
    }

    #[test]
    fn what_was_given_up_while_it_waited_never_runs() {
        let pool = pool(1, 8, 1);
        let (_running, release) = occupy(&pool);
        let (never, runs) = mpsc::channel::<()>();
        let sends = move || never.send(()).unwrap_or(());
        let waiting = pool.submit(sends).unwrap_or_else(|PoolFull| panic!("no room"));
        waiting.give_up();
        drop(release);
        let (done, is_done) = mpsc::channel();
        assert!(pool.submit(move || done.send(()).unwrap()).is_ok());
        is_done.recv().unwrap();
        assert!(runs.recv().is_err());
    }

    #[test]
    fn what_waits_is_served_once_a_lost_thread_may_be_replaced() {
        let pool = pool(1, 8, 1);
        let (first, _release) = occupy(&pool);
        let (done, is_done) = mpsc::channel();
        assert!(pool.submit(move || done.send(()).unwrap()).is_ok());
        first.give_up();
        is_done.recv().unwrap();
    }

    #[test]
    fn a_full_queue_is_served_although_all_threads_were_lost() {
        let pool = pool(1, 1, 0);
        let (first, release) = occupy(&pool);
        let (done, is_done) = mpsc::channel();
        assert!(pool.submit(move || done.send(()).unwrap()).is_ok());
        first.give_up();
        assert!(pool.submit(|| {}).is_err());
        drop(release);
        is_done.recv().unwrap();
    }

    #[test]
    fn what_is_given_up_is_dropped_without_the_lock() {
        /// Like the last hold on an instance, whose end goes to the pool.
        struct Submits(Arc<Pool>);
        impl Drop for Submits {
            fn drop(&mut self) {
                let _ = self.0.submit(|| {});
            }
        }
        let pool = Arc::new(pool(1, 8, 1));
        let (_running, _release) = occupy(&pool);
        let held = Submits(Arc::clone(&pool));
        let waiting = pool.submit(move || drop(held)).unwrap_or_else(|PoolFull| panic!("no room"));
        waiting.give_up();
        assert_eq!(pool.usage().waiting, 1);
    }
}
