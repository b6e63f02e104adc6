//! What the gateway knows of itself: counts, times, and events for whoever listens.
//!
//! On a message's way there is a handful of additions, on the thread's own stripe; everything that
//! is shown is put together by whoever looks. `Core` owns it, and every session holds it.

pub(crate) mod cluster;
pub(crate) mod events;
pub(crate) mod exposition;
mod families;
mod findings;
mod flow;
pub(crate) mod histogram;
pub(crate) mod history;
pub(crate) mod monitor;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
pub(crate) mod overview;
pub(crate) mod problems;
mod process;
pub(crate) mod sessions;
pub(crate) mod trace;
pub(crate) mod watches;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use conexus_protocol::MessageType;

use self::{
    events::Hub, histogram::Histogram, history::History, sessions::Sessions, watches::WatchCounts,
};
use crate::{accounting::Accounting, config::TelemetrySettings, striped::Striped};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    pub(crate) messages: Accounting,
    /// From a message's frame received to its frame written, where it was not held in between.
    pub(crate) latency: Histogram,
    traffic: Striped<Traffic>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) hub: Hub,
    pub(crate) history: History,
    pub(crate) watches: WatchCounts,
}

#[derive(Debug, Default)]
struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Telemetry {
    pub(crate) fn new(settings: &TelemetrySettings) -> Self {
        Self { history: History::new(settings.history), ..Self::default() }
    }

    /// The kernel has the last byte of a message.
    pub(crate) fn delivered(&self, kind: MessageType, took: Option<Duration>) {
        self.messages.delivered(kind);
        if let Some(took) = took {
            self.latency.observe(took);
        }
    }

    /// So many bytes were read from registered agents' sockets.
    pub(crate) fn bytes_received(&self, bytes: usize) {
        self.traffic.mine().received.fetch_add(bytes as u64, Relaxed);
    }

    /// The kernel took so many bytes for registered agents' sockets.
    pub(crate) fn bytes_sent(&self, bytes: u64) {
        self.traffic.mine().sent.fetch_add(bytes, Relaxed);
    }

    /// Bytes received and sent so far.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let sum = |of: fn(&Traffic) -> &AtomicU64| {
            self.traffic.all().map(|stripe| of(stripe).load(Relaxed)).sum()
        };
        (sum(|traffic| &traffic.received), sum(|traffic| &traffic.sent))
    }
}
