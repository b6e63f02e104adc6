//! A gateway that does what a test tells it to.

use std::net::SocketAddr;

use conexus_client::{
    Identity, Message,
    protocol::{
        AgentId, Challenge, Draft, Envelope, ErrorCode, ErrorPayload, MessageType, Offer, Payload,
        RefusalReason, Registered, Rules,
    },
};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        self, Message as Frame,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::CloseFrame,
    },
};

use crate::soon;

pub(crate) const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// A listener with an identity.
pub(crate) struct Gateway {
    pub(crate) identity: Identity,
    pub(crate) heartbeat_ms: u64,
    pub(crate) max_message_bytes: u64,
    listener: TcpListener,
}

/// The gateway's end of a connection.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) gateway: Identity,
    /// What the client offered.
    pub(crate) offered: Option<String>,
    /// The REGISTER that was received.
    pub(crate) register: Option<Message>,
    rules: Rules,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self {
            identity: Identity::generate(),
            heartbeat_ms: 30_000,
            max_message_bytes: 65_536,
            listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address())
    }

    /// The next TCP connection, before any HTTP.
    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        soon(self.listener.accept()).await.unwrap().0
    }

    /// The next WebSocket, with this subprotocol selected.
    pub(crate) async fn accept(&self, select: Option<&'static str>) -> Peer {
        self.try_accept(select).await.unwrap()
    }

    /// As `accept`; fails when the client goes away during the upgrade.
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    pub(crate) async fn try_accept(
        &self,
        select: Option<&'static str>,
    ) -> Result<Peer, tungstenite::Error> {
        let stream = self.accept_tcp().await;
        let mut offered = None;
        let upgrade = |request: &Request, mut response: Response| {
            let header = request.headers().get("sec-websocket-protocol");
            offered = header.map(|header| header.to_str().unwrap().to_owned());
            if let Some(select) = select {
                response.headers_mut().insert("sec-websocket-protocol", select.parse().unwrap());
            }
            Ok::<_, ErrorResponse>(response)
        };
        let socket = soon(accept_hdr_async(stream, upgrade)).await?;
        let rules = if select == Some("ioap.v1.1") { Rules::V1_1 } else { Rules::V1_STRICT };
        Ok(Peer { socket, gateway: self.identity.clone(), offered, register: None, rules })
    }

    /// A whole v1.1 registration.
    pub(crate) async fn register(&self) -> Peer {
        let mut peer = self.accept(Some("ioap.v1.1")).await;
        peer.challenge().await;
        peer.receive_register().await;
        peer.send(self.registered(&peer)).await;
        peer
    }

    /// A v1 registration: REGISTER is read and answered with nothing.
    pub(crate) async fn register_v1(&self) -> Peer {
        let mut peer = self.accept(Some("ioap.v1")).await;
        peer.receive_register().await;
        peer
    }

    /// The answer to the REGISTER that `peer` received.
    pub(crate) fn registered(&self, peer: &Peer) -> Draft {
        let register = peer.register.as_ref().unwrap();
        let registered = Registered {
            session_id: "session-1".into(),
            node_id: "node-1".into(),
            presence_timeout_ms: 300_000,
            heartbeat_ms: self.heartbeat_ms,
            max_message_bytes: self.max_message_bytes,
            relay: vec![MessageType::Offer, MessageType::Answer],
            ice_servers: Vec::new(),
            server_time: "2026-01-01T00:00:00.000000Z".into(),
        };
        Draft::new(&*register.from, Payload::Registered(registered)).in_reply_to(&*register.id)
    }
}

impl Peer {
    pub(crate) fn agent(&self) -> &str {
        &self.register.as_ref().unwrap().from
    }

    pub(crate) async fn challenge(&mut self) {
        let challenge = Challenge { nonce: NONCE.into(), expires_in_ms: 10_000 };
        let to = self.gateway.did().to_owned();
        self.send(Draft::new(to, Payload::Challenge(challenge))).await;
    }

    pub(crate) async fn receive_register(&mut self) {
        let register = self.receive().await;
        assert_eq!(register.kind(), MessageType::Register);
        self.register = Some(register);
    }

    /// Signs as the gateway and sends.
    pub(crate) async fn send(&mut self, draft: Draft) {
        let text = draft.sign(&self.gateway);
        self.send_text(text).await;
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        soon(self.socket.send(Frame::text(text.into()))).await.unwrap();
    }

    /// An OFFER from an agent, validly signed.
    pub(crate) async fn deliver(&mut self, from: &Identity, sdp: &str) {
        let text = offer(self.agent(), sdp).sign(from);
        self.send_text(text).await;
    }

    /// Refuses the message with this id.
    pub(crate) async fn refuse(&mut self, id: &str, reason: RefusalReason) {
        let error = refusal(reason);
        let to = self.register.as_ref().map_or(self.gateway.did(), |r| &r.from).to_owned();
        self.send(Draft::new(to, Payload::Error(error)).in_reply_to(id)).await;
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        // The client may be quicker to leave.
        let _ = soon(self.socket.close(Some(frame))).await;
    }

    /// The next message of the client, whose signature must verify.
    pub(crate) async fn receive(&mut self) -> Message {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Frame::Text(text))) => return self.read(&text),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// Reads until the client's end is there; whether it said goodbye with a close frame.
    pub(crate) async fn ends(&mut self) -> bool {
        let mut closed = false;
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Frame::Close(_))) => closed = true,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return closed,
            }
        }
    }

    fn read(&self, text: &str) -> Message {
        let envelope = Envelope::parse(text, self.rules).unwrap();
        let sender = AgentId::parse(&envelope.from).unwrap();
        envelope.verify(sender.public_key()).unwrap();
        Message::try_from(&envelope).unwrap()
    }
}

pub(crate) fn offer(to: &str, sdp: &str) -> Draft {
    Draft::new(to, Offer { sdp: sdp.into() })
}

pub(crate) fn refusal(reason: RefusalReason) -> ErrorPayload {
    let details = json!({"reason": reason.as_str()}).as_object().cloned();
    ErrorPayload { code: reason.code(), message: "refused by the test".into(), details }
}

pub(crate) fn malformed() -> ErrorPayload {
    ErrorPayload { code: ErrorCode::MalformedMessage, message: "metadata".into(), details: None }
}

/// An OFFER's or ANSWER's text.
pub(crate) fn sdp(message: &Message) -> String {
    match &message.payload {
        Payload::Offer(offer) => offer.sdp.clone(),
        Payload::Answer(answer) => answer.sdp.clone(),
        other => format!("{:?}", other.kind()),
    }
}
