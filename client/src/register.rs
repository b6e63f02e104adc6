//! The handshake: CHALLENGE, REGISTER, REGISTERED; on `ioap.v1` REGISTER alone.
//!
//! Each step consumes the last, so nobody registers at a gateway that has not proven its
//! identity. Called for the first connection and for each one after it.

use std::time::Duration;

use conexus_protocol::{
    AgentId, Challenge, Draft, Envelope, MessageType, Payload, Register, Registered, Rules,
    Subprotocol,
};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    Close, ConnectError, Refusal, Session, UnverifiedReason,
    dial::Socket,
    error::is_plain_end,
    incoming::{Incoming, Origin, Trust, verify},
    link::{Link, close_of},
    shared::Shared,
};

/// How long the close frame may take that follows a refusal.
const CLOSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Messages that overtake REGISTERED are kept; so many of them.
const MAX_EARLY: usize = 64;

/// Dials and registers, within the time that the builder allows.
pub(crate) async fn establish(shared: &Shared) -> Result<Link, ConnectError> {
    let limit = shared.config.connect_timeout;
    timeout(limit, async {
        let (socket, subprotocol) = shared.config.dialer.dial().await?;
        match subprotocol {
            Subprotocol::V1 => register_v1(socket, shared).await,
            Subprotocol::V1_1 => challenged(socket).await?.register(shared).await,
        }
    })
    .await
    .unwrap_or(Err(ConnectError::Timeout(limit)))
}

/// REGISTER as a v1.1 gateway wants it, at the start and to renew metadata.
pub(crate) fn register_draft(shared: &Shared, nonce: &str, register: Register) -> Draft {
    let audience = shared.config.dialer.endpoint.audience().to_owned();
    let register = Register {
        nonce: Some(nonce.to_owned()),
        audience: Some(audience),
        credentials: shared.config.credentials.clone(),
        ..register
    };
    Draft::new(shared.identity().did(), Payload::Register(register))
}

/// REGISTER with the key alone.
pub(crate) fn bare_register(shared: &Shared) -> Register {
    Register {
        public_key: shared.identity().key().base58(),
        nonce: None,
        audience: None,
        metadata: None,
        credentials: None,
    }
}

/// v1 answers nothing; a refusal arrives later, as an ERROR or a close code.
async fn register_v1(mut socket: Socket, shared: &Shared) -> Result<Link, ConnectError> {
    let mut draft = Draft::new(shared.identity().did(), Payload::Register(bare_register(shared)));
    draft.audience = Some(shared.config.dialer.endpoint.audience().to_owned());
    socket.send(Frame::text(draft.sign(shared.identity()))).await?;
    let session = Session::v1(shared.config.heartbeat);
    let trust = shared.trust(Rules::V1_COMPAT, None);
    Ok(Link::new(socket, session, trust, Vec::new(), shared))
}

/// A gateway that has proven its identity and waits for ours.
struct Challenged {
    socket: Socket,
    gateway: AgentId,
    nonce: String,
}

async fn challenged(mut socket: Socket) -> Result<Challenged, ConnectError> {
    let text = next_text(&mut socket).await?;
    let envelope = Envelope::parse(&text, Rules::V1_1).map_err(ConnectError::Malformed)?;
    let gateway = AgentId::parse(&envelope.from)
        .map_err(|error| ConnectError::UnprovenGateway(UnverifiedReason::Sender(error)))?;
    verify(&envelope, &gateway).map_err(ConnectError::UnprovenGateway)?;
    match envelope.kind {
        MessageType::Challenge => {
            let challenge: Challenge = envelope.payload().map_err(ConnectError::Malformed)?;
            Ok(Challenged { socket, gateway, nonce: challenge.nonce })
        }
        MessageType::Error => {
            let message = (&envelope).try_into().map_err(ConnectError::Malformed)?;
            match Refusal::read(&message) {
                Some(refusal) => Err(refused(socket, refusal).await),
                None => Err(out_of_turn(message.kind(), MessageType::Challenge)),
            }
        }
        other => Err(out_of_turn(other, MessageType::Challenge)),
    }
}

impl Challenged {
    async fn register(self, shared: &Shared) -> Result<Link, ConnectError> {
        let Self { mut socket, gateway, nonce } = self;
        let trust = shared.trust(Rules::V1_1, Some(gateway.clone()));
        let metadata = shared.metadata();
        let register = Register {
            metadata: (!metadata.is_empty()).then_some(metadata),
            ..bare_register(shared)
        };
        let draft = register_draft(shared, &nonce, register);
        socket.send(Frame::text(draft.sign(shared.identity()))).await?;

        let mut early = Vec::new();
        loop {
            let text = next_text(&mut socket).await?;
            match trust.judge(&text) {
                Ok(Incoming { message, origin: Origin::Gateway }) => {
                    if let Some(refusal) = Refusal::read(&message) {
                        return Err(refused(socket, refusal).await);
                    }
                    if let Payload::Registered(registered) = message.payload
                        && message.correlation_id.as_deref() == Some(&draft.id)
                    {
                        return Ok(registered_link(
                            socket,
                            (gateway, nonce, registered),
                            trust,
                            early,
                            shared,
                        ));
                    }
                }
                Ok(_) if early.len() < MAX_EARLY => early.push(text),
                Ok(other) => {
                    return Err(out_of_turn(other.message.kind(), MessageType::Registered));
                }
                Err(error) => tracing::debug!(%error, "ignored before REGISTERED"),
            }
        }
    }
}

fn registered_link(
    socket: Socket,
    (gateway, nonce, registered): (AgentId, String, Registered),
    trust: Trust,
    early: Vec<String>,
    shared: &Shared,
) -> Link {
    let session = Session::v1_1(gateway, nonce, registered, shared.config.heartbeat);
    Link::new(socket, session, trust, early, shared)
}

fn out_of_turn(got: MessageType, expected: MessageType) -> ConnectError {
    ConnectError::OutOfTurn { got: got.to_string(), expected }
}

/// The next text; the library answers pings meanwhile.
async fn next_text(socket: &mut Socket) -> Result<String, ConnectError> {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Frame::Close(frame))) => {
                return Err(ConnectError::ClosedByGateway(close_of(frame)));
            }
            Some(Ok(Frame::Binary(_))) => {
                return Err(ConnectError::OutOfTurn {
                    got: "a binary frame".into(),
                    expected: MessageType::Registered,
                });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) if !is_plain_end(&error) => return Err(error.into()),
            Some(Err(_)) | None => return Err(ConnectError::Ended),
        }
    }
}

/// The close code tells whether to come back, so it is worth a moment's wait.
async fn refused(mut socket: Socket, refusal: Refusal) -> ConnectError {
    let close = timeout(CLOSE_AFTER_REFUSAL, next_close(&mut socket)).await.ok().flatten();
    ConnectError::Refused { refusal: Box::new(refusal), close }
}

async fn next_close(socket: &mut Socket) -> Option<Close> {
    loop {
        match next_text(socket).await {
            Ok(_) => {}
            Err(error) => return error.close().cloned(),
        }
    }
}
