//! The everyday face of a peer: its state, its channels, what is asked of it.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use conexus_protocol::Intent;
use futures_util::Stream;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Channel, ChannelError, ChannelOptions, IncomingChannels, PathStats, PeerOptions,
    RequestOptions, Responses,
    calls::{Calls, Whom},
    core::{Core, Progress},
    error::{PeerError, RequestError},
    peers::Peers,
};
use crate::{ConnectionState, Outcome};

/// States that may wait for a handler.
const MAX_STATES: usize = 64;

/// By which way an agent is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerPath {
    /// There is none: it is being sought, or the peer has ended.
    #[default]
    None,
    /// A WebRTC connection.
    Direct,
    /// By way of the gateway, **which can read what goes there**; requests alone.
    Gateway,
}

/// How a peer is connected.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PeerStats {
    /// By which way.
    pub path: PeerPath,
    /// The pair of candidates in use, with round trip and bytes; none where the way is not direct.
    pub pair: Option<PathStats>,
    /// How long it took to connect; none before.
    pub connect_time: Option<Duration>,
    /// How often ICE was restarted from here.
    pub restarts: u32,
    /// Open channels, the control channel left out.
    pub channels: usize,
}

/// Another agent, connected directly (or, where the application allows it, by way of the gateway). Cheap to clone.
///
/// A peer is one of the client's five [states](ConnectionState): connecting (also while a way that failed is
/// sought anew), connected, disconnecting, and in the end disconnected (orderly) or error. It ends once and for
/// all; whoever connects to the same agent later gets another one.
///
/// Dropping handles ends nothing: the client keeps its peers until one of the two sides closes, the connection is
/// lost, or the client itself is closed or dropped.
#[derive(Clone)]
pub struct Peer {
    core: Arc<Core>,
    peers: Arc<Peers>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

/// Two handles of the same connection are equal.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.core.serial == other.core.serial && Arc::ptr_eq(&self.peers, &other.peers)
    }
}

impl Eq for Peer {}

/// Who it is, and how it stands.
impl Peer {
    pub(crate) fn new(core: Arc<Core>, peers: Arc<Peers>) -> Self {
        Self { core, peers }
    }

    /// The agent's DID, as it or the caller spelled it.
    pub fn did(&self) -> &str {
        self.core.id.as_str()
    }

    /// The state at this moment.
    pub fn state(&self) -> ConnectionState {
        *self.core.state.borrow()
    }

    /// The state as it changes. A watch shows the latest only; state handlers see each one.
    pub fn states(&self) -> watch::Receiver<ConnectionState> {
        self.core.state.subscribe()
    }

    /// Calls `handler` with each state that the peer enters from now on, one after the other on a task of
    /// their own. Of those that wait for it at most 64 are kept.
    pub fn on_state<O: Outcome>(
        &self,
        handler: impl Fn(ConnectionState) -> O + Send + Sync + 'static,
    ) {
        let mut states = self.core.watch(MAX_STATES);
        let did = self.did().to_owned();
        self.peers.spawn(async move {
            while let Some(state) = states.recv().await {
                if let Err(failure) = handler(state).into_result() {
                    tracing::warn!(peer = %did, %failure, "a handler of a peer's states failed");
                }
            }
        });
    }

