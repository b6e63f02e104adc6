//! SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process. SIGHUP
//! asks for a reload. Commands that follow something end by SIGINT alone.

use std::{io, process, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long the log gets for its last line when the process is ended at once.
const LAST_LINE: Duration = Duration::from_millis(50);

/// Ctrl-C, caught from the moment this exists and not lost while nobody waits for it.
pub(super) struct Interrupt(Signal);

impl Interrupt {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?))
    }

    pub(super) async fn came(&mut self) {
        self.0.recv().await;
    }
}

/// The signals that stop a process, caught from the moment this exists.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// SIGHUP, from now on; it no longer ends the process.
    pub(super) fn hangups() -> io::Result<Signal> {
        signal(SignalKind::hangup())
    }

    /// Resolves with the first signal, or when `drain` is cancelled. From then on a second signal
    /// ends the process at once, with the status that a shell gives to a process killed by it.
    pub(super) async fn stop_requested(mut self, drain: CancellationToken) {
        let signal = tokio::select! {
            signal = self.next() => Some(signal),
            () = drain.cancelled() => None,
        };
        match signal {
            Some(signal) => tracing::info!(signal, "stopping; a second signal stops at once"),
            None => tracing::info!("stopping, by the admin API"),
        }
        // Not joined on purpose: it lives until the process ends.
        tokio::spawn(async move {
            if signal.is_none() {
                // Whoever asked by the API may have to send the usual signal all the same.
                let signal = self.next().await;
                tracing::info!(signal, "stopping already; a second signal stops at once");
            }
            let signal = self.next().await;
            tracing::warn!(signal, "stopped at once");
            // The log has a thread of its own, which ends with the process.
            std::thread::sleep(LAST_LINE);
            process::exit(128 + signal);
        });
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}
