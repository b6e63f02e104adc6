//! One registered connection: its socket, and what is unwritten and unanswered on it.
//!
//! The link ends with its connection; whatever waits on it is told so by being dropped,
//! and the next connection starts with nothing of the old one's. The driver serves it.

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use conexus_protocol::{
    AgentKey, Draft, Message, MessageType, Payload, Ping, REFERENCE_GATEWAY_DID, Unregister,
};
use futures_util::{Sink, SinkExt, StreamExt, future::poll_fn};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message as Frame,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "p2p")]
use crate::incoming::Incoming;
use crate::{
    ClientError, Close, Loss, Refusal, Session,
    dial::Socket,
    dispatch::{Event, EventQueue},
    error::{WsError, is_plain_end},
    incoming::{Origin, Trust},
    pace::Pace,
    pending::{Answer, Pending},
    shared::Shared,
    watching::link::LinkWatches,
};

/// Sends that wait for the driver; more of them wait in their callers.
const COMMANDS: usize = 64;

/// Take no more messages while this much waits for the kernel.
const UNWRITTEN: usize = 64 * 1024;

/// How long the answer to a close frame may take to get out.
const CLOSE_REPLY: Duration = Duration::from_secs(1);

/// A signed message that is to be written. No `Debug`: a REGISTER may hold credentials.
pub(crate) struct Outgoing {
    pub(crate) text: String,
    pub(crate) written: oneshot::Sender<()>,
    pub(crate) expects: Option<Expectation>,
}

/// Who waits for the answer to a message.
pub(crate) struct Expectation {
    pub(crate) id: String,
    pub(crate) peer: Option<AgentKey>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// Why serving a link ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The user wants to close.
    Stopped,
    Lost(Loss),
}

enum SocketEvent {
    Written,
    Frame(Frame),
    Failed(WsError),
    Ended,
}

/// A registered connection.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Socket,
    session: Arc<Session>,
    trust: Trust,
    /// What came before REGISTERED.
    early: Vec<String>,
    commands: mpsc::Receiver<Outgoing>,
    sender: Option<mpsc::Sender<Outgoing>>,
    pending: Pending,
    watches: LinkWatches,
    #[cfg(feature = "p2p")]
    peers: Arc<crate::p2p::peers::Peers>,
    pace: Pace,
    unwritten: Vec<oneshot::Sender<()>>,
    unwritten_bytes: usize,
}

