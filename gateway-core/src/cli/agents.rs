//! `conexus agents`: the agents of a running gateway, page by page.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{
    terminal::{harmless, table},
    tls_options::{Shown, TlsOptionsError, Trust},
};
use crate::http_client::{ClientError, client_with};

/// How long a gateway may take for one page.
const PATIENCE: Duration = Duration::from_secs(30);

/// A page of agents of the largest size that a gateway has, with metadata of the usual bound.
const LARGEST_PAGE: usize = 64 << 20;

/// Read when `--token` is not given, which other users of the machine could see.
const TOKEN_VARIABLE: &str = "CONEXUS_AGENTS_TOKEN";

#[derive(clap::Args)]
pub(super) struct Options {
    /// The gateway
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: Url,

    /// The token of http.agents = "token"; better given in the variable CONEXUS_AGENTS_TOKEN
    #[arg(long)]
    token: Option<String>,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    shown: Shown,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// List at most this many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,

    /// Only agents that publish this capability
    #[arg(long, value_name = "NAME")]
    capability: Option<String>,

    /// Only agents that publish this very name
    #[arg(long)]
    name: Option<String>,

    /// Only agents that policy gave this label; the gateway's http.agents_labels must have it
    #[arg(long, value_name = "NAME:VALUE")]
    label: Option<String>,
}

/// Why the list could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    #[error("the gateway at {url} cannot be asked")]
    Request { url: Url, source: reqwest::Error },
    #[error("{0} is no URL of a gateway: http, https, ws or wss")]
    Url(Url),
    #[error("the gateway at {url} answered {status}{}", hint(*.status))]
    Status { url: Url, status: reqwest::StatusCode },
    #[error("the gateway at {url} does not take the question: {said}")]
    Question { url: Url, said: String },
    #[error("the gateway repeats a page")]
    Endless,
    #[error("a token is sent over tls or loopback only, and {0} is neither")]
    TokenInTheClear(Url),
    #[error("the answer of the gateway at {url} is larger than {} MiB", LARGEST_PAGE >> 20)]
    TooLarge { url: Url },
    #[error("the answer of the gateway at {url} is no list of agents")]
    Answer { url: Url, source: serde_json::Error },
    #[error(transparent)]
    Tls(#[from] TlsOptionsError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

fn hint(status: reqwest::StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; it wants the token of http.agents_token",
        404 => "; its list may be off",
        _ => "",
    }
}

/// One page of `GET /agents`. Members that this program does not know are kept for `--json`.
#[derive(Deserialize)]
struct Page {
    agents: Vec<serde_json::Map<String, serde_json::Value>>,
    count: u64,
    #[serde(default)]
    next_cursor: Option<String>,
}

/// How the gateway says what is wrong with a question.
#[derive(Deserialize)]
struct Fault {
    error: String,
}

#[derive(Default, Serialize)]
struct Listing {
    agents: Vec<serde_json::Map<String, serde_json::Value>>,
    count: u64,
}

