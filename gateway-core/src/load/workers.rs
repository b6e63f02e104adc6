//! Threads with a runtime each, which share nothing.
//!
//! A connection stays where it was made, so no task ever wakes another thread, and what a thread
//! counts is its own.

use std::{future::Future, io, thread};

use tokio::{
    runtime::{self, Handle},
    sync::oneshot,
    task::AbortHandle,
};

/// Threads until they are dropped. Whatever is still running on them then ends.
pub(super) struct Workers(Vec<Worker>);

struct Worker {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1)).map(Worker::start).collect::<io::Result<_>>().map(Self)
    }

    pub(super) const fn count(&self) -> usize {
        self.0.len()
    }

    /// Runs a task on that worker.
    pub(super) fn spawn(
        &self,
        worker: usize,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.0[worker].handle.spawn(task).abort_handle()
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // Either way it is over.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name(format!("load-{number}")).spawn(run)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            drop(worker.stop.take());
        }
        for worker in &mut self.0 {
            if let Some(thread) = worker.thread.take() {
                // It panicked only if the runtime itself did.
                let _ = thread.join();
            }
        }
    }
}