impl Link {
    pub(crate) fn new(
        socket: Socket,
        session: Session,
        trust: Trust,
        early: Vec<String>,
        shared: &Shared,
    ) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS);
        Self {
            socket,
            trust,
            early,
            commands,
            sender: Some(sender),
            pending: Pending::new(session.subprotocol),
            watches: LinkWatches::new(Arc::clone(&shared.watches), &session),
            #[cfg(feature = "p2p")]
            peers: Arc::clone(&shared.peers),
            pace: Pace::new(session.heartbeat),
            unwritten: Vec::new(),
            unwritten_bytes: 0,
            session: Arc::new(session),
        }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Where to put messages; to be had once.
    pub(crate) fn take_sender(&mut self) -> Option<mpsc::Sender<Outgoing>> {
        self.sender.take()
    }

    /// Reads and writes until the connection is lost or `stopping` says so.
    pub(crate) async fn serve(
        &mut self,
        shared: &Shared,
        events: &mut EventQueue,
        stopping: &CancellationToken,
    ) -> Ended {
        for text in std::mem::take(&mut self.early) {
            self.receive(&text, events);
        }
        if let Err(error) = self.follow(shared) {
            return Ended::Lost(Loss::Socket(Box::new(error)));
        }
        loop {
            let reading = events.keeps_up();
            let writing = self.unwritten_bytes > 0;
            let has_room = self.has_room();
            let check = self.pace.next_check(reading);
            // Fair on purpose: neither a chatty gateway nor busy senders may starve the other.
            tokio::select! {
                () = stopping.cancelled() => return Ended::Stopped,
                event = next(&mut self.socket, writing, reading) => {
                    if let Err(loss) = self.socket_event(event, events).await {
                        return Ended::Lost(loss);
                    }
                }
                Some(outgoing) = self.commands.recv(), if has_room => {
                    if let Err(error) = self.write(outgoing) {
                        return Ended::Lost(Loss::Socket(Box::new(error)));
                    }
                }
                () = self.watches.changed(), if has_room => {
                    if let Err(error) = self.follow(shared) {
                        return Ended::Lost(Loss::Socket(Box::new(error)));
                    }
                }
                () = events.hand_over(), if !reading => {
                    if events.keeps_up() {
                        self.pace.heard();
                    }
                }
                () = sleep_until(check) => {
                    if let Err(loss) = self.check_pace(shared, reading) {
                        return Ended::Lost(loss);
                    }
                }
            }
        }
    }

    /// UNREGISTER and a close frame, then what still comes until the gateway is done.
    pub(crate) async fn farewell(mut self, shared: &Shared, events: &mut EventQueue) {
        let patience = shared.config.close_timeout;
        let done = timeout(patience, async {
            let goodbye = Draft::new(self.gateway_did(), Unregister { reason: None });
            self.put(goodbye.sign(shared.identity()))?;
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            Pin::new(&mut self.socket).start_send(Frame::Close(Some(frame)))?;
            let mut writing = true;
            loop {
                match next(&mut self.socket, writing, true).await {
                    SocketEvent::Written => {
                        writing = false;
                        self.written();
                    }
                    SocketEvent::Frame(Frame::Text(text)) if events.keeps_up() => {
                        self.receive(&text, events);
                    }
                    SocketEvent::Frame(Frame::Text(_)) => {
                        tracing::warn!("a message that arrived during close was dropped");
                    }
                    // The gateway's goodbye; ours is in the buffer at least.
                    SocketEvent::Frame(Frame::Close(_)) => return self.socket.flush().await,
                    SocketEvent::Frame(_) => {}
                    SocketEvent::Failed(error) => return Err(error),
                    SocketEvent::Ended => return Ok(()),
                }
            }
        });
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the socket failed while closing"),
            Err(_) => tracing::debug!(?patience, "the gateway did not close in time"),
        }
    }

    async fn socket_event(
        &mut self,
        event: SocketEvent,
        events: &mut EventQueue,
    ) -> Result<(), Loss> {
        match event {
            SocketEvent::Written => self.written(),
            SocketEvent::Frame(frame) => {
                self.pace.heard();
                match frame {
                    Frame::Text(text) => self.receive(&text, events),
                    Frame::Binary(bytes) => events.push(ClientError::BinaryFrame(bytes.len())),
                    Frame::Close(frame) => return Err(self.closed(frame).await),
                    Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => {}
                }
            }
            SocketEvent::Failed(error) => return Err(Loss::Socket(Box::new(error))),
            SocketEvent::Ended => return Err(Loss::Ended),
        }
        Ok(())
    }

    fn receive(&mut self, text: &str, events: &mut EventQueue) {
        let incoming = match self.trust.judge(text) {
            Ok(incoming) => incoming,
            Err(error) => return events.push(error),
        };
        let Some(unclaimed) = self.pending.claim(incoming) else { return };
        #[cfg(feature = "p2p")]
        let Some(unclaimed) = self.offer_to_peers(unclaimed) else { return };
        let message = unclaimed.message;
        if let Some(refusal) = Refusal::read(&message) {
            if unclaimed.origin == Origin::Gateway && self.watches.refused(&refusal) {
                return;
            }
            return events.push(ClientError::Refused(Box::new(refusal)));
        }
        match message.kind() {
            // To a heartbeat, or too late for its `ping`; or to a REGISTER nobody waits for.
            MessageType::Pong | MessageType::Registered | MessageType::Challenge => {}
            // Only the gateway's gets this far.
            MessageType::Presence if self.is_watched(&message) => {}
            _ => events.push(Event::Message(Arc::new(message))),
        }
    }

    /// Peers' messages go to them, ahead of the handlers and without waiting; others are told back.
    #[cfg(feature = "p2p")]
    fn offer_to_peers(&self, incoming: Incoming) -> Option<Incoming> {
        let Incoming { message, origin } = incoming;
        let key = match origin {
            Origin::Agent(key) if !self.may_be_gateways(&message) => Some(key),
            Origin::Agent(_) | Origin::Gateway => None,
        };
        let left = self.peers.claim(message, key, |message| self.trust.prove(message));
        left.map(|message| Incoming { message, origin })
    }

    /// The gateway's key is not known on `ioap.v1`. An id is known to its recipient alone, so nobody else
    /// can pose as the gateway by it.
    #[cfg(feature = "p2p")]
    fn may_be_gateways(&self, message: &Message) -> bool {
        self.session.subprotocol == conexus_protocol::Subprotocol::V1
            && message.kind() == MessageType::Error
    }

    fn is_watched(&mut self, message: &Message) -> bool {
        matches!(&message.payload, Payload::Presence(presence) if self.watches.told(presence))
    }

    /// Asks the gateway to tell of those who are to be watched now.
    fn follow(&mut self, shared: &Shared) -> Result<(), WsError> {
        for (payload, list) in self.watches.difference() {
            let draft = Draft::new(self.gateway_did(), payload);
            self.put(draft.sign(shared.identity()))?;
            self.watches.asked(draft.id, list);
        }
        Ok(())
    }

    async fn closed(&mut self, frame: Option<CloseFrame>) -> Loss {
        // The library has queued the reply. The connection is over, whatever becomes of it.
        let _ = timeout(CLOSE_REPLY, self.socket.flush()).await;
        Loss::Closed(close_of(frame))
    }

    fn check_pace(&mut self, shared: &Shared, reading: bool) -> Result<(), Loss> {
        self.pace.verdict(reading)?;
        if self.pace.is_ping_due() {
            let ping = Draft::new(self.gateway_did(), Payload::Ping(Ping { sequence: None }));
            self.put(ping.sign(shared.identity())).map_err(|e| Loss::Socket(Box::new(e)))?;
            self.pace.pinged();
        }
        Ok(())
    }

    fn write(&mut self, outgoing: Outgoing) -> Result<(), WsError> {
        if let Some(Expectation { id, peer, answer }) = outgoing.expects {
            self.pending.insert(id, peer, answer);
        }
        self.put(outgoing.text)?;
        self.unwritten.push(outgoing.written);
        Ok(())
    }

    fn put(&mut self, text: String) -> Result<(), WsError> {
        self.unwritten_bytes += text.len();
        Pin::new(&mut self.socket).start_send(Frame::text(text))?;
        self.pace.said();
        Ok(())
    }

    /// The kernel has everything.
    fn written(&mut self) {
        self.unwritten_bytes = 0;
        self.pace.written();
        for written in self.unwritten.drain(..) {
            // Fails when the sender does not wait any more.
            let _ = written.send(());
        }
    }

    fn has_room(&self) -> bool {
        self.unwritten_bytes < UNWRITTEN && self.unwritten.len() < COMMANDS
    }

    fn gateway_did(&self) -> String {
        let gateway = self.session.gateway.as_ref();
        gateway.map_or(REFERENCE_GATEWAY_DID, |gateway| gateway.as_str()).to_owned()
    }
}

/// Flushes and reads at the same time: a gateway that does not read until we do must not
/// block us. Cancel-safe, all progress is kept in the socket.
async fn next(socket: &mut Socket, writing: bool, reading: bool) -> SocketEvent {
    poll_fn(|cx| {
        if writing && let Poll::Ready(flushed) = Pin::new(&mut *socket).poll_flush(cx) {
            return Poll::Ready(
                flushed.map_or_else(SocketEvent::Failed, |()| SocketEvent::Written),
            );
        }
        if reading && let Poll::Ready(frame) = socket.poll_next_unpin(cx) {
            return Poll::Ready(match frame {
                Some(Ok(frame)) => SocketEvent::Frame(frame),
                Some(Err(error)) if !is_plain_end(&error) => SocketEvent::Failed(error),
                Some(Err(_)) | None => SocketEvent::Ended,
            });
        }
        Poll::Pending
    })
    .await
}

pub(crate) fn close_of(frame: Option<CloseFrame>) -> Close {
    match frame {
        Some(frame) => Close { code: frame.code.into(), reason: frame.reason.to_string() },
        // RFC 6455, 7.1.5: the code of a close frame that has none.
        None => Close { code: 1005, reason: String::new() },
    }
}
