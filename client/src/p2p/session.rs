//! One peer's life, from the first OFFER to the end: the one task that owns its connection.
//!
//! `negotiation` says which messages count, `upkeep` when the way is sought anew; this does it, one step
//! after the other, and keeps to the time-outs. Dropped at any point, it leaves the peer's state truthful.

use std::{pin::pin, sync::Arc, time::Duration};

use conexus_protocol::{Answer, Draft, ErrorCode, IceCandidate, Offer, Payload, RefusalReason};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Channel, PeerPath,
    control::{self, ControlEvent},
    core::{Core, Input, Progress},
    courier::{Courier, Unsent},
    error::{PeerError, reason_of},
    negotiation::{Negotiation, Offered, OnOffer, OnRefusal},
    peers::{Listener, Peers},
    signal::{Signal, Word},
    transport::{
        Connection, ConnectionConfig, ConnectionEvent, PathState, PathStats, TransportError,
    },
    upkeep::{Due, Upkeep, pause_after},
};
use crate::{ChannelError, ConnectionState, IceOutcome, Refusal};

/// How a session begins.
pub(crate) enum Begin {
    /// With an OFFER of ours.
    Ours,
    /// With theirs, once `welcome` says true; whoever listens is then given the peer.
    Theirs { offer: Box<Signal>, welcome: BoxFuture<'static, bool>, listener: Listener },
}

/// Where it stands before it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Our OFFER waits for its ANSWER.
    Offering(Instant),
    /// Descriptions are exchanged.
    Opening(Instant),
    /// Between two attempts.
    Resting(Instant),
    /// Nothing is under way: requests go by the gateway.
    Fallback,
    Open,
}

/// A connection that we began.
struct Outgoing {
    until: Instant,
    attempt: u32,
}

/// A connection of the stack's.
struct Live {
    connection: Arc<dyn Connection>,
    events: mpsc::UnboundedReceiver<ConnectionEvent>,
    control: mpsc::Receiver<ControlEvent>,
    /// The task of the control channel.
    task: JoinSet<()>,
}

/// See the [module](self).
pub(crate) struct Session {
    peers: Arc<Peers>,
    core: Arc<Core>,
    inputs: mpsc::Receiver<Input>,
    negotiation: Negotiation,
    upkeep: Upkeep,
    phase: Phase,
    outgoing: Option<Outgoing>,
    listener: Option<Listener>,
    live: Option<Live>,
    /// When the search for a way began.
    began: Instant,
    courier: Courier,
    unsent: mpsc::Receiver<Unsent>,
    tasks: JoinSet<()>,
    /// The newest description and its candidates as they were sent, and when to send them again.
    said: Vec<Draft>,
    again: Option<Instant>,
    gateway: watch::Receiver<ConnectionState>,
    /// Whether the gateway was lost since this began: others may be on their way back to it, too.
    gateway_was_lost: bool,
    /// Whether descriptions were exchanged, and no way was found.
    found_none: bool,
}

/// The end of a session: orderly, or not.
type End = Result<(), PeerError>;

impl Session {
    pub(crate) fn new(
        peers: Arc<Peers>,
        core: Arc<Core>,
        inputs: mpsc::Receiver<Input>,
        gives_way: bool,
    ) -> Self {
        let (courier, unsent, work) = Courier::new(Arc::clone(peers.gateway()));
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        let options = &core.options;
        let mut gateway = peers.gateway().states();
        gateway.mark_unchanged();
        Self {
            negotiation: Negotiation::new(gives_way),
            upkeep: Upkeep::new(options.restarts, options.open_timeout),
            phase: Phase::Resting(Instant::now()),
            outgoing: None,
            listener: None,
            live: None,
            began: Instant::now(),
            courier,
            unsent,
            tasks,
            said: Vec::new(),
            again: None,
            gateway,
            gateway_was_lost: false,
            found_none: false,
            peers,
            core,
            inputs,
        }
    }

