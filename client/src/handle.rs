//! The everyday face of a client: sending, asking, listening.
//!
//! A handle is cheap to clone and owns nothing: when its [`Client`](crate::Client) is closed
//! or dropped, it merely says so. Handlers may hold one.

use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};

use conexus_protocol::{
    AgentKey, Draft, Envelope, Identity, Message, MessageType, Metadata, Payload, Ping,
    REFERENCE_GATEWAY_DID, Subprotocol,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use crate::{
    ClientError, ConnectionState, HandlerId, Messages, Outcome, SendError, Session, Watch,
    handlers::{async_handler, sync_handler},
    ice::Known,
    link::{Expectation, Outgoing},
    register::{bare_register, register_draft},
    shared::{Online, Shared},
};

/// Sends through a client and registers its handlers. Cheap to clone; keeps nothing alive.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("did", &self.did()).field("state", &self.state()).finish()
    }
}

/// Who one is, and how one stands with the gateway.
impl Handle {
    /// This agent's DID.
    pub fn did(&self) -> &str {
        self.identity().did()
    }

    /// This agent's keys.
    pub fn identity(&self) -> &Identity {
        self.shared.identity()
    }

    /// The state at this moment.
    pub fn state(&self) -> ConnectionState {
        *self.shared.state.borrow()
    }

    /// The state as it changes. A watch shows the latest only; state handlers see each one.
    pub fn states(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.subscribe()
    }

    /// What the gateway said at registration; none while there is no connection.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.shared.online.borrow().as_ref().map(|online| Arc::clone(&online.session))
    }
}

/// Sending. All of these are checked before they are sent, and fail at once while there is no
/// connection: nothing is queued for later. A future dropped half-way leaves open whether its
/// message was sent.
impl Handle {
    /// Signs and sends a message; returns its id once the socket has accepted it.
    ///
    /// That the gateway could not deliver it is told to the error handlers later
    /// ([`ClientError::Refused`]); to wait for an answer there is
    /// [`send_confirmed`](Self::send_confirmed).
    ///
    /// # Errors
    ///
    /// Any [`SendError`] but `Refused` and `Timeout`.
    pub async fn send(
        &self,
        to: impl Into<String>,
        payload: impl Into<Payload>,
    ) -> Result<String, SendError> {
        self.send_draft(Draft::new(to, payload)).await
    }

