//! From a URL to an open WebSocket: TCP, TLS, the upgrade, the subprotocol.

use std::sync::Arc;

use conexus_protocol::Subprotocol;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        client::IntoClientRequest,
        error::{Error as WsError, ProtocolError, SubProtocolError},
        handshake::client::{Request, Response},
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::WebSocketConfig,
    },
};
use url::Host;

use crate::{ConnectError, endpoint::Endpoint, session::LARGEST_OUTGOING, tls};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The library's default of 128 KiB is allocated at once, for messages of a few hundred bytes.
const READ_BUFFER: usize = 4 * 1024;

/// Many small messages share one write to the kernel.
const WRITE_BUFFER: usize = 16 * 1024;

/// So much of an error page goes into [`ConnectError::Http`].
const SHOWN_BODY: usize = 512;

/// What dialing needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) min_protocol: Subprotocol,
    pub(crate) max_message_bytes: usize,
}

impl Dialer {
    /// An open socket, and what is spoken on it.
    pub(crate) async fn dial(&self) -> Result<(Socket, Subprotocol), ConnectError> {
        let offer = match self.min_protocol {
            Subprotocol::V1 => "ioap.v1.1, ioap.v1",
            Subprotocol::V1_1 => "ioap.v1.1",
        };
        match self.upgrade(Some(offer)).await {
            Ok((socket, response)) => Ok((socket, selected(&response))),
            Err(ConnectError::Socket(error)) if selected_none(&error) => {
                self.require(Subprotocol::V1)?;
                // The library takes "none of these" for a failure. Such a server does not care
                // for subprotocols, so it gets no offer.
                Ok((self.upgrade(None).await?.0, Subprotocol::V1))
            }
            Err(error) => Err(error),
        }
    }

    fn require(&self, offered: Subprotocol) -> Result<(), ConnectError> {
        let required = self.min_protocol;
        if offered < required {
            return Err(ConnectError::ProtocolTooOld { offered, required });
        }
        Ok(())
    }

    async fn upgrade(
        &self,
        offer: Option<&'static str>,
    ) -> Result<(Socket, Response), ConnectError> {
        let request = self.request(offer)?;
        let connector = self.connector()?;
        let stream = self.tcp().await.map_err(ConnectError::Tcp)?;
        client_async_tls_with_config(request, stream, Some(self.limits()), Some(connector))
            .await
            .map_err(refused)
    }

    fn request(&self, offer: Option<&'static str>) -> Result<Request, ConnectError> {
        let mut request = self.endpoint.target().into_client_request()?;
        if let Some(offer) = offer {
            let headers = request.headers_mut();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
        }
        Ok(request)
    }

    fn connector(&self) -> Result<Connector, ConnectError> {
        if !self.endpoint.is_tls() {
            return Ok(Connector::Plain);
        }
        let config = match &self.tls {
            Some(config) => Arc::clone(config),
            None => tls::default_config().map_err(ConnectError::Tls)?,
        };
        Ok(Connector::Rustls(config))
    }

    pub(crate) async fn tcp(&self) -> std::io::Result<TcpStream> {
        let port = self.endpoint.port();
        let stream = match self.endpoint.host() {
            Host::Domain(name) => TcpStream::connect((name.as_str(), port)).await?,
            Host::Ipv4(address) => TcpStream::connect((*address, port)).await?,
            Host::Ipv6(address) => TcpStream::connect((*address, port)).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn limits(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            // The link stops taking messages long before; this is the library's own fuse.
            .max_write_buffer_size(2 * LARGEST_OUTGOING)
            .max_message_size(Some(self.max_message_bytes))
            .max_frame_size(Some(self.max_message_bytes))
    }
}

/// The library has checked that it is one of those offered.
fn selected(response: &Response) -> Subprotocol {
    let name = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    name.and_then(|name| name.to_str().ok()).and_then(Subprotocol::parse).unwrap_or(Subprotocol::V1)
}

fn selected_none(error: &WsError) -> bool {
    let none = SubProtocolError::NoSubProtocol;
    matches!(error, WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(e)) if *e == none)
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn refused(error: WsError) -> ConnectError {
    match error {
        WsError::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let shown = &body[..body.len().min(SHOWN_BODY)];
            ConnectError::Http {
                status: response.status().as_u16(),
                body: String::from_utf8_lossy(shown).trim().to_owned(),
            }
        }
        WsError::Io(error) => match tls_error(&error) {
            Some(error) => ConnectError::TlsHandshake(error.clone()),
            None => ConnectError::Tcp(error),
        },
        error => error.into(),
    }
}
