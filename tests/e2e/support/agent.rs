//! An agent that speaks the protocol by hand, so that a test sees and sends every byte.

use std::net::SocketAddr;

use conexus_protocol::{
    Challenge, Draft, Envelope, ErrorCode, ErrorPayload, Identity, MessageType, Metadata, Offer,
    Payload, Ping, Register, Registered, Rules, Subprotocol,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, client::IntoClientRequest, http::Response, protocol::WebSocketConfig,
    },
};

use super::{gateway::TestGateway, soon};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket, offering subprotocols, and says which one was chosen.
pub(crate) async fn dial(
    addr: SocketAddr,
    subprotocols: &[&str],
) -> Result<(Socket, Option<String>), Box<Error>> {
    dial_with(addr, subprotocols, TcpSocket::new_v4().unwrap()).await
}

/// As [`dial`], over a socket whose options the test has set.
pub(crate) async fn dial_with(
    addr: SocketAddr,
    subprotocols: &[&str],
    socket: TcpSocket,
) -> Result<(Socket, Option<String>), Box<Error>> {
    let stream = soon("a connection", socket.connect(addr)).await.map_err(Error::Io)?;
    dial_over(stream, subprotocols, &[]).await
}

/// As [`dial`], over a connection that is there already, with further headers.
pub(crate) async fn dial_over(
    stream: TcpStream,
    subprotocols: &[&str],
    headers: &[(&'static str, &str)],
) -> Result<(Socket, Option<String>), Box<Error>> {
    let addr = stream.peer_addr().map_err(Error::Io)?;
    let stream = MaybeTlsStream::Plain(stream);
    upgrade(&format!("ws://{addr}/ws"), subprotocols, headers, stream).await
}

/// As [`dial_over`], with or without TLS.
pub(crate) async fn upgrade(
    url: &str,
    subprotocols: &[&str],
    headers: &[(&'static str, &str)],
    stream: MaybeTlsStream<TcpStream>,
) -> Result<(Socket, Option<String>), Box<Error>> {
    let mut request = url.into_client_request().unwrap();
    if !subprotocols.is_empty() {
        let offer = subprotocols.join(", ").parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", offer);
    }
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let opened = client_async_with_config(request, stream, Some(config));
    let (socket, response): (Socket, Response<_>) = soon("the upgrade", opened).await?;
    let chosen = response.headers().get("Sec-WebSocket-Protocol");
    Ok((socket, chosen.map(|name| name.to_str().unwrap().to_owned())))
}

/// An ERROR as the tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) correlation_id: Option<String>,
    pub(crate) code: ErrorCode,
    pub(crate) reason: Option<String>,
    pub(crate) member: Option<String>,
}

/// A connection, registered or not.
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) socket: Socket,
    pub(crate) subprotocol: Subprotocol,
    /// What came in CHALLENGE, on v1.1.
    pub(crate) nonce: Option<String>,
    pub(crate) url: String,
}

impl Agent {
    /// Connects without registering; on v1.1 the CHALLENGE has been read.
    pub(crate) async fn connect(gateway: &TestGateway, subprotocol: Subprotocol) -> Self {
        Self::connect_as(gateway, subprotocol, Identity::generate()).await
    }

    pub(crate) async fn connect_as(
        gateway: &TestGateway,
        subprotocol: Subprotocol,
        identity: Identity,
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        Self::connect_over(gateway, subprotocol, identity, socket).await
    }

    pub(crate) async fn connect_over(
        gateway: &TestGateway,
        subprotocol: Subprotocol,
        identity: Identity,
        socket: TcpSocket,
    ) -> Self {
        Self::connect_at(gateway.addr, subprotocol, identity, socket).await
    }

    /// To a gateway that is known by its address alone.
    pub(crate) async fn connect_at(
        addr: SocketAddr,
        subprotocol: Subprotocol,
        identity: Identity,
        socket: TcpSocket,
    ) -> Self {
        let opened = dial_with(addr, &[subprotocol.as_str()], socket).await.unwrap();
        Self::upgraded(addr, subprotocol, identity, opened).await
    }

    /// Over a WebSocket that is open: it and the subprotocol that was chosen.
    pub(crate) async fn upgraded(
        addr: SocketAddr,
        subprotocol: Subprotocol,
        identity: Identity,
        opened: (Socket, Option<String>),
    ) -> Self {
        Self::begun(format!("ws://{addr}/ws"), subprotocol, identity, opened).await
    }

    /// Over a connection that is there.
    pub(crate) async fn connect_on(
        stream: MaybeTlsStream<TcpStream>,
        url: String,
        subprotocol: Subprotocol,
        identity: Identity,
    ) -> Self {
        let opened = upgrade(&url, &[subprotocol.as_str()], &[], stream).await.unwrap();
        Self::begun(url, subprotocol, identity, opened).await
    }

    async fn begun(
        url: String,
        subprotocol: Subprotocol,
        identity: Identity,
        (socket, chosen): (Socket, Option<String>),
    ) -> Self {
        assert_eq!(chosen.as_deref(), Some(subprotocol.as_str()));
        let mut agent = Self { identity, socket, subprotocol, nonce: None, url };
        if subprotocol == Subprotocol::V1_1 {
            let text = agent.text().await;
            let challenge = Envelope::parse(&text, Rules::V1_1).unwrap();
            assert_eq!(challenge.kind, MessageType::Challenge);
            assert_eq!(challenge.to, challenge.from, "addressed to the gateway itself");
            agent.nonce = Some(challenge.payload::<Challenge>().unwrap().nonce);
        }
        agent
    }

    /// A registered agent on `ioap.v1`.
    pub(crate) async fn v1(gateway: &TestGateway) -> Self {
        Self::registered(gateway, Subprotocol::V1).await
    }

    /// A registered agent on `ioap.v1.1`.
    pub(crate) async fn v1_1(gateway: &TestGateway) -> Self {
        Self::registered(gateway, Subprotocol::V1_1).await
    }

    pub(crate) async fn registered(gateway: &TestGateway, subprotocol: Subprotocol) -> Self {
        Self::registered_as(gateway, subprotocol, Identity::generate()).await
    }

    pub(crate) async fn registered_as(
        gateway: &TestGateway,
        subprotocol: Subprotocol,
        identity: Identity,
    ) -> Self {
        let mut agent = Self::connect_as(gateway, subprotocol, identity).await;
        agent.register().await;
        agent
    }

    /// What this agent's REGISTER says, for a test to change.
    pub(crate) fn registration(&self) -> Register {
        let v1_1 = self.subprotocol == Subprotocol::V1_1;
        Register {
            public_key: self.identity.key().base58(),
            nonce: self.nonce.clone(),
            audience: v1_1.then(|| self.url.clone()),
            metadata: None,
            credentials: None,
        }
    }

    /// Registers and waits until the gateway has taken it.
    pub(crate) async fn register(&mut self) -> Option<Registered> {
        let register = self.registration();
        self.register_with(register).await
    }

    pub(crate) async fn register_with(&mut self, register: Register) -> Option<Registered> {
        let draft = Draft::new(self.did(), register);
        self.send(draft.sign(&self.identity)).await;
        if self.subprotocol == Subprotocol::V1 {
            // A v1 REGISTER is answered with nothing; a PONG behind it tells that it was taken.
            self.ping().await;
            return None;
        }
        let text = self.text().await;
        let answer = Envelope::parse(&text, Rules::V1_1).unwrap();
        assert_eq!(answer.kind, MessageType::Registered, "{text}");
        assert_eq!(answer.correlation_id.as_deref(), Some(draft.id.as_str()));
        Some(answer.payload().unwrap())
    }

    pub(crate) fn with_metadata(&self, metadata: Metadata) -> Register {
        Register { metadata: Some(metadata), ..self.registration() }
    }

    pub(crate) fn did(&self) -> String {
        self.identity.did().to_owned()
    }

    /// Signs a payload for somebody.
    pub(crate) fn sign(&self, to: &str, payload: impl Into<Payload>) -> (String, String) {
        let draft = Draft::new(to, payload);
        let text = draft.sign(&self.identity);
        (draft.id, text)
    }

    /// A signed OFFER: its id and its text.
    pub(crate) fn offer(&self, to: &str, sdp: &str) -> (String, String) {
        self.sign(to, Offer { sdp: sdp.to_owned() })
    }

    /// Sends a text frame as it is.
    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        let sent = self.socket.send(Message::text(text.into()));
        soon("a frame to be sent", sent).await.unwrap();
    }

    pub(crate) async fn send_frame(&mut self, frame: Message) {
        soon("a frame to be sent", self.socket.send(frame)).await.unwrap();
    }

    /// Sends an OFFER and returns its id and text.
    pub(crate) async fn send_offer(&mut self, to: &str, sdp: &str) -> (String, String) {
        let (id, text) = self.offer(to, sdp);
        self.send(text.clone()).await;
        (id, text)
    }

    /// The next frame that is not a WebSocket ping or pong.
    pub(crate) async fn frame(&mut self) -> Result<Message, Error> {
        soon("a frame", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(frame) => return frame,
                    None => return Err(Error::ConnectionClosed),
                }
            }
        })
        .await
    }

    /// The next text.
    pub(crate) async fn text(&mut self) -> String {
        match self.frame().await {
            Ok(Message::Text(text)) => text.to_string(),
            other => panic!("expected a text, got {other:?}"),
        }
    }

    fn rules(&self) -> Rules {
        match self.subprotocol {
            Subprotocol::V1 => Rules::V1_STRICT,
            Subprotocol::V1_1 => Rules::V1_1,
        }
    }

    /// The next message, which must be an ERROR of the gateway with a valid signature.
    pub(crate) async fn refusal(&mut self) -> Refusal {
        let text = self.text().await;
        self.read_refusal(&text)
    }

    /// The next message, which must be an ERROR of the gateway, and its text for people.
    pub(crate) async fn refusal_and_words(&mut self) -> (Refusal, String) {
        let text = self.text().await;
        let envelope = Envelope::parse(&text, self.rules()).unwrap();
        let error: ErrorPayload = envelope.payload().unwrap();
        (self.read_refusal(&text), error.message)
    }

    /// Reads what must be an ERROR of the gateway with a valid signature.
    pub(crate) fn read_refusal(&self, text: &str) -> Refusal {
        assert!(text.len() <= 1024, "an ERROR of {} bytes", text.len());
        let envelope = Envelope::parse(text, self.rules()).unwrap();
        assert_eq!(envelope.kind, MessageType::Error, "{text}");
        let gateway = conexus_protocol::AgentId::parse(&envelope.from).unwrap();
        envelope.verify(gateway.public_key()).unwrap();
        let error: ErrorPayload = envelope.payload().unwrap();
        let detail = |name: &str| error.details.as_ref()?.get(name)?.as_str().map(str::to_owned);
        Refusal {
            correlation_id: envelope.correlation_id.as_deref().map(str::to_owned),
            code: error.code,
            reason: detail("reason"),
            member: detail("member"),
        }
    }

    /// The next frame, which must be a close: code and reason.
    pub(crate) async fn close(&mut self) -> (u16, String) {
        match self.frame().await {
            Ok(Message::Close(Some(frame))) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("expected a close, got {other:?}"),
        }
    }

    /// A PING and its PONG: whatever was sent before has been judged.
    pub(crate) async fn ping(&mut self) {
        let (id, text) = self.sign("did:key:gateway", Ping { sequence: None });
        self.send(text).await;
        let text = self.text().await;
        let envelope = Envelope::parse(&text, self.rules()).unwrap();
        assert_eq!(envelope.kind, MessageType::Pong, "{text}");
        assert_eq!(envelope.correlation_id.as_deref(), Some(id.as_str()));
    }
}
