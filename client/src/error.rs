//! What can go wrong, an enum for each occasion.
//!
//! [`ConnectError`] ends an attempt to connect, [`SendError`] is a sender's, and
//! [`ClientError`] is what error handlers hear of: all that happens to a client while
//! nobody waits for it.

use std::{io, time::Duration};

use conexus_protocol::{DidError, Malformed, MessageType, SignatureError, Subprotocol};
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::{CertificateFault, Close, ConnectionState, HandlerId, Refusal, UrlError, tls::Meaning};

pub(crate) type WsError = tokio_tungstenite::tungstenite::Error;

/// Whether the peer was simply gone, which the library calls a protocol error.
pub(crate) fn is_plain_end(error: &WsError) -> bool {
    matches!(error, WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be dialed.
    #[error("the gateway's url is unusable")]
    Url(#[from] UrlError),
    /// Credentials would cross a network unencrypted.
    #[error("credentials are sent over tls or loopback only")]
    CredentialsInTheClear,
    /// The client is connected, or about to be.
    #[error("the client is already running")]
    AlreadyRunning,
    /// Closed by its user before it was connected.
    #[error("the client was closed while connecting")]
    Closed,
    /// Dialing and registering took too long.
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    /// No TCP connection.
    #[error("cannot reach the gateway")]
    Tcp(#[source] io::Error),
    /// The TLS settings are unusable.
    #[error("tls is not usable")]
    Tls(#[source] rustls::Error),
    /// The certificates that the builder was given are unusable.
    #[error("the certificates are not usable")]
    Certificates(#[source] CertificateFault),
    /// No TLS with what answered, most often since its certificate is not trusted.
    #[error("{}", Meaning(.0))]
    TlsHandshake(#[source] rustls::Error),
    /// HTTP or WebSocket failed underneath.
    #[error("websocket failed")]
    Socket(#[source] Box<WsError>),
    /// The gateway answered the upgrade with another status.
    #[error("the gateway refused the upgrade with http {status}: {body}")]
    Http {
        /// The HTTP status.
        status: u16,
        /// The start of its body, for people.
        body: String,
    },
    /// The gateway speaks nothing as new as the builder's `min_protocol`.
    #[error("the gateway speaks {offered} and {required} is required")]
    ProtocolTooOld {
        /// What the gateway speaks.
        offered: Subprotocol,
        /// What the client insists on.
        required: Subprotocol,
    },
    /// What should be the gateway's first word is not validly signed by it.
    #[error("the gateway does not prove its identity")]
    UnprovenGateway(#[source] UnverifiedReason),
    /// The gateway's answer is no message.
    #[error("the gateway's answer is malformed")]
    Malformed(#[source] Malformed),
    /// The gateway said something else than the handshake calls for.
    #[error("the gateway said {got} where {expected} was due")]
    OutOfTurn {
        /// What came.
        got: String,
        /// What should have come.
        expected: MessageType,
    },
    /// The gateway refused REGISTER.
    #[error("registration refused")]
    Refused {
        /// The gateway's ERROR.
        #[source]
        refusal: Box<Refusal>,
        /// How it closed the connection afterwards.
        close: Option<Close>,
    },
    /// The gateway closed the connection before the registration was done.
    #[error("the gateway closed the connection")]
    ClosedByGateway(#[source] Close),
    /// No attempts are left; error handlers heard of each.
    #[error("gave up after {0} more attempts")]
    GaveUp(u32),
    /// The connection ended before the registration was done.
    #[error("the connection ended before the registration was done")]
    Ended,
}

impl ConnectError {
    /// How the gateway closed the connection, if it did.
    pub fn close(&self) -> Option<&Close> {
        match self {
            Self::Refused { close, .. } => close.as_ref(),
            Self::ClosedByGateway(close) => Some(close),
            _ => None,
        }
    }

    /// Whether another attempt cannot go better.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Url(_)
            | Self::CredentialsInTheClear
            | Self::AlreadyRunning
            | Self::Closed
            | Self::Tls(_)
            | Self::Certificates(_) => true,
            _ => self.close().is_some_and(Close::is_final),
        }
    }
}

impl From<WsError> for ConnectError {
    fn from(error: WsError) -> Self {
        Self::Socket(Box::new(error))
    }
}

/// Why a message was not sent, or not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no connection; nothing was queued.
    #[error("not connected: the client is {0}")]
    NotConnected(ConnectionState),
    /// The client itself says this, or the gateway alone may.
    #[error("{0} is not for agents to send")]
    NotSendable(MessageType),
    /// The session's protocol cannot carry it.
    #[error("the session speaks {0}, which cannot carry this")]
    Unsupported(Subprotocol),
    /// The recipient is no agent.
    #[error("the recipient is no agent's did")]
    Recipient(#[source] DidError),
    /// The message would break the schema.
    #[error("the message is malformed")]
    Invalid(#[source] Malformed),
    /// The gateway would close the connection over this.
    #[error("the message takes {bytes} bytes of at most {limit}")]
    TooLarge {
        /// The message's size on the wire.
        bytes: usize,
        /// What the gateway takes.
        limit: usize,
    },
    /// The connection broke first; whether the message got out is unknown.
    #[error("the connection broke before the outcome was known")]
    ConnectionLost,
    /// Answered with ERROR, by the gateway or by the recipient.
    #[error("refused by {}", .0.from)]
    Refused(#[source] Box<Refusal>),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Why a message does not count as its sender's word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnverifiedReason {
    /// The sender's name holds no usable key.
    #[error("the sender's did holds no usable key")]
    Sender(#[source] DidError),
    /// There is no signature.
    #[error("it is not signed")]
    Unsigned,
    /// The signature is not the sender's.
    #[error("its signature does not verify")]
    Signature(#[source] SignatureError),
    /// Only the gateway may say this.
    #[error("only the gateway may say this")]
    NotTheGateway,
}

/// How an established connection was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The gateway closed it.
    #[error("the gateway closed the connection")]
    Closed(#[source] Close),
    /// The gateway's side ended without a close frame.
    #[error("the connection ended without a close frame")]
    Ended,
    /// Nothing was heard, not even answers to our own PINGs.
    #[error("nothing heard from the gateway for {0:?}")]
    Silent(Duration),
    /// The gateway did not read.
    #[error("the gateway took nothing off the socket for {0:?}")]
    Stalled(Duration),
    /// The socket failed.
    #[error("websocket failed")]
    Socket(#[source] Box<WsError>),
}

impl Loss {
    /// How the gateway closed the connection, if it did.
    pub fn close(&self) -> Option<&Close> {
        match self {
            Self::Closed(close) => Some(close),
            _ => None,
        }
    }
}

/// What error handlers hear of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An ERROR that no [`send_confirmed`](crate::Handle::send_confirmed) waits for.
    #[error("refused by {}", .0.from)]
    Refused(#[source] Box<Refusal>),
    /// A message whose sender is not proven; no message handler saw it.
    #[error("a message that claims to be from {from} is not verified")]
    UnverifiedMessage {
        /// Who it says sent it.
        from: String,
        /// Its id.
        id: String,
        /// What is wrong with it.
        #[source]
        reason: UnverifiedReason,
    },
    /// A text that is no message.
    #[error("a malformed message arrived")]
    MalformedMessage(#[source] Malformed),
    /// A binary frame, which the protocol does not have.
    #[error("a binary frame of {0} bytes arrived")]
    BinaryFrame(usize),
    /// The connection is lost; the client reconnects unless its state says otherwise.
    #[error("the connection is lost")]
    ConnectionLost(#[source] Loss),
    /// One attempt to reconnect failed; `attempt` counts from 1, and 0 is a first connection
    /// that is retried.
    #[error("attempt {attempt} to connect failed")]
    Attempt {
        /// Which one in a row.
        attempt: u32,
        /// Why.
        #[source]
        error: ConnectError,
    },
    /// No attempts are left: the state is [`ConnectionState::Error`].
    #[error("gave up after {0} attempts to connect")]
    AttemptsExhausted(u32),
    /// A message of another agent about a connection to it, or over one, was refused, or a connection that it
    /// began did not come about.
    #[cfg(feature = "p2p")]
    #[error("a message of {did} between peers came to nothing")]
    Peer {
        /// Who sent it.
        did: String,
        /// What is wrong.
        #[source]
        fault: crate::PeerFault,
    },
    /// A handler failed or panicked; the others ran.
    #[error("handler {handler} failed")]
    Handler {
        /// Which one.
        handler: HandlerId,
        /// Its error, or the text of its panic.
        #[source]
        failure: Box<dyn std::error::Error + Send + Sync>,
    },
}
