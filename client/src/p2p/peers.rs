//! All peers of one client: which there are, whose OFFERs are taken, and the way from a message to its peer.
//!
//! There is one connection for each pair of keys. The link hands over what arrives ([`Peers::claim`]) and
//! never waits: each peer has a bounded queue, and what has no room there is dropped, which is as if the
//! network had. Without a listener, and without a peer of that agent, all is left to the client's handlers.

mod arriving;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use conexus_protocol::{
    AgentId, AgentKey, Draft, ErrorCode, ErrorPayload, Identity, Message, MessageType, Payload,
};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use super::{
    AcceptOptions, Peer, PeerOptions, PeerPath,
    calls::Calls,
    control::Ear,
    core::{Core, Input},
    error::{PeerError, PeerFault, RequestError},
    freshness::{Freshness, Verdict},
    gateway::AnyGateway,
    session::{Begin, Session},
    signal::{NoSignal, Signal, Word, is_for},
    transport::Transport,
};
use crate::{ClientError, HandlerId, IceOutcome, Refusal, dispatch, handlers::Handler};

/// OFFERs of strangers that wait to be welcome.
const MAX_UNDECIDED: usize = 64;

/// Candidates of ours whose ERRORs are known to be about them, the latest.
const MAX_CANDIDATES: usize = 1024;

/// Small messages that are on their way at a time: refusals, word of the end of requests.
const MAX_CHORES: usize = 256;

/// How long `accept` may take to say whether an agent is welcome.
const WELCOME: Duration = Duration::from_secs(10);

/// Who is given those that connect.
#[derive(Clone)]
pub(crate) enum Listener {
    Handler(HandlerId, AcceptOptions, Handler<Peer>),
    Stream(AcceptOptions, mpsc::Sender<Peer>),
}

impl Listener {
    fn options(&self) -> &AcceptOptions {
        match self {
            Self::Handler(_, options, _) | Self::Stream(options, _) => options,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self, Self::Stream(_, stream) if stream.is_closed())
    }

    fn has_room(&self) -> bool {
        match self {
            Self::Handler(..) => true,
            Self::Stream(_, stream) => stream.capacity() > 0,
        }
    }
}

#[derive(Default)]
struct Known {
    peers: HashMap<AgentKey, Arc<Core>>,
    listener: Option<Listener>,
    /// Cores that wait for a welcome.
    undecided: usize,
    /// The client is being closed.
    is_closing: bool,
}

/// See the [module](self).
pub(crate) struct Peers {
    own: Weak<Peers>,
    identity: Identity,
    gateway: AnyGateway,
    transport: Arc<dyn Transport>,
    max: usize,
    next: AtomicU64,
    known: Mutex<Known>,
    fresh: Mutex<Freshness>,
    candidates: Mutex<Recent>,
    tasks: Mutex<JoinSet<()>>,
    chores: Arc<Semaphore>,
    pub(crate) calls: Calls,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("peers", &self.known().peers.len()).finish_non_exhaustive()
    }
}

