//! A WebRTC stack in memory: connections find each other by their descriptions, and break when told to.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use conexus_protocol::IceCandidate;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::p2p::transport::{
    CandidateKind, CandidateProtocol, Connection, ConnectionConfig, ConnectionEvent, PathState,
    PathStats, RawChannel, RawChannelEvent, RawChannelOptions, RawMessage, Transport,
    TransportError,
};

/// The network that all connections share.
#[derive(Debug, Default)]
pub(crate) struct Net {
    connections: Mutex<HashMap<u64, Weak<FakeConnection>>>,
    next: AtomicU64,
    /// No ways are found.
    pub(crate) is_blocked: AtomicBool,
    /// Own offers cannot be taken back.
    pub(crate) refuses_rollback: AtomicBool,
}

impl Net {
    pub(crate) fn transport(self: &Arc<Self>) -> Arc<dyn Transport> {
        Arc::new(FakeTransport(Arc::clone(self)))
    }

    fn all(&self) -> Vec<Arc<FakeConnection>> {
        self.connections.lock().unwrap().values().filter_map(Weak::upgrade).collect()
    }

    /// How many connections there are that were not closed.
    pub(crate) fn count(&self) -> usize {
        self.all().iter().filter(|one| one.state().path != PathState::Closed).count()
    }

    /// All ways are interrupted, or fail.
    pub(crate) fn interrupt(&self, path: PathState) {
        for one in self.all() {
            one.enter(path);
        }
    }

    /// Ways that were interrupted are back by themselves.
    pub(crate) fn heal(&self) {
        for one in self.all() {
            if one.state().path == PathState::Disconnected {
                one.enter(PathState::Connected);
            }
        }
    }
}

#[derive(Debug)]
struct FakeTransport(Arc<Net>);

impl Transport for FakeTransport {
    fn connect(
        &self,
        _: ConnectionConfig,
        events: mpsc::Sender<ConnectionEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>, TransportError>> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new_cyclic(|own| FakeConnection {
            own: own.clone(),
            id,
            net: Arc::clone(&self.0),
            events,
            state: Mutex::new(State {
                generation: 0,
                offering: false,
                remote: None,
                candidates: 0,
                path: PathState::New,
            }),
            control: FakeChannel::new(
                "conexus",
                RawChannelOptions {
                    ordered: true,
                    reliability: None,
                    protocol: "ioap.v1.1".into(),
                    negotiated: Some(0),
                },
            ),
            others: Mutex::default(),
        });
        self.0.connections.lock().unwrap().insert(id, Arc::downgrade(&connection));
        async move { Ok(connection as Arc<dyn Connection>) }.boxed()
    }
}

#[derive(Debug)]
struct State {
    generation: u64,
    offering: bool,
    /// Whose description was applied, and of which generation.
    remote: Option<(u64, u64)>,
    candidates: usize,
    path: PathState,
}

#[derive(Debug)]
struct FakeConnection {
    own: Weak<Self>,
    id: u64,
    net: Arc<Net>,
    events: mpsc::Sender<ConnectionEvent>,
    state: Mutex<State>,
    control: Arc<FakeChannel>,
    others: Mutex<Vec<Arc<FakeChannel>>>,
}

fn failed(what: &'static str, why: &str) -> TransportError {
    TransportError { what, why: why.into() }
}

impl FakeConnection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(&self, event: ConnectionEvent) {
        let _ = self.events.try_send(event);
    }

    fn enter(&self, path: PathState) {
        let mut state = self.state();
        if state.path != path && state.path != PathState::Closed {
            state.path = path;
            drop(state);
            self.tell(ConnectionEvent::State(path));
        }
    }

    fn describe(&self) -> String {
        let generation = self.state().generation;
        let mut candidate =
            IceCandidate { candidate: format!("candidate:{}", self.id), ..IceCandidate::default() };
        self.tell(ConnectionEvent::Candidate(candidate.clone()));
        candidate.candidate.clear();
        self.tell(ConnectionEvent::Candidate(candidate));
        format!("fake {} {generation}", self.id)
    }

    fn apply(&self, sdp: &str) -> Result<(), TransportError> {
        let mut words = sdp.split(' ').skip(1).map(|word| word.parse().ok());
        let remote = words.next().flatten().zip(words.next().flatten());
        let mut state = self.state();
        state.remote = Some(remote.ok_or_else(|| failed("apply a description", sdp))?);
        state.candidates = 0;
        Ok(())
    }

    fn try_connect(&self) {
        let Some((remote, _)) = self.state().remote else { return };
        let other = self.net.connections.lock().unwrap().get(&remote).and_then(Weak::upgrade);
        let Some(other) = other else { return };
        let fits = |one: &Self, other: &Self| {
            let generation = other.state().generation;
            let state = one.state();
            !state.offering && state.remote == Some((other.id, generation)) && state.candidates > 0
        };
        let is_blocked = self.net.is_blocked.load(Ordering::Relaxed);
        if is_blocked || !fits(self, &other) || !fits(&other, self) {
            return;
        }
        for one in [self, &other] {
            one.enter(PathState::Connected);
        }
        FakeChannel::join(&self.control, &other.control);
    }
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        self.control.end();
        for channel in self.others.lock().unwrap().drain(..) {
            channel.end();
        }
        self.net.connections.lock().unwrap().remove(&self.id);
    }
}

