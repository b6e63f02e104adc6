//! How to connect, and whom to take.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

/// How to connect to an agent, and to stay so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerOptions {
    /// How long all attempts may take together. Default: 30 s.
    pub timeout: Duration,
    /// How long the other side may take to answer an OFFER. Default: 10 s.
    pub answer_timeout: Duration,
    /// How long a way may take to be found once descriptions are exchanged, and a channel to open.
    /// Default: 15 s.
    pub open_timeout: Duration,
    /// How long an orderly end may take. Default: 2 s.
    pub close_timeout: Duration,
    /// Attempts before it is given up; pauses between them double from 1 s. Default: 3.
    pub attempts: u32,
    /// ICE restarts in a row before the connection counts as lost. Default: 5.
    pub restarts: u32,
    /// Whether requests go by way of the gateway, **which can read them**, where no direct way opens and
    /// the gateway carries them. Default: false.
    pub fallback: bool,
    /// The largest message that a channel joins, in bytes. Default: 16 MiB.
    pub max_message_bytes: usize,
    /// Channels that the other side may have open at a time; one beyond is closed. Each may hold 17 MiB that nobody
    /// reads, so fewer are for strangers. Default: 32.
    pub max_channels: usize,
    /// Whether everything goes by a TURN server, so that the other side does not learn this agent's
    /// address. Default: false.
    pub relay_only: bool,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(10),
            open_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(2),
            attempts: 3,
            restarts: 5,
            fallback: false,
            max_message_bytes: 16 * 1024 * 1024,
            max_channels: 32,
            relay_only: false,
        }
    }
}

/// Says whether an agent may connect.
pub(crate) type Welcome = Arc<dyn Fn(String) -> BoxFuture<'static, bool> + Send + Sync>;

/// Whose connections to take. The default takes everybody's.
#[derive(Clone, Default)]
#[must_use]
pub struct AcceptOptions {
    pub(crate) peer: PeerOptions,
    pub(crate) welcome: Option<Welcome>,
}

impl fmt::Debug for AcceptOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptOptions").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AcceptOptions {
    /// Everybody's.
    pub fn new() -> Self {
        Self::default()
    }

    /// How to be connected to those that are taken.
    pub fn options(mut self, options: PeerOptions) -> Self {
        self.peer = options;
        self
    }

    /// Takes only those for whose DID, in whichever spelling, `welcome` says true.
    pub fn accept_if(self, welcome: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.accept_if_async(move |did| std::future::ready(welcome(&did)))
    }

    /// As [`accept_if`](Self::accept_if). One that takes longer than 10 s has said no, and so has one
    /// that panics.
    pub fn accept_if_async<F>(
        mut self,
        welcome: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.welcome = Some(Arc::new(move |did| Box::pin(welcome(did))));
        self
    }
}