impl Peers {
    pub(crate) fn new(
        identity: Identity,
        gateway: AnyGateway,
        transport: Arc<dyn Transport>,
        max: usize,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            own: own.clone(),
            identity,
            gateway,
            transport,
            max,
            next: AtomicU64::new(1),
            known: Mutex::default(),
            fresh: Mutex::default(),
            candidates: Mutex::default(),
            tasks: Mutex::default(),
            chores: Arc::new(Semaphore::new(MAX_CHORES)),
            calls: Calls::default(),
        })
    }

    pub(crate) fn gateway(&self) -> &AnyGateway {
        &self.gateway
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    // ---- For the user ----------------------------------------------------------------------------

    /// The peer of this agent: the one that there is, or one that begins now.
    pub(crate) fn connect(&self, did: &str, options: PeerOptions) -> Result<Arc<Core>, PeerError> {
        let id = AgentId::parse(did).map_err(PeerError::Recipient)?;
        let key = id.key();
        if key == self.identity.key() {
            return Err(PeerError::Oneself);
        }
        let mut known = self.known();
        if let Some(core) = known.peers.get(&key) {
            return Ok(Arc::clone(core));
        }
        if known.is_closing || !self.gateway.is_running() {
            return Err(PeerError::ClientClosed);
        }
        if known.peers.len() >= self.max {
            return Err(PeerError::TooMany(self.max));
        }
        Ok(self.begin(&mut known, id, options, |_| Begin::Ours))
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn listen(&self, listener: Listener) {
        let before = self.known().listener.replace(listener);
        drop(before);
    }

    /// Takes a handler away; whether it was there.
    pub(crate) fn remove_handler(&self, handler: HandlerId) -> bool {
        let mut known = self.known();
        let is_it = matches!(known.listener, Some(Listener::Handler(id, ..)) if id == handler);
        let removed = if is_it { known.listener.take() } else { None };
        drop(known);
        drop(removed);
        is_it || self.calls.remove_handler(handler)
    }

    /// The peer of this agent, if there is one.
    pub(crate) fn get(&self, key: AgentKey) -> Option<Arc<Core>> {
        self.known().peers.get(&key).cloned()
    }

    /// All that there are.
    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.known().peers.values().cloned().collect()
    }

    /// Ends all peers, orderly.
    pub(crate) async fn close(&self) {
        let cores = {
            let mut known = self.known();
            known.is_closing = true;
            known.peers.values().cloned().collect::<Vec<_>>()
        };
        for core in &cores {
            core.closing.cancel();
        }
        for core in cores {
            let patience = core.options.close_timeout * 2;
            let mut progress = core.progress.subscribe();
            let ended = progress.wait_for(|now| matches!(now, super::core::Progress::Ended(_)));
            let _ = timeout(patience, ended).await;
        }
        self.calls.end_all(&RequestError::Closed);
    }

    /// The client begins, or begins anew.
    pub(crate) fn reopen(&self) {
        self.known().is_closing = false;
    }

    /// The client is gone: everything ends at once, and closures that hold it are let go.
    pub(crate) fn abort(&self) {
        let listener = {
            let mut known = self.known();
            known.is_closing = true;
            known.listener.take()
        };
        drop(listener);
        self.calls.clear();
        // Dropped where nothing is locked: sessions say that they end.
        let tasks = std::mem::take(&mut *self.tasks());
        drop(tasks);
        for core in self.all() {
            // A session that had not begun to run, or is elsewhere at the moment.
            if core.end(Some(PeerError::ClientClosed)) {
                self.ended(&core, Some(PeerError::ClientClosed), false);
            }
        }
        self.calls.end_all(&RequestError::Closed);
    }

    // ---- For sessions ----------------------------------------------------------------------------

    /// The peer is connected: whoever listens gets it.
    pub(crate) fn hand_over(&self, listener: Listener, core: &Arc<Core>) {
        let Some(peers) = self.own.upgrade() else { return };
        let peer = Peer::new(Arc::clone(core), peers);
        match listener {
            Listener::Handler(id, _, handler) => {
                let gateway = Arc::clone(&self.gateway);
                self.spawn(async move {
                    let running = AssertUnwindSafe(async { handler(peer).await }).catch_unwind();
                    let outcome = running.await;
                    let outcome = outcome.unwrap_or_else(|panic| Err(dispatch::text(&*panic)));
                    if let Err(failure) = outcome {
                        gateway.report(ClientError::Handler { handler: id, failure });
                    }
                });
            }
            Listener::Stream(_, stream) => {
                if stream.try_send(peer).is_err() {
                    tracing::debug!(peer = core.did(), "nobody takes the peer, and it is closed");
                    core.closing.cancel();
                }
            }
        }
    }

    /// A peer has ended.
    pub(crate) fn ended(&self, core: &Core, error: Option<PeerError>, was_connecting: bool) {
        {
            let mut known = self.known();
            let is_it = known.peers.get(&core.key).is_some_and(|known| known.serial == core.serial);
            let removed = if is_it { known.peers.remove(&core.key) } else { None };
            drop(known);
            drop(removed);
        }
        self.calls.drop_peer(core.serial, error.as_ref());
        if let Some(error) = error.filter(|_| was_connecting) {
            self.report(core.did(), PeerFault::NotConnected(error));
        }
    }

    /// How a search for a way came out: the one place that knows.
    pub(crate) fn note_outcome(&self, outcome: IceOutcome) {
        tracing::debug!(?outcome, "a search for a way is over");
        let gateway = Arc::clone(&self.gateway);
        self.chore(async move { gateway.note_outcome(outcome).await });
    }

    /// An ERROR that names one of these says nothing that its description's fate does not.
    pub(crate) fn note_candidate(&self, id: &str) {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    fn is_candidate(&self, id: Option<&str>) -> bool {
        let candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        id.is_some_and(|id| candidates.ids.contains(id))
    }

    /// Whether requests can go by way of the gateway.
    pub(crate) fn carries_requests(&self) -> bool {
        [MessageType::ExecRequest, MessageType::ExecResponse]
            .into_iter()
            .all(|kind| self.gateway.relays(kind))
    }

    /// Tells an agent no; `reason` as docs/webrtc.md has them. One that cannot be told has to be patient.
    pub(crate) fn refuse(&self, to: &str, id: &str, reason: &'static str) {
        let payload = refusal(ErrorCode::ConnectionRefused, "the offer is not accepted", reason);
        self.say_by_gateway(self.draft(to, payload).in_reply_to(id));
    }

    /// Sends by the gateway what nobody waits for.
    pub(crate) fn say_by_gateway(&self, draft: Draft) {
        let gateway = Arc::clone(&self.gateway);
        self.chore(async move {
            if let Err(error) = gateway.send(draft).await {
                tracing::debug!(%error, "an answer was not sent");
            }
        });
    }

    /// A message of now, by the gateway's clock.
    pub(crate) fn draft(&self, to: &str, payload: impl Into<Payload>) -> Draft {
        let mut draft = Draft::new(to, payload);
        draft.timestamp = self.gateway.now();
        draft
    }

    pub(crate) fn report(&self, from: &str, fault: PeerFault) {
        self.gateway.report(ClientError::Peer { did: from.to_owned(), fault });
    }

    /// A small task that may be left undone where too many are under way.
    fn chore(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(permit) = Arc::clone(&self.chores).try_acquire_owned() else {
            tracing::debug!("too many answers are on their way, and one is not sent");
            return;
        };
        self.spawn(async move {
            work.await;
            drop(permit);
        });
    }

    /// A task that ends with the client.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Something may be dropped, and want to say so, after its runtime has ended.
        if tokio::runtime::Handle::try_current().is_err() {
            tracing::debug!("there is no runtime for a task");
            return;
        }
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    fn begin(
        &self,
        known: &mut Known,
        id: AgentId,
        options: PeerOptions,
        begin: impl FnOnce(&mut Known) -> Begin,
    ) -> Arc<Core> {
        let key = id.key();
        let gives_way = self.identity.key() < key;
        let begin = begin(known);
        let is_outgoing = matches!(begin, Begin::Ours);
        let (core, inputs) = Core::new(self.serial(), id, options, is_outgoing);
        known.peers.insert(key, Arc::clone(&core));
        if let Some(peers) = self.own.upgrade() {
            self.spawn(Session::new(peers, Arc::clone(&core), inputs, gives_way).run(begin));
        }
        core
    }

    pub(crate) fn own(&self) -> Option<Arc<Self>> {
        self.own.upgrade()
    }

    fn serial(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts an agent that waits to be welcome, until it waits no more.
struct Undecided(Weak<Peers>);

impl Drop for Undecided {
    fn drop(&mut self) {
        if let Some(peers) = self.0.upgrade() {
            let mut known = peers.known();
            known.undecided = known.undecided.saturating_sub(1);
        }
    }
}

/// The latest ids.
#[derive(Default)]
struct Recent {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Recent {
    fn push(&mut self, id: &str) {
        if self.order.len() >= MAX_CANDIDATES
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.ids.insert(id.to_owned());
    }
}

pub(crate) fn fault_of(verdict: Verdict) -> PeerFault {
    match verdict {
        Verdict::Full => PeerFault::MemoryFull,
        Verdict::Replayed => PeerFault::Replayed,
        Verdict::Stale | Verdict::Undated | Verdict::Fresh => PeerFault::Stale,
    }
}

/// An ERROR with a reason, as docs/webrtc.md has them.
pub(crate) fn refusal(code: ErrorCode, message: &str, reason: &str) -> ErrorPayload {
    let mut details = serde_json::Map::new();
    details.insert("reason".into(), reason.into());
    ErrorPayload { code, message: message.into(), details: Some(details) }
}
