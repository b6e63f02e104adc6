//! What a client's handle does with peers.

use std::{future::Future, sync::Arc};

use conexus_protocol::{Intent, Message};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    AcceptOptions, IncomingPeers, IncomingRequest, Peer, PeerError, PeerOptions, RequestError,
    RequestFailure, RequestOptions, Responses,
    calls::{Calls, Whom},
    peer::connected,
    peers::Listener,
};
use crate::{
    Handle, HandlerId, Outcome,
    handlers::{Handler, async_handler, sync_handler},
};

/// Peers (feature `p2p`): other agents, connected directly. See [`p2p`](crate::p2p).
impl Handle {
    /// Connects to an agent, whose DID may be in either spelling. There is one connection for each pair of
    /// agents: an agent that is connected already is the same peer, and `options` are those that it was made with.
    ///
    /// Dropping the future ends the attempt, unless somebody else waits for it.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub async fn connect_peer(
        &self,
        did: impl AsRef<str>,
        options: PeerOptions,
    ) -> Result<Peer, PeerError> {
        let peers = &self.shared.peers;
        let core = peers.connect(did.as_ref(), options.clone())?;
        connected(core, Arc::clone(peers), &options).await
    }

    /// Calls `handler` with each agent that connects from now on, once it is connected; in place of any
    /// earlier handler or [stream](Self::accept_peers). Without either, and without a peer of that agent, OFFERs
    /// are messages like any other.
    ///
    /// Agents to which this one is connecting at the same moment are told by
    /// [`connect_peer`](Self::connect_peer) alone.
    pub fn on_peer<O: Outcome>(
        &self,
        options: AcceptOptions,
        handler: impl Fn(Peer) -> O + Send + Sync + 'static,
    ) -> HandlerId {
        self.listen(options, sync_handler(handler))
    }

    /// As [`on_peer`](Self::on_peer); each future is a task of its own, which ends with the client.
    pub fn on_peer_async<F>(
        &self,
        options: AcceptOptions,
        handler: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> HandlerId
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.listen(options, async_handler(handler))
    }

    fn listen(&self, options: AcceptOptions, handler: Handler<Peer>) -> HandlerId {
        let id = self.shared.registry.next_id();
        self.shared.peers.listen(Listener::Handler(id, options, handler));
        id
    }

    /// The agents that connect from now on, as a stream, in place of any earlier stream or
    /// [handler](Self::on_peer).
    pub fn accept_peers(&self, options: AcceptOptions) -> IncomingPeers {
        let peers = &self.shared.peers;
        let (sender, incoming) = mpsc::channel(peers.max());
        peers.listen(Listener::Stream(options, sender));
        IncomingPeers(incoming)
    }

    /// The peers that there are, those that are connecting among them.
    pub fn peers(&self) -> Vec<Peer> {
        let peers = &self.shared.peers;
        peers.all().into_iter().map(|core| Peer::new(core, Arc::clone(peers))).collect()
    }

    /// Calls `handler` with each request of another agent (EXEC_REQUEST), over a channel or by way of the gateway;
    /// what it returns is the result. Each is a task of its own, at most 64 of one agent and 1024 in all. In
    /// place of any earlier handler.
    pub fn on_request<F>(
        &self,
        handler: impl Fn(IncomingRequest) -> F + Send + Sync + 'static,
    ) -> HandlerId
    where
        F: Future<Output = Result<Value, RequestFailure>> + Send + 'static,
    {
        let id = self.shared.registry.next_id();
        self.shared.peers.calls.on_request(id, handler);
        id
    }

    /// Calls `handler` with each INTENT of another agent that answers none; what it returns is the answer. Bounds
    /// as those of [`on_request`](Self::on_request).
    pub fn on_intent<F>(&self, handler: impl Fn(Message) -> F + Send + Sync + 'static) -> HandlerId
    where
        F: Future<Output = Result<Intent, RequestFailure>> + Send + 'static,
    {
        let id = self.shared.registry.next_id();
        self.shared.peers.calls.on_intent(id, handler);
        id
    }

    /// Asks an agent to do something: directly where it is connected as a peer, else by way of the gateway, **which
    /// can read that**, where REGISTERED says that it carries requests. Else as [`Peer::request`].
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn request(
        &self,
        did: impl AsRef<str>,
        args: impl Into<Value>,
        options: RequestOptions,
    ) -> Result<Value, RequestError> {
        let peers = &self.shared.peers;
        let whom = Whom::agent(peers, did.as_ref())?;
        Calls::request(peers, whom, args.into(), options).await
    }

    /// As [`request`](Self::request), as it is done: a stream of progress and parts, whose last item is the result.
    pub fn request_stream(
        &self,
        did: impl AsRef<str>,
        args: impl Into<Value>,
        options: RequestOptions,
    ) -> Responses {
        let peers = &self.shared.peers;
        let whom = Whom::agent(peers, did.as_ref());
        Calls::stream(Arc::clone(peers), whom, args.into(), options)
    }
}
