//! One peer's life, from the first OFFER to the end: the one task that owns its connection.
//!
//! `negotiation` says which messages count, `upkeep` when the way is sought anew; this does it, one step
//! after the other, and keeps to the time-outs. Dropped at any point, it leaves the peer's state truthful.

mod arriving;
mod connecting;
mod staying;

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
        Connection, ConnectionConfig, ConnectionEvent, MAX_EVENTS, PathState, PathStats,
        TransportError,
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
    events: mpsc::Receiver<ConnectionEvent>,
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
        let gateway_was_lost = *gateway.borrow() != ConnectionState::Connected;
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
            gateway_was_lost,
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
