//! Plain HTTP beside the WebSocket: the gateway's other routes, at the same address and by the same TLS
//! settings.
//!
//! A connection for each request: they are few, and far between. `find` and `ice` ask.

use std::{io, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::dial::Dialer;

/// A page of agents of the largest size that a gateway has, with metadata of the usual bound.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// So much of a refusal is shown.
const SHOWN: usize = 512;

/// Why one of the gateway's HTTP routes gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The token cannot stand in a header.
    #[error("the token is no bearer token")]
    Token,
    /// No TCP connection.
    #[error("cannot reach the gateway")]
    Tcp(#[source] io::Error),
    /// No TLS with the gateway.
    #[error("no tls with the gateway")]
    Tls(#[source] io::Error),
    /// The TLS settings are unusable.
    #[error("tls is not usable")]
    TlsSettings(#[source] rustls::Error),
    /// HTTP failed underneath.
    #[error("http failed")]
    Http(#[source] hyper::Error),
    /// The gateway says no: the route is closed to us (401, 403), off (404), or asked wrongly (400).
    #[error("the gateway answered with http {status}: {said}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        said: String,
    },
    /// The answer is not what such a route answers.
    #[error("the gateway's answer is malformed")]
    Answer(#[source] serde_json::Error),
    /// The answer broke off, or is larger than any should be.
    #[error("the gateway's answer is not to be had")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

type Asked = Request<Full<Bytes>>;

impl Dialer {
    /// The URL of a route that lies beside the WebSocket's.
    pub(crate) fn beside(&self, route: &str) -> Url {
        beside(self.endpoint.target_url(), route)
    }

    /// What a GET is answered, within a time.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        url: &Url,
        token: Option<&str>,
        patience: Duration,
    ) -> Result<T, HttpError> {
        let body = self.told(request(url, token, None)?, patience).await?;
        serde_json::from_slice(&body).map_err(HttpError::Answer)
    }

    /// Tells something, as JSON, within a time; the answer has nothing to say.
    #[cfg(feature = "ice")]
    pub(crate) async fn post(
        &self,
        url: &Url,
        token: &str,
        body: String,
        patience: Duration,
    ) -> Result<(), HttpError> {
        self.told(request(url, Some(token), Some(body))?, patience).await.map(drop)
    }

    /// What a request is answered that is granted.
    async fn told(&self, request: Asked, patience: Duration) -> Result<Bytes, HttpError> {
        let answer = timeout(patience, self.ask(request)).await;
        let (status, body) = answer.unwrap_or(Err(HttpError::Timeout(patience)))?;
        if !status.is_success() {
            return Err(HttpError::Refused { status: status.as_u16(), said: said(&body) });
        }
        Ok(body)
    }

    async fn ask(&self, request: Asked) -> Result<(StatusCode, Bytes), HttpError> {
        let tcp = self.tcp().await.map_err(HttpError::Tcp)?;
        if !self.endpoint.is_tls() {
            return exchange(tcp, request).await;
        }
        let config = self.tls_config().map_err(HttpError::TlsSettings)?;
        let name = self
            .endpoint
            .server_name()
            .map_err(|error| HttpError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(HttpError::Tls)?;
        exchange(tls, request).await
    }

    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
        match &self.tls {
            Some(config) => Ok(Arc::clone(config)),
            None => crate::tls::default_config(),
        }
    }
}

fn beside(websocket: &Url, route: &str) -> Url {
    let mut url = websocket.clone();
    let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    url.set_path(&format!("{folder}/{route}"));
    url.set_query(None);
    url
}

/// A GET, or a POST where there is a body, which is JSON.
fn request(url: &Url, token: Option<&str>, body: Option<String>) -> Result<Asked, HttpError> {
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut builder = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("conexus-client/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| HttpError::Token)?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    if body.is_some() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    let body = body.map(Full::from).unwrap_or_default();
    // What a URL has in it can stand in a request.
    Ok(builder.body(body).expect("a request of a url's parts"))
}

async fn exchange<S>(stream: S, request: Asked) -> Result<(StatusCode, Bytes), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::Http)?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(HttpError::Http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        Ok((status, body.map_err(HttpError::Body)?.to_bytes()))
    };
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        // First, since a connection may end with its answer.
        biased;
        answer = &mut asked => answer,
        ended = connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(HttpError::Http(error)),
        },
    }
}

/// What a refusal says, for people: the gateway's JSON has it in `error`.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Fault {
        error: String,
    }
    let text = match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => fault.error,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).trim().to_owned(),
    };
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_and_hides_its_token() {
        let url = "ws://a.example:81/agents?x=1".parse().unwrap();
        let request = request(&url, Some("t"), None).unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "/agents?x=1");
        assert_eq!(request.headers()[HOST], "a.example:81");
        assert!(!format!("{request:?}").contains("Bearer t"));
        let wrong = super::request(&url, Some("a\nb"), None);
        assert!(matches!(wrong, Err(HttpError::Token)));
        let post = super::request(&url, Some("t"), Some("{}".to_owned())).unwrap();
        assert_eq!(post.method(), Method::POST);
        assert_eq!(post.headers()[CONTENT_TYPE], "application/json");
    }

    #[test]
    fn what_a_gateway_says_is_read_out_of_its_json_and_bounded() {
        assert_eq!(said(br#"{"error":"limit: must be at least 1"}"#), "limit: must be at least 1");
        assert_eq!(said(b" plain \n"), "plain");
        assert_eq!(said("é".repeat(1000).as_bytes()).chars().count(), 256);
    }

    #[test]
    fn other_routes_lie_beside_the_websockets() {
        for (websocket, route) in [
            ("ws://a:8000/ws", "/ice"),
            ("wss://a/ws", "/ice"),
            ("wss://a", "/ice"),
            ("wss://a/gateway/ws?x=1", "/gateway/ice"),
        ] {
            let url = beside(&websocket.parse().unwrap(), "ice");
            assert_eq!(&url[url::Position::BeforePath..], route, "{websocket}");
        }
    }
}