impl Connection for FakeConnection {
    fn offer(&self, restart: bool) -> BoxFuture<'_, Result<String, TransportError>> {
        {
            let mut state = self.state();
            state.generation += u64::from(restart);
            state.offering = true;
        }
        let sdp = self.describe();
        async { Ok(sdp) }.boxed()
    }

    fn answer(&self, sdp: String) -> BoxFuture<'_, Result<String, TransportError>> {
        let answered = if self.state().offering {
            Err(failed("answer", "an own offer waits"))
        } else {
            let is_restart = self.state().remote.is_some();
            self.apply(&sdp).map(|()| {
                self.state().generation += u64::from(is_restart);
                self.describe()
            })
        };
        async { answered }.boxed()
    }

    fn answered(&self, sdp: String) -> BoxFuture<'_, Result<(), TransportError>> {
        let applied = self.apply(&sdp);
        self.state().offering = false;
        async { applied }.boxed()
    }

    fn rollback(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        let refuses = self.net.refuses_rollback.load(Ordering::Relaxed);
        if !refuses {
            self.state().offering = false;
        }
        async move { if refuses { Err(failed("roll back", "told so")) } else { Ok(()) } }.boxed()
    }

    fn add_candidate(&self, candidate: IceCandidate) -> BoxFuture<'_, Result<(), TransportError>> {
        if !candidate.candidate.is_empty() {
            self.state().candidates += 1;
        }
        self.try_connect();
        async { Ok(()) }.boxed()
    }

    fn control(&self) -> Arc<dyn RawChannel> {
        Arc::clone(&self.control) as Arc<dyn RawChannel>
    }

    fn open_channel(
        &self,
        label: String,
        options: RawChannelOptions,
    ) -> BoxFuture<'_, Result<Arc<dyn RawChannel>, TransportError>> {
        let ours = FakeChannel::new(&label, options.clone());
        let theirs = FakeChannel::new(&label, options);
        let remote = self.state().remote;
        let connections = self.net.connections.lock().unwrap();
        let other = remote.and_then(|(id, _)| connections.get(&id).and_then(Weak::upgrade));
        drop(connections);
        let opened = other.ok_or_else(|| failed("open a channel", "nobody is there"));
        let opened = opened.map(|other| {
            self.others.lock().unwrap().push(Arc::clone(&ours));
            other.others.lock().unwrap().push(Arc::clone(&theirs));
            FakeChannel::join(&ours, &theirs);
            other.tell(ConnectionEvent::Channel(theirs));
            ours as Arc<dyn RawChannel>
        });
        async { opened }.boxed()
    }

    fn path(&self) -> BoxFuture<'_, Option<PathStats>> {
        let is_there = self.state().path == PathState::Connected;
        let stats = PathStats {
            local: CandidateKind::Host,
            remote: CandidateKind::Host,
            protocol: CandidateProtocol::Udp,
            round_trip: None,
            bytes_sent: 0,
            bytes_received: 0,
        };
        async move { is_there.then_some(stats) }.boxed()
    }

    fn max_message_size(&self) -> usize {
        65_536
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let own = self.own.upgrade();
        self.enter(PathState::Closed);
        async move {
            if let Some(own) = own {
                own.control.end();
                for channel in own.others.lock().unwrap().drain(..) {
                    channel.end();
                }
            }
        }
        .boxed()
    }
}

#[derive(Debug)]
struct FakeChannel {
    label: String,
    options: RawChannelOptions,
    other: Mutex<Option<Weak<FakeChannel>>>,
    events: Mutex<Option<mpsc::Sender<RawChannelEvent>>>,
    receiver: Mutex<Option<mpsc::Receiver<RawChannelEvent>>>,
    ended: CancellationToken,
}

impl FakeChannel {
    fn new(label: &str, options: RawChannelOptions) -> Arc<Self> {
        let (events, receiver) = mpsc::channel(4096);
        Arc::new(Self {
            label: label.into(),
            options,
            other: Mutex::new(None),
            events: Mutex::new(Some(events)),
            receiver: Mutex::new(Some(receiver)),
            ended: CancellationToken::new(),
        })
    }

    /// Once; later calls do nothing.
    fn join(one: &Arc<Self>, other: &Arc<Self>) {
        for (one, other) in [(one, other), (other, one)] {
            let mut known = one.other.lock().unwrap();
            if known.is_none() {
                *known = Some(Arc::downgrade(other));
                drop(known);
                one.happens(RawChannelEvent::Open);
            }
        }
    }

    fn happens(&self, event: RawChannelEvent) {
        if let Some(events) = &*self.events.lock().unwrap() {
            let lost = events.try_send(event);
            let is_full = matches!(lost, Err(mpsc::error::TrySendError::Full(_)));
            assert!(!is_full, "nobody reads the channel");
        }
    }

    /// Both ends see it.
    fn end(&self) {
        let other = self.other.lock().unwrap().as_ref().and_then(Weak::upgrade);
        for channel in [Some(self), other.as_deref()].into_iter().flatten() {
            channel.happens(RawChannelEvent::Closed);
            channel.events.lock().unwrap().take();
            channel.ended.cancel();
        }
    }
}

impl RawChannel for FakeChannel {
    fn label(&self) -> &str {
        &self.label
    }

    fn options(&self) -> RawChannelOptions {
        self.options.clone()
    }

    fn events(&self) -> Option<mpsc::Receiver<RawChannelEvent>> {
        self.receiver.lock().unwrap().take()
    }

    fn send(&self, data: RawMessage) -> BoxFuture<'_, Result<(), TransportError>> {
        let other = self.other.lock().unwrap().as_ref().and_then(Weak::upgrade);
        let is_open = self.events.lock().unwrap().is_some();
        let sent = match other.filter(|_| is_open) {
            Some(other) => {
                other.happens(RawChannelEvent::Message(data));
                Ok(())
            }
            None => Err(failed("send", "the channel is closed")),
        };
        async { sent }.boxed()
    }

    fn buffered_amount(&self) -> BoxFuture<'_, usize> {
        async { 0 }.boxed()
    }

    fn drained_to(&self, _: usize) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end();
        async {}.boxed()
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        self.ended.cancelled().boxed()
    }
}
