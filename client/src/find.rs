//! Finding other agents: the gateway's `GET /agents`, page by page.
//!
//! It is asked over HTTP on a connection of its own, at the address and by the TLS settings of the
//! WebSocket, so it works before a client is connected, too.

use std::{sync::Arc, time::Duration};

use conexus_protocol::Metadata;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::{Handle, dial::Dialer};

/// A page of the largest size that a gateway has, with metadata of the usual bound.
const LARGEST_PAGE: usize = 64 * 1024 * 1024;

/// So much of a refusal is shown.
const SHOWN: usize = 512;

/// Whom to look for: who has all that is asked for. Matches are exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentQuery {
    /// Publishes this capability.
    pub capability: Option<String>,
    /// Publishes this name.
    pub name: Option<String>,
    /// Has this label with this value, from the gateway's policy. The gateway's `http.agents_labels`
    /// must allow to search by it.
    pub label: Option<(String, String)>,
    /// At most so many on a page; the gateway has a bound of its own.
    pub limit: Option<usize>,
    /// Where to go on: [`AgentPage::next`] of the page before.
    pub cursor: Option<String>,
    /// The bearer token of a gateway whose list takes one. It is sent to a gateway over TLS or on
    /// loopback only.
    pub token: Option<String>,
}

/// An agent that is present, as the gateway's list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FoundAgent {
    /// Its DID, in the spelling that it registered with.
    pub did: String,
    /// Since when it is connected, as a timestamp.
    pub connected_at: String,
    /// When something came from it last, as a timestamp.
    pub last_activity: String,
    /// What it speaks, such as `ioap.v1.1`; not every gateway says.
    #[serde(default)]
    pub subprotocol: Option<String>,
    /// What it publishes about itself.
    #[serde(default)]
    pub metadata: Metadata,
}

/// A page of the list, in the order of the agents' keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct AgentPage {
    /// The agents on it.
    pub agents: Vec<FoundAgent>,
    /// How many there are on all pages.
    #[serde(default)]
    pub count: u64,
    /// The cursor of the next page; none on the last one.
    #[serde(default, rename = "next_cursor")]
    pub next: Option<String>,
}