    /// Lives it.
    pub(crate) async fn run(mut self, begin: Begin) {
        let end = self.live(begin).await;
        let end = match end {
            // Whoever closes gets an orderly end, whatever was being done.
            _ if self.core.closing.is_cancelled() => self.close().await,
            end => end,
        };
        if let Err(error) = &end {
            tracing::debug!(peer = self.core.did(), %error, "the peer ended");
        }
        let live = self.live.take();
        self.finish(end.err());
        if let Some(live) = live {
            let _ = timeout(self.core.options.close_timeout, live.connection.close()).await;
        }
    }

    async fn live(&mut self, begin: Begin) -> End {
        match begin {
            Begin::Ours => {
                let until = Instant::now() + self.core.options.timeout;
                self.outgoing = Some(Outgoing { until, attempt: 0 });
                self.attempt().await?;
            }
            Begin::Theirs { offer, welcome, listener } => {
                let is_welcome = self.cancellable(welcome).await?;
                if !is_welcome {
                    self.peers.refuse(&offer.from, &offer.id, "declined");
                    return Err(PeerError::Closed);
                }
                self.listener = Some(listener);
                self.take_signal(*offer).await?;
            }
        }
        loop {
            let until = self.next_due();
            let is_back = self.again.is_some_and(|_| self.is_gateway_there());
            let again = self.again.filter(|_| is_back).unwrap_or(until);
            // Fair on purpose: neither a chatty peer nor a chatty stack may starve the others.
            tokio::select! {
                () = self.core.closing.cancelled() => return Ok(()),
                Some(input) = self.inputs.recv() => self.take(input).await?,
                Some((id, error)) = self.unsent.recv() => {
                    self.not_sent(&id, PeerError::Unsent(Arc::new(error))).await?;
                }
                Some(event) = next_event(&mut self.live) => {
                    if self.happened(event).await?.is_break() {
                        return Ok(());
                    }
                }
                Ok(()) = self.gateway.changed() => self.gateway_changed()?,
                () = sleep_until(until) => self.expired().await?,
                () = sleep_until(again), if is_back => self.say_again(),
            }
        }
    }

    // ---- Connecting ------------------------------------------------------------------------------

