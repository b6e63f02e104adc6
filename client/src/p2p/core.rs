//! What the handles of a peer, its session and the requests on it have in common.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use conexus_protocol::{AgentId, AgentKey, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    PeerOptions, PeerPath, channels::Channels, control::Control, error::PeerError, signal::Signal,
    transport::Connection,
};
use crate::{ChannelError, ConnectionState, Refusal};

/// Messages of one agent that wait for each other.
const MAX_WAITING: usize = 512;

/// What arrives for a session.
#[derive(Debug)]
pub(crate) enum Input {
    Signal(Signal),
    /// An ERROR; whether it is the gateway's.
    Refusal(Refusal, bool),
}

/// How an agent came to be a peer, and what became of it.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// On its way.
    Connecting,
    /// There is a way, of whichever kind.
    Ready,
    /// It has ended, orderly where there is no error.
    Ended(Option<PeerError>),
}

/// Another agent, as it stands. A peer ends once and for all; who connects to the same agent later gets another.
pub(crate) struct Core {
    /// Tells it from others of the same agent.
    pub(crate) serial: u64,
    pub(crate) id: AgentId,
    pub(crate) key: AgentKey,
    /// Whether it was begun by a call of `connect_peer`.
    pub(crate) is_outgoing: bool,
    pub(crate) options: PeerOptions,
    pub(crate) state: watch::Sender<ConnectionState>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) channels: Channels,
    pub(crate) closing: CancellationToken,
    pub(crate) restarts: AtomicU32,
    /// Callers of `connect_peer` that wait for it.
    pub(crate) waiters: AtomicUsize,
    inbox: mpsc::Sender<Input>,
    now: Mutex<Now>,
    watchers: Mutex<Vec<mpsc::Sender<ConnectionState>>>,
}

#[derive(Default)]
struct Now {
    path: PeerPath,
    connection: Option<Arc<dyn Connection>>,
    control: Option<Control>,
    connect_time: Option<Duration>,
    /// What an ERROR may name that is about this connection.
    names: [Option<String>; 3],
    /// When the first OFFER of the connection that stands was written.
    begun: Option<Timestamp>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("did", &self.did())
            .field("state", &*self.state.borrow())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(
        serial: u64,
        id: AgentId,
        options: PeerOptions,
        is_outgoing: bool,
    ) -> (Arc<Self>, mpsc::Receiver<Input>) {
        let (inbox, inputs) = mpsc::channel(MAX_WAITING);
        let channels = Channels::new(options.max_message_bytes);
        let core = Self {
            serial,
            key: id.key(),
            id,
            is_outgoing,
            options,
            state: watch::Sender::new(ConnectionState::Connecting),
            progress: watch::Sender::new(Progress::Connecting),
            channels,
            closing: CancellationToken::new(),
            restarts: AtomicU32::new(0),
            waiters: AtomicUsize::new(0),
            inbox,
            now: Mutex::default(),
            watchers: Mutex::default(),
        };
        (Arc::new(core), inputs)
    }

    pub(crate) fn did(&self) -> &str {
        self.id.as_str()
    }

    /// Hands something over to the session; whether there was room.
    pub(crate) fn hand(&self, input: Input) -> bool {
        !matches!(self.inbox.try_send(input), Err(mpsc::error::TrySendError::Full(_)))
    }

    pub(crate) fn path(&self) -> PeerPath {
        self.now().path
    }

    pub(crate) fn set_path(&self, path: PeerPath) {
        self.now().path = path;
    }

    pub(crate) fn connection(&self) -> Option<Arc<dyn Connection>> {
        self.now().connection.clone()
    }

    pub(crate) fn set_connection(&self, connection: Option<Arc<dyn Connection>>) {
        let before = std::mem::replace(&mut self.now().connection, connection);
        // Dropped where nothing is locked: it may be the last one.
        drop(before);
    }

    /// Where to put what is to be said over the control channel, while there is one.
    pub(crate) fn control(&self) -> Option<Control> {
        self.now().control.clone()
    }

    pub(crate) fn set_control(&self, control: Option<Control>) {
        self.now().control = control;
    }

    pub(crate) fn connect_time(&self) -> Option<Duration> {
        self.now().connect_time
    }

    pub(crate) fn note_connect_time(&self, took: Duration) {
        self.now().connect_time.get_or_insert(took);
    }

    /// What an ERROR may name, and since when the connection stands.
    pub(crate) fn note(&self, names: [Option<String>; 3], begun: Option<Timestamp>) {
        let mut now = self.now();
        now.names = names;
        now.begun = begun;
    }

    /// Whether a message with that correlation id is about this connection.
    pub(crate) fn concerns(&self, correlation_id: Option<&str>) -> bool {
        correlation_id.is_some()
            && self.now().names.iter().any(|name| name.as_deref() == correlation_id)
    }

    /// Whether a first OFFER written then is not older than the connection that stands.
    pub(crate) fn is_newer(&self, written: Option<Timestamp>) -> bool {
        match (self.now().begun, written) {
            (Some(begun), Some(written)) => written >= begun,
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Ended(_))
    }

    pub(crate) fn enter(&self, state: ConnectionState) {
        let changed = self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
        if changed {
            let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever is that far behind sees the next one.
            watchers.retain(|watcher| {
                !matches!(watcher.try_send(state), Err(mpsc::error::TrySendError::Closed(_)))
            });
        }
    }

    /// Each state from now on, of which `capacity` may wait.
    pub(crate) fn watch(&self, capacity: usize) -> mpsc::Receiver<ConnectionState> {
        let (sender, receiver) = mpsc::channel(capacity);
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        if self.is_over() {
            self.unwatch();
        }
        receiver
    }

    /// The end, once: `error` where it should not have been. What was held is given back.
    pub(crate) fn end(&self, error: Option<PeerError>) -> bool {
        if self.is_over() {
            return false;
        }
        {
            let mut now = self.now();
            now.path = PeerPath::None;
            now.control = None;
            now.names = Default::default();
        }
        self.set_connection(None);
        if error.is_none() {
            self.enter(ConnectionState::Disconnecting);
            self.enter(ConnectionState::Disconnected);
        } else {
            self.enter(ConnectionState::Error);
        }
        let lost = error.as_ref().map(|_| ChannelError::Lost);
        self.progress.send_replace(Progress::Ended(error));
        self.channels.end(lost.as_ref());
        self.unwatch();
        true
    }

    fn unwatch(&self) {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn note_restarts(&self, restarts: u32) {
        self.restarts.store(restarts, Ordering::Relaxed);
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
