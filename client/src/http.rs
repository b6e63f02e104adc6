//! Plain HTTP beside the WebSocket: a GET of one of the gateway's other routes, with the same TLS.
//!
//! A connection for each request: they are few, and far between.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Host;

use crate::{dial::Dialer, tls};

/// No answer is read that is larger.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// So much of an answer that is none of ours goes into [`HttpError::Refused`].
const SHOWN_BODY: usize = 512;

/// Why one of the gateway's HTTP routes gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection.
    #[error("cannot reach the gateway")]
    Unreachable(#[source] io::Error),
    /// The TLS settings are unusable.
    #[error("tls is not usable")]
    Tls(#[source] rustls::Error),
    /// HTTP failed, or the answer was too large.
    #[error("http failed")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The gateway said no.
    #[error("the gateway refused with http {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said, for people.
        message: String,
    },
    /// The answer is none.
    #[error("the gateway's answer is malformed")]
    Malformed(#[source] serde_json::Error),
}

impl HttpError {
    fn http(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Http(error.into())
    }
}

impl Dialer {
    /// What a route beside the WebSocket's answers: `ice` is `/ice` where that is `/ws`. A bearer
    /// token is sent as it is.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        route: &str,
        bearer: Option<&str>,
        patience: Duration,
    ) -> Result<T, HttpError> {
        let answered = timeout(patience, self.get_unbounded(route, bearer)).await;
        let (status, body) = answered.unwrap_or(Err(HttpError::Timeout(patience)))?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(HttpError::Malformed)
    }

    async fn get_unbounded(
        &self,
        route: &str,
        bearer: Option<&str>,
    ) -> Result<(StatusCode, Bytes), HttpError> {
        let url = self.endpoint.beside(route).map_err(HttpError::http)?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let mut request = Request::get(path)
            .header(HOST, self.endpoint.authority())
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(HttpError::http)?;
        if let Some(token) = bearer {
            let mut value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(HttpError::http)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let stream = self.tcp().await.map_err(HttpError::Unreachable)?;
        if !self.endpoint.is_tls() {
            return exchange(stream, request).await;
        }
        let config = match &self.tls {
            Some(config) => Arc::clone(config),
            None => tls::default_config().map_err(HttpError::Tls)?,
        };
        let name = match self.endpoint.host() {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(HttpError::http)?,
            Host::Ipv4(address) => ServerName::IpAddress((*address).into()),
            Host::Ipv6(address) => ServerName::IpAddress((*address).into()),
        };
        let connecting = TlsConnector::from(config).connect(name, stream);
        exchange(connecting.await.map_err(HttpError::Unreachable)?, request).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), HttpError> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::http)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(HttpError::http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        Ok((status, body.collect().await.map_err(HttpError::Http)?.to_bytes()))
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        // Its end is no failure where all has arrived.
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(HttpError::http(error)),
        },
    }
}

/// The gateway's own words where they are JSON, else the beginning of whatever came.
fn refused(status: StatusCode, body: &[u8]) -> HttpError {
    #[derive(serde::Deserialize)]
    struct Fault {
        error: String,
    }
    let message = match serde_json::from_slice(body) {
        Ok(Fault { error }) => error,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(SHOWN_BODY)]).trim().to_owned(),
    };
    HttpError::Refused { status: status.as_u16(), message }
}
