//! Whom the load is for: a URL, resolved and known to answer, and the addresses to come from.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use conexus_protocol::Subprotocol;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use super::stream::Stream;

/// How long a first connection, and the resolving of a name, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is nothing to load.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{url:?} is no URL of a gateway")]
    Syntax { url: String, source: url::ParseError },
    #[error("{url:?} is neither ws:// nor wss://")]
    Scheme { url: String },
    #[error("{url:?} names no host")]
    NoHost { url: String },
    #[error("{host} has no address")]
    Unresolved { host: String, source: io::Error },
    #[error("nobody answers at {address}")]
    Unreachable { address: SocketAddr, source: io::Error },
    #[error("--sources is for targets on IPv4 loopback, and {0} is none")]
    SourcesBeyondLoopback(SocketAddr),
}

/// How connections are encrypted.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A server that took a TCP connection a moment ago.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// As REGISTER names it on v1.1.
    pub(super) audience: String,
    /// The header `Host`.
    pub(super) host: String,
    /// What is asked for: path and query.
    pub(super) path: String,
    pub(super) protocol: Subprotocol,
    address: SocketAddr,
    tls: Option<Tls>,
    sources: Option<u8>,
}

impl Target {
    /// Resolves a URL to the first of its addresses that takes a connection. Connections come from
    /// as many loopback addresses as there are `sources`, in turn.
    pub(crate) async fn resolve(
        text: &str,
        audience: Option<&str>,
        protocol: Subprotocol,
        sources: Option<u8>,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, TargetError> {
        let syntax = |source| TargetError::Syntax { url: text.to_owned(), source };
        let url = Url::parse(text).map_err(syntax)?;
        let port = match url.scheme() {
            "ws" => 80,
            "wss" => 443,
            _ => return Err(TargetError::Scheme { url: text.to_owned() }),
        };
        let Some(host) = url.host() else {
            return Err(TargetError::NoHost { url: text.to_owned() });
        };
        let address = answering(&addresses(host, url.port().unwrap_or(port)).await?).await?;
        if sources.is_some() && !(address.is_ipv4() && address.ip().is_loopback()) {
            return Err(TargetError::SourcesBeyondLoopback(address));
        }
        let secured = || {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host);
            let name = name.map_err(|_| TargetError::NoHost { url: text.to_owned() })?;
            Ok(Tls { connector: TlsConnector::from(Arc::clone(tls)), name })
        };
        let tls = (port == 443).then(secured).transpose()?;
        Ok(Self {
            tls,
            audience: audience.unwrap_or(text).to_owned(),
            host: url[Position::BeforeHost..Position::AfterPort].to_owned(),
            path: url[Position::BeforePath..Position::AfterQuery].to_owned(),
            protocol,
            address,
            sources,
        })
    }

    /// A connection; the number tells which address it comes from. It is reset when it is dropped, so
    /// that its port does not wait for a minute (RFC 9293, 3.6.1): a run has thousands, and the next
    /// one wants them.
    pub(super) async fn connect(&self, number: usize) -> io::Result<Stream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(source) = self.source(number) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        stream.set_zero_linger()?;
        Ok(match &self.tls {
            None => Stream::Plain(stream),
            Some(Tls { connector, name }) => {
                Stream::Tls(Box::new(connector.connect(name.clone(), stream).await?))
            }
        })
    }

    fn source(&self, number: usize) -> Option<IpAddr> {
        let sources = self.sources?;
        // Below 255, as the remainder is.
        let last = 1 + (number % usize::from(sources)) as u8;
        Some(Ipv4Addr::new(127, 0, 0, last).into())
    }
}

async fn addresses(host: Host<&str>, port: u16) -> Result<Vec<SocketAddr>, TargetError> {
    match host {
        Host::Ipv4(address) => Ok(vec![(address, port).into()]),
        Host::Ipv6(address) => Ok(vec![(address, port).into()]),
        Host::Domain(name) => {
            let unresolved = |source| TargetError::Unresolved { host: name.to_owned(), source };
            let found = patiently(lookup_host((name, port))).await.map_err(unresolved)?;
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                return Err(unresolved(io::ErrorKind::NotFound.into()));
            }
            Ok(found)
        }
    }
}

/// The first address that takes a connection. There is at least one to try.
async fn answering(addresses: &[SocketAddr]) -> Result<SocketAddr, TargetError> {
    let mut last = None;
    for &address in addresses {
        match patiently(TcpStream::connect(address)).await {
            Ok(_) => return Ok(address),
            Err(source) => last = Some(TargetError::Unreachable { address, source }),
        }
    }
    Err(last.expect("at least one address"))
}

async fn patiently<T>(asked: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn resolved(url: &str, sources: Option<u8>) -> Result<Target, TargetError> {
        let roots = rustls::RootCertStore::empty();
        let tls =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        Target::resolve(url, None, Subprotocol::V1_1, sources, &Arc::new(tls)).await
    }

    #[tokio::test]
    async fn a_url_that_answers_is_taken_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("ws://localhost:{port}/ws?x=1");
        let target = resolved(&url, Some(2)).await.unwrap();
        assert_eq!(target.audience, url);
        assert_eq!(target.host, format!("localhost:{port}"));
        assert_eq!(target.path, "/ws?x=1");
        let sources = [0, 1, 2].map(|number| target.source(number).unwrap().to_string());
        assert_eq!(sources, ["127.0.0.1", "127.0.0.2", "127.0.0.1"]);
        let Stream::Plain(stream) = target.connect(1).await.unwrap() else { panic!("it is TLS") };
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.2");
    }

    #[tokio::test]
    async fn what_cannot_be_loaded_is_refused_with_its_reason() {
        for (url, said) in [
            ("gateway", "\"gateway\" is no URL of a gateway"),
            ("https://h/ws", "\"https://h/ws\" is neither ws:// nor wss://"),
            ("http://h/ws", "\"http://h/ws\" is neither ws:// nor wss://"),
        ] {
            let error = resolved(url, None).await.unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = resolved(&format!("ws://{address}/ws"), None).await.unwrap_err().to_string();
        assert_eq!(error, format!("nobody answers at {address}"));
    }

    #[tokio::test]
    async fn sources_are_for_loopback() {
        let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        assert!(matches!(
            resolved(&url, Some(4)).await,
            Err(TargetError::SourcesBeyondLoopback(_))
        ));
        assert!(resolved(&url, None).await.is_ok());
    }
}