    /// Begins with an OFFER of ours.
    async fn attempt(&mut self) -> End {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.attempt += 1;
        }
        let mut draft = self.draft(Offer { sdp: String::new() });
        self.negotiation.begin_ours(draft.id.clone(), draft.timestamp);
        let made = match self.begin_connection().await {
            Ok(connection) => self.step(async move { connection.offer(false).await }).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(sdp) => {
                draft.payload = Offer { sdp }.into();
                let until = Instant::now() + self.core.options.answer_timeout;
                self.phase = Phase::Offering(until);
                self.describe(draft, until).await
            }
            Err(error) => self.attempt_failed(error).await,
        }
    }

    /// Theirs is the connection.
    async fn accept(&mut self, offer: Offered) -> End {
        let made = match self.begin_connection().await {
            Ok(connection) => {
                let sdp = offer.sdp;
                self.step(async move { connection.answer(sdp).await }).await
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(sdp) => self.answer(&offer.id, sdp).await,
            Err(error) => self.attempt_failed(error).await,
        }
    }

    async fn answer(&mut self, offer: &str, sdp: String) -> End {
        let draft = self.draft(Answer { sdp }).in_reply_to(offer);
        let until = Instant::now() + self.core.options.open_timeout;
        if self.phase != Phase::Open {
            self.phase = Phase::Opening(until);
        }
        let waited = self.negotiation.answered_theirs(draft.id.clone());
        self.describe(draft, until).await?;
        self.apply(waited).await
    }

    /// A new connection of the stack's, in place of any that there is.
    async fn begin_connection(&mut self) -> Result<Arc<dyn Connection>, PeerError> {
        self.discard();
        let peers = Arc::clone(&self.peers);
        let relay_only = self.core.options.relay_only;
        let (sender, events) = mpsc::unbounded_channel();
        let connection = self
            .step(async move {
                let ice_servers = peers.gateway().ice_servers().await;
                let config = ConnectionConfig { ice_servers, relay_only };
                peers.transport().connect(config, sender).await
            })
            .await?;
        let ear = self.peers.ear(&self.core);
        let (sayings, control, work) = control::serve(Channel::control(&connection), ear);
        let mut task = JoinSet::new();
        task.spawn(work);
        self.core.set_connection(Some(Arc::clone(&connection)));
        self.core.set_control(Some(sayings));
        self.live = Some(Live { connection: Arc::clone(&connection), events, control, task });
        Ok(connection)
    }

    /// Ends a connection that came to nothing.
    fn discard(&mut self) {
        self.said.clear();
        self.again = None;
        self.core.set_control(None);
        self.core.set_connection(None);
        let Some(mut live) = self.live.take() else { return };
        live.task.abort_all();
        let patience = self.core.options.close_timeout;
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(async move {
            let _ = timeout(patience, live.connection.close()).await;
        });
    }

    /// One attempt has come to nothing: another one, or the fallback, or the end.
    async fn attempt_failed(&mut self, error: PeerError) -> End {
        if self.core.closing.is_cancelled() {
            return Err(PeerError::Closed);
        }
        self.found_none |= matches!(error, PeerError::NoPath(_));
        let others_may_come = error.is_unknown_agent() && self.gateway_was_lost;
        let is_pointless = error.is_pointless() && !others_may_come;
        match &self.outgoing {
            _ if self.core.path() == PeerPath::Gateway => {
                self.phase = Phase::Fallback;
                Ok(())
            }
            None => {
                self.note_failure();
                Err(error)
            }
            Some(outgoing) if outgoing.attempt < self.core.options.attempts && !is_pointless => {
                let pause = pause_after(outgoing.attempt);
                tracing::debug!(peer = self.core.did(), %error, ?pause, "an attempt to connect failed");
                self.phase = Phase::Resting(Instant::now() + pause);
                Ok(())
            }
            Some(_) => self.give_up(error, is_pointless),
        }
    }

    /// No attempts, or no time, are left: by the gateway, where the application allows that.
    fn give_up(&mut self, error: PeerError, is_absent: bool) -> End {
        self.outgoing = None;
        self.note_failure();
        if !self.core.options.fallback || is_absent || !self.peers.carries_requests() {
            self.withdraw();
            return Err(error);
        }
        tracing::debug!(peer = self.core.did(), %error, "requests go by way of the gateway");
        self.phase = Phase::Fallback;
        self.core.note_connect_time(self.began.elapsed());
        self.ready(PeerPath::Gateway);
        Ok(())
    }

    /// Tells the other side that nothing will come of it.
    fn withdraw(&mut self) {
        if let Some(connection) = self.negotiation.connection() {
            self.peers.refuse(self.core.did(), connection, "withdrawn");
        }
    }

    // ---- What arrives ------------------------------------------------------------------------------

    async fn take(&mut self, input: Input) -> End {
        match input {
            Input::Signal(signal) => self.take_signal(signal).await,
            Input::Refusal(refusal, is_gateways) => self.refused(refusal, is_gateways).await,
        }
    }

    async fn take_signal(&mut self, signal: Signal) -> End {
        let correlation_id = signal.correlation_id.as_deref();
        match signal.word {
            Word::Offer(_) => self.offered(signal).await,
            Word::Answer(sdp) => match self.negotiation.answered(correlation_id) {
                true => self.answered(sdp).await,
                false => Ok(()),
            },
            Word::Candidate(candidate) => {
                let candidate = self.negotiation.candidate(correlation_id, candidate);
                self.apply(candidate.into_iter().collect()).await
            }
        }
    }

    async fn offered(&mut self, signal: Signal) -> End {
        let (Word::Offer(sdp), Some(written)) = (&signal.word, signal.written) else {
            return Ok(());
        };
        if signal.correlation_id.is_none() && self.phase == Phase::Open {
            // It opened meanwhile, so this is another peer's.
            self.peers.first_offer(signal);
            return Ok(());
        }
        let offer = Offered {
            id: signal.id.clone(),
            restarts: signal.correlation_id.clone(),
            written,
            sdp: sdp.clone(),
        };
        match self.negotiation.offered(offer) {
            OnOffer::Begin(offer) => self.accept(offer).await,
            OnOffer::Restart { offer, rollback } => self.restarted(offer, rollback).await,
            OnOffer::Unknown(id) => {
                self.peers.refuse(&signal.from, &id, "unknown_connection");
                Ok(())
            }
            OnOffer::Ignore => Ok(()),
        }
    }

    async fn answered(&mut self, sdp: String) -> End {
        let Some(connection) = self.connection() else { return Ok(()) };
        let applied = self.step(async move { connection.answered(sdp).await }).await;
        if let Err(error) = applied {
            return self.failed(error).await;
        }
        if self.phase != Phase::Open {
            self.phase = Phase::Opening(Instant::now() + self.core.options.open_timeout);
        }
        let waited = self.negotiation.described();
        self.note();
        self.apply(waited).await
    }

    /// Gives the stack candidates. One that it does not take is one way less.
    async fn apply(&mut self, candidates: Vec<IceCandidate>) -> End {
        for candidate in candidates {
            let Some(connection) = self.connection() else { return Ok(()) };
            let added = self.step(async move { connection.add_candidate(candidate).await }).await;
            match added {
                Err(PeerError::Transport(error)) => {
                    tracing::debug!(peer = self.core.did(), %error, "a candidate is ignored");
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn refused(&mut self, refusal: Refusal, is_gateways: bool) -> End {
        let names = refusal.correlation_id.as_deref();
        if is_gateways && self.phase != Phase::Open && self.is_our_answer(names) && passes(&refusal)
        {
            // Whoever offered is on its way back to the gateway, or has much to read.
            self.again.get_or_insert(Instant::now() + pause_after(1));
            return Ok(());
        }
        match self.negotiation.refused(names) {
            OnRefusal::Begin(offer) => self.accept(offer).await,
            OnRefusal::Ignore => Ok(()),
            OnRefusal::Refused if reason_of(&refusal) == Some("unknown_connection") => {
                match self.phase {
                    Phase::Open => Err(PeerError::BegunAnew),
                    _ => self.failed(PeerError::Refused(Box::new(refusal))).await,
                }
            }
            OnRefusal::Refused => self.failed(PeerError::Refused(Box::new(refusal))).await,
        }
    }

    fn is_our_answer(&self, id: Option<&str>) -> bool {
        let answer = self.said.first().filter(|draft| matches!(draft.payload, Payload::Answer(_)));
        answer.is_some_and(|draft| Some(&*draft.id) == id)
    }

    async fn not_sent(&mut self, id: &str, error: PeerError) -> End {
        match self.negotiation.refused(Some(id)) {
            OnRefusal::Begin(offer) => self.accept(offer).await,
            OnRefusal::Refused => self.failed(error).await,
            OnRefusal::Ignore => Ok(()),
        }
    }

    /// What was going on has come to nothing.
    async fn failed(&mut self, error: PeerError) -> End {
        match self.phase {
            Phase::Open if self.core.closing.is_cancelled() => Err(PeerError::Closed),
            Phase::Open => {
                self.upkeep.failed(Instant::now());
                Ok(())
            }
            _ => self.attempt_failed(error).await,
        }
    }

    // ---- What happens to the connection -----------------------------------------------------------

    async fn happened(&mut self, event: LiveEvent) -> Result<std::ops::ControlFlow<()>, PeerError> {
        use std::ops::ControlFlow::{Break, Continue};
        match event {
            LiveEvent::Stack(ConnectionEvent::Candidate(candidate)) => self.gathered(candidate),
            LiveEvent::Stack(ConnectionEvent::State(PathState::Closed))
                if self.phase == Phase::Open && self.has_said_farewell().await =>
            {
                return Ok(Break(()));
            }
            LiveEvent::Stack(ConnectionEvent::State(path)) => self.stands(path).await?,
            LiveEvent::Stack(ConnectionEvent::Channel(raw)) => {
                let connection = self.connection();
                let offered = connection.and_then(|live| self.core.channels.offered(raw, &live));
                // Dropped: then it is closed.
                if offered.is_some() {
                    tracing::debug!(
                        peer = self.core.did(),
                        "nobody takes a channel, and it is closed"
                    );
                }
            }
            LiveEvent::Control(ControlEvent::Opened) => self.opened(),
            LiveEvent::Control(ControlEvent::Ended(end)) if self.phase == Phase::Open => {
                return match end {
                    None | Some(ChannelError::Closed) => Ok(Break(())),
                    Some(error) => Err(PeerError::Broken(Arc::new(error))),
                };
            }
            LiveEvent::Control(ControlEvent::Ended(_)) => {}
            LiveEvent::Ended => {
                self.live = None;
                let error = PeerError::Lost { restarts: self.upkeep.restarts() };
                match self.phase {
                    Phase::Open => return Err(error),
                    _ => self.attempt_failed(self.no_path()).await?,
                }
            }
        }
        Ok(Continue(()))
    }

    /// Whether the other side has closed the control channel before its connection, which may be seen later.
    async fn has_said_farewell(&mut self) -> bool {
        let Some(live) = &mut self.live else { return false };
        let last = timeout(LAST_WORD, live.control.recv()).await;
        matches!(last, Ok(Some(ControlEvent::Ended(None | Some(ChannelError::Closed)))))
    }

    async fn stands(&mut self, path: PathState) -> End {
        if self.phase != Phase::Open {
            return match path {
                PathState::Failed | PathState::Closed => self.attempt_failed(self.no_path()).await,
                _ => Ok(()),
            };
        }
        self.upkeep.path(path, self.negotiation.is_initiator(), Instant::now());
        match path {
            PathState::Closed => {
                return Err(PeerError::Lost { restarts: self.upkeep.restarts() });
            }
            PathState::Connected => self.core.enter(ConnectionState::Connected),
            PathState::Disconnected | PathState::Failed => {
                self.core.enter(ConnectionState::Connecting);
            }
            PathState::New | PathState::Connecting => {}
        }
        Ok(())
    }

    fn no_path(&self) -> PeerError {
        PeerError::NoPath(self.core.options.open_timeout)
    }

    fn opened(&mut self) {
        if self.phase == Phase::Open {
            return;
        }
        self.phase = Phase::Open;
        self.said.clear();
        self.again = None;
        self.outgoing = None;
        self.core.note_connect_time(self.began.elapsed());
        self.note();
        self.ready(PeerPath::Direct);
        self.note_success();
        if let Some(listener) = self.listener.take() {
            self.peers.hand_over(listener, &self.core);
        }
    }

    fn ready(&self, path: PeerPath) {
        self.core.set_path(path);
        self.core.enter(ConnectionState::Connected);
        self.core.progress.send_replace(Progress::Ready);
    }

    /// How the search for a way came out is known here and in [`note_failure`](Self::note_failure).
    fn note_success(&mut self) {
        let Some(connection) = self.connection() else { return };
        let took = self.began.elapsed();
        let peers = Arc::clone(&self.peers);
        self.tasks.spawn(async move {
            if let Some(pair) = connection.path().await {
                let PathStats { local, remote, protocol, .. } = pair;
                peers.note_outcome(IceOutcome::Connected { local, remote, protocol, took });
            }
        });
    }

    fn note_failure(&mut self) {
        if std::mem::take(&mut self.found_none) {
            let took = self.began.elapsed();
            self.peers.note_outcome(IceOutcome::Failed { took });
        }
    }

    // ---- Staying connected -------------------------------------------------------------------------

    /// Seeks the way anew.
    async fn restart(&mut self) -> End {
        let Some(connection) = self.connection() else { return Ok(()) };
        let is_waiting = self.negotiation.is_waiting();
        let made = self
            .step(async move {
                if is_waiting {
                    // Nobody has answered the one before.
                    let _ = connection.rollback().await;
                }
                connection.offer(true).await
            })
            .await;
        self.core.note_restarts(self.upkeep.restarts());
        match (made, self.negotiation.connection()) {
            (Ok(sdp), Some(id)) => {
                let draft = self.draft(Offer { sdp }).in_reply_to(id);
                self.negotiation.restart_ours(draft.id.clone());
                let until = Instant::now() + self.core.options.open_timeout;
                self.describe(draft, until).await
            }
            (Ok(_), None) => Ok(()),
            (Err(error), _) => self.failed(error).await,
        }
    }

    /// They seek it anew.
    async fn restarted(&mut self, offer: Offered, rollback: bool) -> End {
        let Some(connection) = self.connection() else { return Ok(()) };
        let sdp = offer.sdp;
        let made = self
            .step(async move {
                if rollback {
                    connection.rollback().await?;
                }
                connection.answer(sdp).await
            })
            .await;
        match made {
            Ok(sdp) => {
                self.upkeep.answered_theirs(Instant::now());
                self.answer(&offer.id, sdp).await
            }
            Err(error) => self.failed(error).await,
        }
    }

    // ---- Time ----------------------------------------------------------------------------------------

    fn next_due(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let phase = match self.phase {
            Phase::Offering(until) | Phase::Opening(until) | Phase::Resting(until) => until,
            // Without a gateway nobody would hear of a restart.
            Phase::Open if self.is_gateway_there() || self.is_gateway_over() => {
                self.upkeep.due().unwrap_or(far)
            }
            Phase::Open | Phase::Fallback => far,
        };
        match &self.outgoing {
            Some(outgoing) => phase.min(outgoing.until),
            None => phase,
        }
    }

    async fn expired(&mut self) -> End {
        let now = Instant::now();
        let options = &self.core.options;
        if self.outgoing.as_ref().is_some_and(|outgoing| outgoing.until <= now) {
            let error = PeerError::Timeout(options.timeout);
            return self.give_up(error, false);
        }
        match self.phase {
            Phase::Offering(until) if until <= now => {
                let error = PeerError::NoAnswer(options.answer_timeout);
                self.attempt_failed(error).await
            }
            Phase::Opening(until) if until <= now => self.attempt_failed(self.no_path()).await,
            Phase::Resting(until) if until <= now => self.attempt().await,
            Phase::Open if self.is_gateway_over() => match self.upkeep.due() {
                Some(due) if due <= now => Err(PeerError::ClientClosed),
                _ => Ok(()),
            },
            Phase::Open if self.is_gateway_there() => match self.upkeep.fire(now) {
                Due::Restart => self.restart().await,
                Due::GiveUp(restarts) => Err(PeerError::Lost { restarts }),
                Due::Nothing => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn is_gateway_there(&self) -> bool {
        *self.gateway.borrow() == ConnectionState::Connected
    }

    /// It does not come back, and nobody else introduces the two.
    fn is_gateway_over(&self) -> bool {
        *self.gateway.borrow() == ConnectionState::Error
    }

    /// What the gateway was given just before it was lost may be lost, too.
    fn gateway_changed(&mut self) -> End {
        let state = *self.gateway.borrow_and_update();
        match state {
            ConnectionState::Connected if self.is_saying() => self.again = Some(Instant::now()),
            ConnectionState::Connected => {}
            ConnectionState::Error if !matches!(self.phase, Phase::Open) => {
                return Err(PeerError::ClientClosed);
            }
            _ => self.gateway_was_lost = true,
        }
        Ok(())
    }

    /// Whether something waits for the other side's word.
    fn is_saying(&self) -> bool {
        self.gateway_was_lost
            && match self.phase {
                Phase::Offering(_) | Phase::Opening(_) => true,
                Phase::Open => self.upkeep.is_seeking(),
                Phase::Resting(_) | Phase::Fallback => false,
            }
    }

    // ---- Saying ----------------------------------------------------------------------------------------

    fn draft(&self, payload: impl Into<Payload>) -> Draft {
        let mut draft = Draft::new(self.core.did(), payload);
        draft.timestamp = self.peers.gateway().now();
        draft
    }

    /// Sends a description; candidates follow it.
    async fn describe(&mut self, draft: Draft, until: Instant) -> End {
        self.note();
        self.said = vec![draft.clone()];
        self.again = None;
        if self.courier.send(draft, until) {
            return Ok(());
        }
        self.failed(PeerError::NoAnswer(self.core.options.answer_timeout)).await
    }

    fn gathered(&mut self, candidate: IceCandidate) {
        let Some(connection) = self.negotiation.connection() else { return };
        let draft = self.draft(candidate).in_reply_to(connection);
        self.peers.note_candidate(&draft.id);
        if self.said.len() <= MAX_SAID {
            self.said.push(draft.clone());
        }
        self.courier.try_send(draft, Instant::now() + self.core.options.open_timeout);
    }

    /// The same messages, by their own ids: whoever has them already knows.
    fn say_again(&mut self) {
        self.again = None;
        let until = Instant::now() + self.core.options.answer_timeout;
        for draft in &self.said {
            self.courier.try_send(draft.clone(), until);
        }
    }

    /// Others need to know which messages are about this connection.
    fn note(&self) {
        self.core.note(self.negotiation.names(), self.negotiation.begun());
    }

    // ---- The end ---------------------------------------------------------------------------------------

    /// Orderly: what was handed over is sent, the channels are closed, then the connection.
    async fn close(&mut self) -> End {
        if self.core.is_over() {
            // Another connection has taken its place.
            return Ok(());
        }
        self.core.enter(ConnectionState::Disconnecting);
        if self.phase != Phase::Open {
            self.withdraw();
            return Ok(());
        }
        let channels = self.core.channels.close();
        // The control channel is closed when the last of its senders is gone.
        self.core.set_control(None);
        let live = self.live.as_mut();
        let done = async {
            channels.await;
            if let Some(live) = live {
                live.task.join_next().await;
            }
        };
        if timeout(self.core.options.close_timeout, done).await.is_err() {
            tracing::debug!(peer = self.core.did(), "the channels did not close in time");
        }
        Ok(())
    }

    fn finish(&mut self, error: Option<PeerError>) {
        let was_connecting = self.listener.is_some();
        if self.core.end(error.clone()) {
            self.peers.ended(&self.core, error, was_connecting);
        }
    }

    // ---- Steps -----------------------------------------------------------------------------------------

    fn connection(&self) -> Option<Arc<dyn Connection>> {
        self.live.as_ref().map(|live| Arc::clone(&live.connection))
    }

    /// Something of the stack's, which may take as long as a way may take to open.
    async fn step<T>(
        &self,
        step: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, PeerError> {
        let patience = self.core.options.open_timeout;
        let step = pin!(step);
        match self.cancellable(timeout(patience, step)).await? {
            Ok(Ok(made)) => Ok(made),
            Ok(Err(error)) => Err(PeerError::Transport(error)),
            Err(_) => Err(PeerError::NoPath(patience)),
        }
    }

    async fn cancellable<T>(&self, future: impl Future<Output = T>) -> Result<T, PeerError> {
        tokio::select! {
            () = self.core.closing.cancelled() => Err(PeerError::Closed),
            done = future => Ok(done),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.finish(Some(PeerError::ClientClosed));
    }
}

/// How much later than the end of its connection that of the control channel may be seen.
const LAST_WORD: Duration = Duration::from_millis(250);

/// Messages that may have to be sent again.
const MAX_SAID: usize = 256;

/// Whether the gateway's refusal may pass by itself.
fn passes(refusal: &Refusal) -> bool {
    refusal.code == ErrorCode::UnknownAgent
        || matches!(
            refusal.reason,
            Some(RefusalReason::QueueFull | RefusalReason::RateLimited | RefusalReason::Draining)
        )
}

enum LiveEvent {
    Stack(ConnectionEvent),
    Control(ControlEvent),
    Ended,
}

/// What happens next to a connection; never while there is none. Cancel-safe.
async fn next_event(live: &mut Option<Live>) -> Option<LiveEvent> {
    let live = match live {
        Some(live) => live,
        None => std::future::pending().await,
    };
    Some(tokio::select! {
        event = live.events.recv() => event.map_or(LiveEvent::Ended, LiveEvent::Stack),
        Some(event) = live.control.recv() => LiveEvent::Control(event),
    })
}