pub(super) async fn agents(options: &Options) -> Result<ExitCode, AgentsError> {
    let listing = fetch(options).await?;
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{:#}", serde_json::json!(listing))?;
    } else {
        out.write_all(table(&rows(&listing)).as_bytes())?;
        writeln!(out, "{} of {} agents", listing.agents.len(), listing.count)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(options: &Options) -> Result<Listing, AgentsError> {
    let client = client_with(PATIENCE, &options.trust.config(&options.shown)?)?;
    let token = options.token.clone().or_else(|| std::env::var(TOKEN_VARIABLE).ok());
    let mut listing = Listing::default();
    let mut cursor = None;
    loop {
        let wanted = options.limit.map(|limit| limit.saturating_sub(listing.agents.len()));
        let url = page_url(options, wanted, cursor.as_deref())?;
        let page = fetch_page(&client, url, token.as_deref()).await?;
        listing.count = page.count;
        listing.agents.extend(page.agents.into_iter().take(wanted.unwrap_or(usize::MAX)));
        let full = options.limit.is_some_and(|limit| listing.agents.len() >= limit);
        match page.next_cursor {
            Some(next) if Some(&next) == cursor.as_ref() => return Err(AgentsError::Endless),
            Some(next) if !full => cursor = Some(next),
            _ => return Ok(listing),
        }
    }
}

async fn fetch_page(
    client: &reqwest::Client,
    url: Url,
    token: Option<&str>,
) -> Result<Page, AgentsError> {
    if token.is_some() && !is_private(&url) {
        return Err(AgentsError::TokenInTheClear(url));
    }
    let request = client.get(url.clone());
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let failed = |source| AgentsError::Request { url: url.clone(), source };
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > LARGEST_PAGE {
            return Err(AgentsError::TooLarge { url });
        }
        body.extend_from_slice(&chunk);
    }
    match status {
        status if status.is_success() => {
            serde_json::from_slice(&body).map_err(|source| AgentsError::Answer { url, source })
        }
        reqwest::StatusCode::BAD_REQUEST => {
            let fault: Option<Fault> = serde_json::from_slice(&body).ok();
            let said = fault.map_or_else(String::new, |fault| harmless(&fault.error));
            Err(AgentsError::Question { url, said })
        }
        status => Err(AgentsError::Status { url, status }),
    }
}

/// Whether what is sent there stays on this machine or is encrypted on its way.
fn is_private(url: &Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

/// `/agents` below the gateway's URL, which may also be the one that agents dial. A page is at least one agent, so that a limit of 0 asks
/// for the count alone.
fn page_url(
    options: &Options,
    wanted: Option<usize>,
    cursor: Option<&str>,
) -> Result<Url, AgentsError> {
    let Options { url: gateway, capability, name, label, .. } = options;
    let mut url = gateway.clone();
    let scheme = match url.scheme() {
        "http" | "ws" => "http",
        "https" | "wss" => "https",
        _ => return Err(AgentsError::Url(url)),
    };
    if url.set_scheme(scheme).is_err() {
        return Err(AgentsError::Url(url));
    }
    let folder = gateway.path().trim_end_matches('/');
    url.set_path(&format!("{}/agents", folder.strip_suffix("/ws").unwrap_or(folder)));
    url.set_query(None);
    let wanted = wanted.map(|count| count.max(1).to_string());
    let pairs = [
        ("limit", wanted.as_deref()),
        ("cursor", cursor),
        ("capability", capability.as_deref()),
        ("name", name.as_deref()),
        ("label", label.as_deref()),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    Ok(url)
}

fn rows(listing: &Listing) -> Vec<Vec<String>> {
    let header = ["DID", "NAME", "CAPABILITIES", "CONNECTED", "LAST ACTIVITY"].map(str::to_owned);
    let agents = listing.agents.iter().map(|agent| {
        let metadata = agent.get("metadata").and_then(serde_json::Value::as_object);
        let published = |name| metadata.and_then(|metadata| metadata.get(name));
        let cells = [
            agent.get("did"),
            published("name"),
            published("capabilities"),
            agent.get("connected_at"),
            agent.get("last_activity"),
        ];
        cells.map(cell).to_vec()
    });
    std::iter::once(header.to_vec()).chain(agents).collect()
}

fn cell(value: Option<&serde_json::Value>) -> String {
    match value {
        None | Some(serde_json::Value::Null) => "-".to_owned(),
        Some(serde_json::Value::String(text)) => harmless(text),
        Some(serde_json::Value::Array(list)) if list.is_empty() => "-".to_owned(),
        Some(serde_json::Value::Array(list)) => {
            list.iter().map(|value| cell(Some(value))).collect::<Vec<_>>().join(",")
        }
        Some(other) => harmless(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request per body and gives back the request lines.
    async fn serve(bodies: &'static [&'static str]) -> (Url, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for body in bodies {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                asked.push(request.lines().next().unwrap().to_owned());
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (url, server)
    }

    fn options(url: Url, limit: Option<usize>) -> Options {
        let (trust, shown) = Default::default();
        let (capability, name, label) = (None, None, None);
        Options { url, token: None, trust, shown, json: false, limit, capability, name, label }
    }

    #[tokio::test]
    async fn pages_are_followed_to_the_end() {
        let (url, server) = serve(&[
            r#"{"agents":[{"did":"did:key:a"}],"count":2,"next_cursor":"a b"}"#,
            r#"{"agents":[{"did":"did:key:b","metadata":{"name":"B","capabilities":["x","y"]}}],"count":2,"next_cursor":null}"#,
        ])
        .await;
        let listing = fetch(&options(url, None)).await.unwrap();
        assert_eq!(
            server.await.unwrap(),
            ["GET /agents HTTP/1.1", "GET /agents?cursor=a+b HTTP/1.1"]
        );
        assert_eq!(
            rows(&listing)[1..],
            [["did:key:a", "-", "-", "-", "-"], ["did:key:b", "B", "x,y", "-", "-"],]
        );
    }

    #[tokio::test]
    async fn a_limit_ends_the_list_before_its_last_page() {
        let (url, server) =
            serve(&[r#"{"agents":[{"did":"a"},{"did":"b"}],"count":9,"next_cursor":"b"}"#]).await;
        let listing = fetch(&options(url, Some(2))).await.unwrap();
        assert_eq!(server.await.unwrap(), ["GET /agents?limit=2 HTTP/1.1"]);
        assert_eq!((listing.agents.len(), listing.count), (2, 9));
    }

    #[tokio::test]
    async fn a_page_that_repeats_is_an_error() {
        let page = r#"{"agents":[],"count":1,"next_cursor":"x"}"#;
        let (url, _server) = serve(&[
            r#"{"agents":[],"count":1,"next_cursor":"x"}"#,
            r#"{"agents":[],"count":1,"next_cursor":"x"}"#,
        ])
        .await;
        let error = fetch(&options(url, None)).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, AgentsError::Endless), "{error} {page}");
    }

    #[test]
    fn the_list_lies_below_the_gateways_path() {
        for (gateway, expected) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/agents"),
            ("https://example.org/gw/?x=1", "https://example.org/gw/agents"),
            ("ws://127.0.0.1:8000/ws", "http://127.0.0.1:8000/agents"),
            ("wss://example.org/gw/ws", "https://example.org/gw/agents"),
        ] {
            let options = options(gateway.parse().unwrap(), None);
            assert_eq!(page_url(&options, None, None).unwrap().as_str(), expected);
        }
        let options = |url: &str| options(url.parse().unwrap(), None);
        assert!(page_url(&options("ftp://127.0.0.1/ws"), None, None).is_err());
    }

    #[test]
    fn a_token_stays_on_the_machine_or_is_encrypted() {
        for (url, private) in [
            ("https://gw.example/agents", true),
            ("http://gw.example/agents", false),
            ("http://10.0.0.1/agents", false),
            ("http://localhost:8000/agents", true),
            ("http://127.0.0.1:8000/agents", true),
            ("http://[::1]:8000/agents", true),
        ] {
            assert_eq!(is_private(&url.parse().unwrap()), private, "{url}");
        }
    }

    #[test]
    fn what_is_searched_for_is_asked_of_the_gateway() {
        let gateway = "http://127.0.0.1:8000".parse().unwrap();
        let options = Options {
            capability: Some("sum up".into()),
            name: Some("a&b".into()),
            label: Some("team:red".into()),
            ..options(gateway, None)
        };
        assert_eq!(
            page_url(&options, Some(3), Some("x")).unwrap().query(),
            Some("limit=3&cursor=x&capability=sum+up&name=a%26b&label=team%3Ared")
        );
    }
}
