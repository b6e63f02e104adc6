//! All peers of one client: which there are, whose OFFERs are taken, and the way from a message to its peer.
//!
//! There is one connection for each pair of keys. The link hands over what arrives ([`Peers::claim`]) and
//! never waits: each peer has a bounded queue, and what has no room there is dropped, which is as if the
//! network had. Without a listener, and without a peer of that agent, all is left to the client's handlers.

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

    // ---- What arrives ----------------------------------------------------------------------------

    /// Takes what the gateway delivered, if it is for a peer; else it is told back. `prove` checks the signature where that has
    /// not been done; `key` is none for the gateway's own messages.
    pub(crate) fn claim(
        &self,
        message: Message,
        key: Option<AgentKey>,
        prove: impl FnOnce(&Message) -> Result<(), ClientError>,
    ) -> Option<Message> {
        let is_ours = match message.kind() {
            MessageType::Error => self.is_refusal_ours(&message, key),
            MessageType::Offer | MessageType::Answer | MessageType::IceCandidate => {
                key.is_some_and(|key| self.is_signal_ours(key))
            }
            kind => key.is_some_and(|key| self.calls.would_take(kind, &message, key)),
        };
        if !is_ours {
            return Some(message);
        }
        if key.is_some()
            && let Err(error) = prove(&message)
        {
            self.gateway.report(error);
            return None;
        }
        match (message.kind(), key) {
            _ if key.is_some() && !is_for(&message, self.identity.key()) => {
                self.report(&message.from, PeerFault::NotForUs);
            }
            (MessageType::Error, key) => self.take_refusal(&message, key),
            (MessageType::Offer | MessageType::Answer | MessageType::IceCandidate, Some(key)) => {
                self.take_signal(&message, key);
            }
            (_, Some(key)) => self.calls.take(self, message, key, None),
            (_, None) => {}
        }
        None
    }

    fn is_signal_ours(&self, key: AgentKey) -> bool {
        let mut known = self.known();
        if known.listener.as_ref().is_some_and(Listener::is_gone) {
            known.listener = None;
        }
        known.peers.contains_key(&key) || known.listener.is_some()
    }

    fn is_refusal_ours(&self, message: &Message, key: Option<AgentKey>) -> bool {
        let id = message.correlation_id.as_deref();
        self.concerned(id, key).is_some()
            || (key.is_none() && self.is_candidate(id))
            || self.calls.is_concerned(id, key)
    }

    fn concerned(&self, id: Option<&str>, key: Option<AgentKey>) -> Option<Arc<Core>> {
        id?;
        let known = self.known();
        match key {
            Some(key) => known.peers.get(&key).filter(|core| core.concerns(id)).cloned(),
            None => known.peers.values().find(|core| core.concerns(id)).cloned(),
        }
    }

    fn take_refusal(&self, message: &Message, key: Option<AgentKey>) {
        let id = message.correlation_id.as_deref();
        let Some(refusal) = Refusal::read(message) else { return };
        if let Some(core) = self.concerned(id, key) {
            self.hand(&core, Input::Refusal(refusal, key.is_none()));
        } else {
            self.calls.refused(id, key, refusal);
        }
    }

    fn take_signal(&self, message: &Message, key: AgentKey) {
        let signal = match Signal::read(message, key, self.identity.key()) {
            Ok(signal) => signal,
            Err(NoSignal::NotForUs) => return self.report(&message.from, PeerFault::NotForUs),
            Err(NoSignal::OtherType) => return,
        };
        let core = self.get(key);
        if !matches!(signal.word, Word::Offer(_)) {
            // Without a peer it comes after the end.
            if let Some(core) = core {
                self.hand(&core, Input::Signal(signal));
            }
            return;
        }
        let verdict = self.judge(key, message);
        if verdict != Verdict::Fresh {
            if let Some(reason) = verdict.told() {
                self.refuse(&signal.from, &signal.id, reason);
            }
            let is_known = core.is_some_and(|core| core.concerns(Some(&signal.id)));
            if !is_known {
                self.report(&signal.from, fault_of(verdict));
            }
            return;
        }
        match (&signal.correlation_id, core) {
            (None, _) => self.first_offer(signal),
            (Some(_), Some(core)) => self.hand(&core, Input::Signal(signal)),
            (Some(_), None) => self.refuse(&signal.from, &signal.id, "unknown_connection"),
        }
    }

    /// A first OFFER, which is new and for us.
    pub(crate) fn first_offer(&self, offer: Signal) {
        let mut known = self.known();
        let standing = known.peers.get(&offer.key).cloned();
        if let Some(core) = &standing {
            if core.path() != PeerPath::Direct && !core.is_over() {
                // Ours is under way, or there is no direct way yet: the same peer takes theirs.
                drop(known);
                return self.hand(core, Input::Signal(offer));
            }
            if !core.is_newer(offer.written) {
                drop(known);
                return self.report(&offer.from, PeerFault::Outdated);
            }
        }
        let Some(listener) = known.listener.clone().filter(|_| !known.is_closing) else {
            drop(known);
            return self.refuse(&offer.from, &offer.id, "declined");
        };
        let others = known.peers.len() - usize::from(standing.is_some());
        if others >= self.max || known.undecided >= MAX_UNDECIDED || !listener.has_room() {
            drop(known);
            return self.refuse(&offer.from, &offer.id, "busy");
        }
        // It has signed by that key.
        let Ok(id) = AgentId::parse(&offer.from) else { return };
        let options = listener.options().peer.clone();
        // Made before anybody is asked, so that candidates find their peer.
        self.begin(&mut known, id, options, |known| {
            known.undecided += 1;
            let welcome = self.welcome(&offer.from, &listener);
            Begin::Theirs { offer: Box::new(offer), welcome, listener }
        });
        drop(known);
        if let Some(core) = standing
            && core.end(None)
        {
            core.closing.cancel();
            self.calls.drop_peer(core.serial, None);
        }
    }

    fn welcome(&self, did: &str, listener: &Listener) -> BoxFuture<'static, bool> {
        let undecided = Undecided(self.own.clone());
        let asked = listener.options().welcome.clone().map(|ask| (ask, did.to_owned()));
        Box::pin(async move {
            let _undecided = undecided;
            let Some((ask, did)) = asked else { return true };
            let asking = AssertUnwindSafe(async { ask(did.clone()).await }).catch_unwind();
            match timeout(WELCOME, asking).await {
                Ok(Ok(is_welcome)) => is_welcome,
                Ok(Err(_)) => {
                    tracing::warn!(%did, "what was to say whether an agent is welcome panicked");
                    false
                }
                Err(_) => {
                    tracing::warn!(%did, "whether an agent is welcome was not said in time");
                    false
                }
            }
        })
    }

    /// What a peer's control channel delivers.
    pub(crate) fn ear(&self, core: &Arc<Core>) -> Ear {
        let (peers, core) = (self.own.clone(), Arc::downgrade(core));
        Arc::new(move |message| {
            let (Some(peers), Some(core)) = (peers.upgrade(), core.upgrade()) else { return };
            if let Err(fault) = peers.calls.heard(&peers, &core, message) {
                peers.report(core.did(), fault);
            }
        })
    }

    pub(crate) fn judge(&self, key: AgentKey, message: &Message) -> Verdict {
        let now = self.gateway.now();
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.judge(key, &message.id, message.timestamp, now)
    }

    fn hand(&self, core: &Core, input: Input) {
        if !core.hand(input) {
            self.report(core.did(), PeerFault::TooFast);
        }
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