    /// Answers a message: to its sender, with its id as correlation id.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn reply(
        &self,
        message: &Message,
        payload: impl Into<Payload>,
    ) -> Result<String, SendError> {
        self.send_draft(Draft::new(&*message.from, payload).in_reply_to(&*message.id)).await
    }

    /// As [`send`](Self::send), for a message whose envelope matters.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_draft(&self, draft: Draft) -> Result<String, SendError> {
        let online = self.online()?;
        check_sendable(&draft)?;
        let text = self.sign(&draft, &online)?;
        self.shared.watches.note_by_hand(&draft.payload);
        self.write(&online, text, None).await?;
        Ok(draft.id)
    }

    /// Sends a message and waits for what its recipient or the gateway answers, by default
    /// for the builder's request timeout.
    ///
    /// The answer is whatever has the message's id as its correlation id; it reaches no
    /// handler and no stream. Answers are read ahead of the handlers' queue, so this may be
    /// called in a handler, as long as the others do not fill the queue meanwhile.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`] when the answer is an ERROR, and any other [`SendError`].
    pub async fn send_confirmed(
        &self,
        to: impl Into<String>,
        payload: impl Into<Payload>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Message, SendError> {
        let draft = Draft::new(to, payload);
        check_sendable(&draft)?;
        let peer = AgentKey::parse_did(&draft.to).ok();
        self.ask(&self.online()?, draft, peer, timeout.into()).await
    }

    /// PINGs the gateway and returns how long the PONG took.
    ///
    /// # Errors
    ///
    /// As [`send_confirmed`](Self::send_confirmed).
    pub async fn ping(&self) -> Result<Duration, SendError> {
        let online = self.online()?;
        let gateway = online.session.gateway.as_ref();
        let to = gateway.map_or(REFERENCE_GATEWAY_DID, |gateway| gateway.as_str());
        let draft = Draft::new(to, Payload::Ping(Ping { sequence: None }));
        let start = Instant::now();
        self.ask(&online, draft, None, None).await?;
        Ok(start.elapsed())
    }

    /// Replaces what this agent publishes about itself, now and at each later registration.
    ///
    /// # Errors
    ///
    /// [`SendError::Unsupported`] on `ioap.v1`, which has no metadata; else as
    /// [`send_confirmed`](Self::send_confirmed). On an error the old metadata stays.
    pub async fn update_metadata(&self, metadata: Metadata) -> Result<(), SendError> {
        let online = self.online()?;
        let Some(nonce) = &online.session.nonce else {
            return Err(SendError::Unsupported(online.session.subprotocol));
        };
        // Sent even when it is empty: that is how it is taken back.
        let mut register = bare_register(&self.shared);
        register.metadata = Some(metadata.clone());
        let draft = register_draft(&self.shared, nonce, register);
        let answer = self.ask(&online, draft, None, None).await?;
        if let Payload::Registered(renewed) = answer.payload {
            online.session.note_ice(Known::registered(renewed.ice_servers, &renewed.server_time));
        }
        self.shared.set_metadata(metadata);
        Ok(())
    }

    /// Closes the client: UNREGISTER, a close frame, and word of the end, all within the
    /// builder's close timeout. Handlers may be busy still when this returns;
    /// [`Client::close`](crate::Client::close) waits for them.
    pub async fn close(&self) {
        #[cfg(feature = "p2p")]
        self.shared.peers.close().await;
        let stop = self.shared.stop();
        stop.requested.cancel();
        stop.done.cancelled().await;
    }

    fn online(&self) -> Result<Online, SendError> {
        let online = self.shared.online.borrow().clone();
        online.ok_or_else(|| SendError::NotConnected(self.state()))
    }

    fn sign(&self, draft: &Draft, online: &Online) -> Result<String, SendError> {
        let text = draft.sign(self.identity());
        Envelope::parse(&text, online.session.own_rules()).map_err(SendError::Invalid)?;
        let limit = online.session.max_message_bytes;
        if text.len() > limit {
            return Err(SendError::TooLarge { bytes: text.len(), limit });
        }
        Ok(text)
    }

    async fn ask(
        &self,
        online: &Online,
        draft: Draft,
        peer: Option<AgentKey>,
        patience: Option<Duration>,
    ) -> Result<Message, SendError> {
        let text = self.sign(&draft, online)?;
        self.shared.watches.note_by_hand(&draft.payload);
        let (answer, answered) = oneshot::channel();
        let expects = Expectation { id: draft.id, peer, answer };
        let patience = patience.unwrap_or(self.shared.config.request_timeout);
        timeout(patience, async {
            self.write(online, text, Some(expects)).await?;
            let answer = answered.await.map_err(|_| SendError::ConnectionLost)?;
            answer.map_err(SendError::Refused)
        })
        .await
        .unwrap_or(Err(SendError::Timeout(patience)))
    }

    /// Returns once the kernel has it.
    async fn write(
        &self,
        online: &Online,
        text: String,
        expects: Option<Expectation>,
    ) -> Result<(), SendError> {
        let (written, accepted) = oneshot::channel();
        let outgoing = Outgoing { text, written, expects };
        let queued = online.outgoing.send(outgoing).await;
        queued.map_err(|_| SendError::NotConnected(self.state()))?;
        accepted.await.map_err(|_| SendError::ConnectionLost)
    }
}