    /// By which way it is reached at this moment.
    pub fn path(&self) -> PeerPath {
        self.core.path()
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// Why it ended, where that was not orderly.
    pub async fn closed(&self) -> Result<(), PeerError> {
        let mut progress = self.core.progress.subscribe();
        let ended = progress.wait_for(|now| matches!(now, Progress::Ended(_))).await;
        match ended.as_deref() {
            Ok(Progress::Ended(Some(error))) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// How it is connected.
    pub async fn stats(&self) -> PeerStats {
        let path = self.path();
        let connection = self.core.connection().filter(|_| path == PeerPath::Direct);
        let pair = match connection {
            Some(connection) => connection.path().await,
            None => None,
        };
        PeerStats {
            path,
            pair,
            connect_time: self.core.connect_time(),
            restarts: self.core.restarts.load(Ordering::Relaxed),
            channels: self.core.channels.count(),
        }
    }

    /// Ends it: what is handed over is sent, the channels are closed, then the connection; all of that within the
    /// options' close timeout. Returns when it has ended.
    pub async fn close(&self) {
        self.core.closing.cancel();
        // How it ends is of no interest any more.
        let _ = self.closed().await;
    }
}

/// Channels.
impl Peer {
    /// Opens a channel; returns when messages can be sent. The other side's [`on_channel`](Self::on_channel) gets
    /// its end.
    ///
    /// # Errors
    ///
    /// [`ChannelError`]: the label begins with `conexus`, there is no direct way at the moment, or the channel
    /// did not open within the options' open timeout.
    pub async fn open_channel(
        &self,
        label: impl Into<String>,
        options: ChannelOptions,
    ) -> Result<Channel, ChannelError> {
        let is_there =
            self.path() == PeerPath::Direct && self.state() == ConnectionState::Connected;
        let connection = self.core.connection().filter(|_| is_there);
        let connection = connection.ok_or(ChannelError::NotConnected)?;
        let patience = self.core.options.open_timeout;
        let opening = self.core.channels.open(&connection, label.into(), options);
        timeout(patience, opening).await.unwrap_or(Err(ChannelError::Timeout(patience)))
    }

    /// Calls `handler` with each channel that the other side opens, one after the other; what came before
    /// anybody listened (at most 64) is first.
    pub fn on_channel<O: Outcome>(&self, handler: impl Fn(Channel) -> O + Send + Sync + 'static) {
        let mut channels = self.channels();
        let did = self.did().to_owned();
        self.peers.spawn(async move {
            while let Some(channel) = channels.recv().await {
                if let Err(failure) = handler(channel).into_result() {
                    tracing::warn!(peer = %did, %failure, "a handler of a peer's channels failed");
                }
            }
        });
    }

    /// The channels that the other side opens, as a stream; what came before anybody listened is first. Where several
    /// listen, all get the same channels, each of whose messages only one of them receives.
    pub fn channels(&self) -> IncomingChannels {
        self.core.channels.take()
    }
}

/// Requests: EXEC_REQUEST, INTENT and PING, signed, over the channel or by the fallback.
impl Peer {
    /// Asks the agent to do something; returns its result. `args` is a JSON object, or null for none. Dropping the
    /// future tells the other side that the result is not wanted any more.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn request(
        &self,
        args: impl Into<Value>,
        options: RequestOptions,
    ) -> Result<Value, RequestError> {
        let whom = Whom::peer(&self.core)?;
        Calls::request(&self.peers, whom, args.into(), options).await
    }

    /// The same as it is done: a stream of progress and parts, whose last item is the result.
    pub fn stream(&self, args: impl Into<Value>, options: RequestOptions) -> Responses {
        let whom = Whom::peer(&self.core);
        Calls::stream(Arc::clone(&self.peers), whom, args.into(), options)
    }

    /// Says what one is after; returns the INTENT that answers.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn intent(&self, intent: Intent, patience: Duration) -> Result<Intent, RequestError> {
        Calls::intent(&self.peers, Whom::peer(&self.core)?, intent, patience).await
    }

    /// How long a PING and its PONG take.
    ///
    /// # Errors
    ///
    /// [`RequestError::DirectOnly`] by way of the gateway, which would answer itself; any other.
    pub async fn ping(&self) -> Result<Duration, RequestError> {
        let patience = self.core.options.answer_timeout;
        Calls::ping(&self.peers, Whom::peer(&self.core)?, patience).await
    }
}

/// The peers that connect, as a stream: see [`Handle::accept_peers`](crate::Handle::accept_peers).
///
/// Each is connected when it gets here. While as many wait as the client may have peers, others are refused as
/// `busy`; when the stream is dropped, as `declined`.
#[derive(Debug)]
pub struct IncomingPeers(pub(super) mpsc::Receiver<Peer>);

impl IncomingPeers {
    /// The next peer; none when the client was dropped, or somebody else listens. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Peer> {
        self.0.recv().await
    }
}

impl Stream for IncomingPeers {
    type Item = Peer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Waits until a peer is connected; whoever stops waiting for one that nobody else waits for ends it.
pub(crate) async fn connected(
    core: Arc<Core>,
    peers: Arc<Peers>,
    options: &PeerOptions,
) -> Result<Peer, PeerError> {
    let waiter = Waiter::new(&core);
    let mut progress = core.progress.subscribe();
    let ready = progress.wait_for(|now| !matches!(now, Progress::Connecting));
    // One that somebody else began may have more time than this caller.
    let now = match timeout(options.timeout * 2, ready).await {
        Ok(now) => now.map(|now| now.clone()),
        Err(_) => return Err(PeerError::Timeout(options.timeout)),
    };
    drop(waiter);
    match now {
        Ok(Progress::Ended(Some(error))) => Err(error),
        Ok(Progress::Ended(None)) | Err(_) => Err(PeerError::Closed),
        Ok(Progress::Ready | Progress::Connecting) => Ok(Peer::new(core, peers)),
    }
}

/// Counts a caller.
struct Waiter<'a>(&'a Core);

impl<'a> Waiter<'a> {
    fn new(core: &'a Core) -> Self {
        core.waiters.fetch_add(1, Ordering::Relaxed);
        Self(core)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let was_last = self.0.waiters.fetch_sub(1, Ordering::Relaxed) == 1;
        let is_connecting = matches!(*self.0.progress.borrow(), Progress::Connecting);
        if was_last && is_connecting && self.0.is_outgoing {
            self.0.closing.cancel();
        }
    }
}
