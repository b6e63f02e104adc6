//! The TLS handshake: in the connection's own task, in the connection's place, before its first request.
//!
//! What fails is counted by a reason of ours; whoever speaks plain HTTP is told so.

use std::{io, sync::Arc, time::Duration};

use conexus_plugin_api::host::Tls;
use rustls::{CertificateError, HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::socket::Socket;
use crate::{telemetry::sessions::Sessions, tls::client};

/// What a connection keeps of what the peer does not take: two records and their overhead.
const BUFFER: usize = 40 * 1024;

/// The answer to plain HTTP.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 54\r\n\r\n{\"error\":\"this is a TLS port: use wss:// or https://\"}";

/// How long somebody is listened to who was told so, and how much of it.
const TELLING: Duration = Duration::from_secs(1);
const REQUEST: u64 = 16 * 1024;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// Not a byte came: somebody looks whether the port is open, as load balancers do.
    #[error("connection was closed before it began")]
    Nothing,
    #[error("TLS handshake: {word}: {error}")]
    Handshake {
        /// By which it is counted.
        word: &'static str,
        error: io::Error,
    },
}

/// Shakes hands. Cancel-safe only as far as the connection goes with it.
pub(super) async fn shake(
    config: Arc<ServerConfig>,
    mut stream: TcpStream,
    sessions: &Sessions,
) -> Result<(Socket, Arc<Tls>), Failed> {
    let mut first = [0];
    if !matches!(stream.peek(&mut first).await, Ok(1)) {
        return Err(Failed::Nothing);
    }
    // A method's name. No record of TLS begins with a letter.
    if first[0].is_ascii_uppercase() {
        let _ = timeout(TELLING, tell(&mut stream)).await;
        let error = io::Error::other("the request is not encrypted");
        return Err(Failed::Handshake { word: "plain_http", error });
    }
    let accepting = TlsAcceptor::from(config)
        .accept_with(stream, |connection| connection.set_buffer_limit(Some(BUFFER)));
    let stream =
        accepting.await.map_err(|error| Failed::Handshake { word: word(&error), error })?;
    let tls = described(&stream);
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    sessions.tls.shaken(tls.version == "1.3", resumed);
    Ok((Socket::Tls(Box::new(stream)), Arc::new(tls)))
}

async fn tell(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN_HTTP).await?;
    stream.shutdown().await?;
    // What is left unread would make the kernel cut the answer off.
    tokio::io::copy(&mut stream.take(REQUEST), &mut tokio::io::sink()).await.map(drop)
}

fn described(stream: &TlsStream<TcpStream>) -> Tls {
    let connection = stream.get_ref().1;
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    };
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    Tls { version: version.into(), client: certificate.and_then(client::identity) }
}

fn word(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())
    else {
        return "closed";
    };
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired)
        | rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. }) => {
            "expired_certificate"
        }
        rustls::Error::InvalidCertificate(_) => "bad_certificate",
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => "incompatible",
        // It does not trust our certificate, for one.
        rustls::Error::AlertReceived(_) => "refused_by_client",
        _ => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_has_the_length_that_it_tells() {
        let text = std::str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
