//! Threads that wait for the service, so that nobody else does.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use conexus_plugin_api::{Deferred, Host};

use crate::service::{Question, Service};

/// A question, and where its answer goes.
struct Job {
    question: Question,
    deferred: Deferred,
}

/// The threads. They end with [`Pool::finish`].
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn start(
        threads: usize,
        queue: usize,
        service: &Arc<Service>,
        host: &Host,
    ) -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut pool = Self { jobs, stopping, threads: Vec::new() };
        for nth in 0..threads {
            let (receiver, service) = (Arc::clone(&receiver), Arc::clone(service));
            let (stopping, host) = (Arc::clone(&pool.stopping), host.clone());
            let thread = Builder::new().name(format!("webhook-{nth}"));
            let thread = thread.spawn(move || work(&receiver, &service, &stopping, &host));
            match thread {
                Ok(thread) => pool.threads.push(thread),
                Err(error) => {
                    pool.finish();
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// Hands a question over; false where there is no room, and then the hook has failed.
    pub(crate) fn ask(&self, question: Question, deferred: Deferred) -> bool {
        let Err(refused) = self.jobs.try_send(Job { question, deferred }) else { return true };
        let (std::sync::mpsc::TrySendError::Full(job)
        | std::sync::mpsc::TrySendError::Disconnected(job)) = refused;
        job.deferred.complete(Err("too many registrations wait for the service".into()));
        false
    }

    /// Ends the threads: questions that wait fail, those that were asked come to their end.
    pub(crate) fn finish(self) {
        self.stopping.store(true, Relaxed);
        drop(self.jobs);
        for thread in self.threads {
            // It panicked or it did not; either way it has ended.
            let _ = thread.join();
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, service: &Service, stopping: &AtomicBool, host: &Host) {
    loop {
        // The lock is held while waiting, so that the threads wait in line.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { question, deferred }) = job else { return };
        let outcome = if stopping.load(Relaxed) {
            Err("the hook is being stopped".into())
        } else {
            service.finish(question, host)
        };
        deferred.complete(outcome);
    }
}