/// Watching.
impl Handle {
    /// Watches other agents: tells the state of each, then when they come and go.
    ///
    /// A DID may be in either spelling, and is told in the spelling given here. Watches of the same
    /// agent share what they ask of the gateway. While there is no connection nothing is told; from
    /// the next one on it is.
    ///
    /// # Errors
    ///
    /// [`SendError::Recipient`] for what is no agent's DID, [`SendError::Unsupported`] when the
    /// session speaks `ioap.v1`, [`SendError::NotConnected`] once the client was closed, was dropped or
    /// gave up, unless it connects anew. What the gateway refuses, and a later connection that speaks
    /// `ioap.v1`, is told by the watch itself, for each agent.
    pub fn watch<D: AsRef<str>>(
        &self,
        dids: impl IntoIterator<Item = D>,
    ) -> Result<Watch, SendError> {
        let mut agents: Vec<(AgentKey, String)> = Vec::new();
        let mut known = HashSet::new();
        for did in dids {
            let did = did.as_ref();
            let key = AgentKey::parse_did(did).map_err(SendError::Recipient)?;
            if known.insert(key) {
                agents.push((key, did.to_owned()));
            }
        }
        match self.session() {
            Some(session) if session.subprotocol == Subprotocol::V1 => {
                Err(SendError::Unsupported(session.subprotocol))
            }
            _ => {
                let watch = self.shared.watches.watch(agents);
                watch.ok_or_else(|| SendError::NotConnected(self.state()))
            }
        }
    }
}

/// Listening. Handlers run one after the other, in the order of their registration, on a task
/// of their own. One that fails or panics harms no other; error handlers hear of it.
impl Handle {
    /// Calls `handler` with each verified message that is not an awaited answer. An ERROR is
    /// no message in this sense: error handlers hear of it.
    pub fn on_message<O: Outcome>(
        &self,
        handler: impl Fn(&Message) -> O + Send + Sync + 'static,
    ) -> HandlerId {
        self.shared.registry.add_message_handler(sync_handler(move |m: Arc<Message>| handler(&m)))
    }

    /// As [`on_message`](Self::on_message); the next event waits for the future's end.
    pub fn on_message_async<F>(
        &self,
        handler: impl Fn(Arc<Message>) -> F + Send + Sync + 'static,
    ) -> HandlerId
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.shared.registry.add_message_handler(async_handler(handler))
    }

    /// Calls `handler` with each error that no caller is told of.
    pub fn on_error<O: Outcome>(
        &self,
        handler: impl Fn(&ClientError) -> O + Send + Sync + 'static,
    ) -> HandlerId {
        self.shared.registry.add_error_handler(sync_handler(move |e: Arc<ClientError>| handler(&e)))
    }

    /// As [`on_error`](Self::on_error); the next event waits for the future's end.
    pub fn on_error_async<F>(
        &self,
        handler: impl Fn(Arc<ClientError>) -> F + Send + Sync + 'static,
    ) -> HandlerId
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.shared.registry.add_error_handler(async_handler(handler))
    }

    /// Calls `handler` with each state that the client enters, none left out.
    pub fn on_state<O: Outcome>(
        &self,
        handler: impl Fn(ConnectionState) -> O + Send + Sync + 'static,
    ) -> HandlerId {
        self.shared.registry.add_state_handler(sync_handler(handler))
    }

    /// As [`on_state`](Self::on_state); the next event waits for the future's end.
    pub fn on_state_async<F>(
        &self,
        handler: impl Fn(ConnectionState) -> F + Send + Sync + 'static,
    ) -> HandlerId
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.shared.registry.add_state_handler(async_handler(handler))
    }

    /// Removes a handler; whether it was there. It may be running still.
    pub fn remove_handler(&self, handler: HandlerId) -> bool {
        #[cfg(feature = "p2p")]
        if self.shared.peers.remove_handler(handler) {
            return true;
        }
        self.shared.registry.remove(handler)
    }

    /// The messages that message handlers see, as a stream, from now on.
    pub fn messages(&self) -> Messages {
        let (sender, receiver) = mpsc::channel(self.shared.config.inbound_queue);
        self.shared.registry.add_stream(sender);
        Messages(receiver)
    }
}

/// Whether an agent may send this, and to whom it says.
fn check_sendable(draft: &Draft) -> Result<(), SendError> {
    match draft.payload.kind() {
        kind @ (MessageType::Register
        | MessageType::Unregister
        | MessageType::Challenge
        | MessageType::Registered
        | MessageType::Presence) => Err(SendError::NotSendable(kind)),
        // Meant for the gateway, whatever `to` says.
        MessageType::Ping | MessageType::Pong | MessageType::Watch | MessageType::Unwatch => Ok(()),
        _ => AgentKey::parse_did(&draft.to).map(drop).map_err(SendError::Recipient),
    }
}