/// Why nobody could be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The token would cross a network unencrypted.
    #[error("a token is sent over tls or loopback only")]
    TokenInTheClear,
    /// The token cannot stand in a header.
    #[error("the token is no bearer token")]
    Token,
    /// No TCP connection.
    #[error("cannot reach the gateway")]
    Tcp(#[source] std::io::Error),
    /// No TLS with the gateway.
    #[error("no tls with the gateway")]
    Tls(#[source] std::io::Error),
    /// The TLS settings are unusable.
    #[error("tls is not usable")]
    TlsSettings(#[source] rustls::Error),
    /// HTTP failed underneath.
    #[error("http failed")]
    Http(#[source] hyper::Error),
    /// The list is closed to us, off (404), or the question is wrong (400): the gateway says.
    #[error("the gateway answered with http {status}: {said}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        said: String,
    },
    /// The answer is no list of agents.
    #[error("the gateway's answer is no list of agents")]
    Answer(#[source] serde_json::Error),
    /// The answer broke off, or is larger than any list should be.
    #[error("the gateway's answer is not to be had")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gateway gives the same page again.
    #[error("the gateway repeats a page")]
    Endless,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Finding.
impl Handle {
    /// One page of the agents that are present and have what is asked for.
    ///
    /// Needs no registration, and no connection: it asks on one of its own, by the client's TLS
    /// settings, and for at most the builder's request timeout.
    ///
    /// # Errors
    ///
    /// [`FindError`].
    pub async fn find(&self, query: &AgentQuery) -> Result<AgentPage, FindError> {
        let config = &self.shared.config;
        let patience = config.request_timeout;
        let page = timeout(patience, ask(&config.dialer, query));
        page.await.unwrap_or(Err(FindError::Timeout(patience)))
    }

    /// All of them, page by page as they are read. Whoever is there from the first page to the last
    /// is in it once. Ends with the first error.
    pub fn find_all(
        &self,
        query: AgentQuery,
    ) -> impl Stream<Item = Result<FoundAgent, FindError>> + Send + use<> {
        let state = Some((self.clone(), query, Vec::new().into_iter()));
        stream::unfold(state, async |state| {
            let (handle, mut query, mut page) = state?;
            loop {
                if let Some(agent) = page.next() {
                    return Some((Ok(agent), Some((handle, query, page))));
                }
                // The last page was read.
                if query.limit == Some(0) {
                    return None;
                }
                match handle.find(&query).await {
                    Err(error) => return Some((Err(error), None)),
                    Ok(next) if next.next.is_some() && next.next == query.cursor => {
                        return Some((Err(FindError::Endless), None));
                    }
                    Ok(next) => {
                        page = next.agents.into_iter();
                        match next.next {
                            Some(cursor) => query.cursor = Some(cursor),
                            None => query.limit = Some(0),
                        }
                    }
                }
            }
        })
    }
}

async fn ask(dialer: &Dialer, query: &AgentQuery) -> Result<AgentPage, FindError> {
    let endpoint = &dialer.endpoint;
    if query.token.is_some() && !endpoint.is_private() {
        return Err(FindError::TokenInTheClear);
    }
    let request = request(&list_url(endpoint.target_url(), query), query.token.as_deref())?;
    let tcp = dialer.tcp().await.map_err(FindError::Tcp)?;
    let (status, body) = if endpoint.is_tls() {
        let config = dialer.tls_config().map_err(FindError::TlsSettings)?;
        let name = endpoint.server_name().map_err(|error| {
            FindError::Tls(std::io::Error::new(std::io::ErrorKind::InvalidInput, error))
        })?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(FindError::Tls)?;
        exchange(tls, request).await?
    } else {
        exchange(tcp, request).await?
    };
    if status != StatusCode::OK {
        return Err(FindError::Refused { status: status.as_u16(), said: said(&body) });
    }
    serde_json::from_slice(&body).map_err(FindError::Answer)
}

/// The list lies beside the WebSocket.
fn list_url(websocket: &Url, query: &AgentQuery) -> Url {
    let mut url = websocket.clone();
    let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    url.set_path(&format!("{folder}/agents"));
    url.set_query(None);
    let AgentQuery { capability, name, label, limit, cursor, token: _ } = query;
    let label = label.as_ref().map(|(name, value)| format!("{name}:{value}"));
    let limit = limit.map(|limit| limit.to_string());
    for (name, value) in [
        ("capability", capability),
        ("name", name),
        ("label", &label),
        ("limit", &limit),
        ("cursor", cursor),
    ] {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    url
}

fn request(url: &Url, token: Option<&str>) -> Result<Request<Empty<Bytes>>, FindError> {
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut builder = Request::get(target)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("conexus-client/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| FindError::Token)?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    // What a URL has in it can stand in a request.
    Ok(builder.body(Empty::new()).expect("a request of a url's parts"))
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), FindError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(FindError::Http)?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(FindError::Http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_PAGE).collect().await;
        Ok((status, body.map_err(FindError::Body)?.to_bytes()))
    };
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        // First, since a connection may end with its answer.
        biased;
        answer = &mut asked => answer,
        ended = connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(FindError::Http(error)),
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

impl Dialer {
    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
        match &self.tls {
            Some(config) => Ok(Arc::clone(config)),
            None => crate::tls::default_config(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_lies_beside_the_websocket() {
        let query = AgentQuery {
            capability: Some("sum up".into()),
            label: Some(("team".into(), "a&b".into())),
            limit: Some(5),
            ..AgentQuery::default()
        };
        for (websocket, list) in [
            ("ws://a:8000/ws", "/agents"),
            ("wss://a/ws", "/agents"),
            ("wss://a", "/agents"),
            ("wss://a/gateway/ws?x=1", "/gateway/agents"),
        ] {
            let url = list_url(&websocket.parse().unwrap(), &AgentQuery::default());
            assert_eq!(&url[url::Position::BeforePath..], list, "{websocket}");
        }
        let url = list_url(&"ws://a/ws".parse().unwrap(), &query);
        assert_eq!(url.query(), Some("capability=sum+up&label=team%3Aa%26b&limit=5"));
    }

    #[test]
    fn a_request_names_its_host_and_hides_its_token() {
        let request = request(&"ws://a.example:81/agents?x=1".parse().unwrap(), Some("t")).unwrap();
        assert_eq!(request.uri(), "/agents?x=1");
        assert_eq!(request.headers()[HOST], "a.example:81");
        assert!(!format!("{request:?}").contains("Bearer t"));
        let wrong = super::request(&"ws://a/agents".parse().unwrap(), Some("a\nb"));
        assert!(matches!(wrong, Err(FindError::Token)));
    }

    #[test]
    fn what_a_gateway_says_is_read_out_of_its_json_and_bounded() {
        assert_eq!(said(br#"{"error":"limit: must be at least 1"}"#), "limit: must be at least 1");
        assert_eq!(said(b" plain \n"), "plain");
        assert_eq!(said("é".repeat(1000).as_bytes()).chars().count(), 256);
    }
}
