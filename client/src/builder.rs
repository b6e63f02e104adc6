//! Describing a client before it connects.

use std::{sync::Arc, time::Duration};

use conexus_protocol::{Identity, Metadata, Subprotocol};
use rustls::{ClientConfig, RootCertStore};

use crate::{
    Client, ConnectError, ReconnectPolicy,
    dial::Dialer,
    endpoint::Endpoint,
    shared::{Config, Shared},
    tls,
};

/// Heartbeats outside of this are no heartbeats.
const HEARTBEATS: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_secs(24 * 60 * 60));

/// The settings of a [`Client`]; each has a default.
#[must_use = "a builder does nothing until it builds or connects"]
pub struct Builder {
    url: String,
    identity: Identity,
    connect_timeout: Duration,
    close_timeout: Duration,
    request_timeout: Duration,
    reconnect: Option<ReconnectPolicy>,
    retry_first: bool,
    min_protocol: Subprotocol,
    metadata: Metadata,
    credentials: Option<String>,
    verify_incoming: bool,
    tolerate_quirks: bool,
    inbound_queue: usize,
    heartbeat: Option<Duration>,
    tls: tls::Settings,
    max_message_bytes: usize,
    #[cfg(feature = "p2p")]
    p2p: crate::shared::P2p,
}

impl Builder {
    pub(crate) fn new(url: String, identity: Identity) -> Self {
        Self {
            url,
            identity,
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            reconnect: Some(ReconnectPolicy::default()),
            retry_first: false,
            min_protocol: Subprotocol::V1,
            metadata: Metadata::default(),
            credentials: None,
            verify_incoming: true,
            tolerate_quirks: true,
            inbound_queue: 256,
            heartbeat: None,
            tls: tls::Settings::default(),
            max_message_bytes: 1024 * 1024,
            #[cfg(feature = "p2p")]
            p2p: crate::shared::P2p::default(),
        }
    }

    /// How long dialing and registering may take together. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a farewell may take. Default: 5 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long to wait for an answer where the call does not say. Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How a lost connection is made again.
    pub fn reconnect(mut self, policy: ReconnectPolicy) -> Self {
        self.reconnect = Some(policy);
        self
    }

    /// A lost connection is the end.
    pub fn no_reconnect(mut self) -> Self {
        self.reconnect = None;
        self
    }

    /// Whether the first connection is retried like a lost one, for agents that may start
    /// before their gateway. Default: false, a wrong URL should be told at once.
    pub fn retry_first_attempt(mut self, retry: bool) -> Self {
        self.retry_first = retry;
        self
    }

    /// The oldest protocol to speak. `V1_1` forbids the fallback to `ioap.v1`, where neither
    /// side's identity is proven to the other. Default: `V1`.
    pub fn min_protocol(mut self, oldest: Subprotocol) -> Self {
        self.min_protocol = oldest;
        self
    }

    /// What the agent publishes about itself. Does not exist on `ioap.v1`.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// A secret for the gateway's `on_register`. Sent over TLS or loopback only, and not on
    /// `ioap.v1`.
    pub fn credentials(mut self, credentials: impl Into<String>) -> Self {
        self.credentials = Some(credentials.into());
        self
    }

    /// Whether agents' signatures are verified. Without, anyone whom the gateway lets may
    /// speak in any agent's name. Default: true.
    pub fn verify_incoming(mut self, verify: bool) -> Self {
        self.verify_incoming = verify;
        self
    }

    /// Whether messages of agents may have the quirks of the Python reference client also on
    /// `ioap.v1.1`: the gateway forwards its messages as they are. Default: true.
    pub fn tolerate_reference_quirks(mut self, tolerate: bool) -> Self {
        self.tolerate_quirks = tolerate;
        self
    }

    /// How many events may wait for the handlers, and messages in a stream, before the socket
    /// is not read any more. Default: 256.
    pub fn inbound_queue(mut self, events: usize) -> Self {
        self.inbound_queue = events.max(1);
        self
    }

    /// After how much silence to PING; a connection that is silent for two and a half times
    /// as long is dead. Default: what the gateway says; 60 s on `ioap.v1`.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = Some(heartbeat.clamp(HEARTBEATS.0, HEARTBEATS.1));
        self
    }

    /// The certificate authorities to trust, in place of Mozilla's.
    pub fn tls_roots(mut self, roots: RootCertStore) -> Self {
        self.tls.roots = Some(roots);
        self
    }

    /// Certificate authorities to trust, as PEM: beside those of earlier calls and of
    /// [`tls_roots`](Self::tls_roots), in place of Mozilla's.
    pub fn root_certificate_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.pems.push(pem.into());
        self
    }

    /// The certificate to show where the gateway asks for one, with what it was issued by, and its
    /// private key (PKCS#8, PKCS#1 or SEC1), both as PEM.
    pub fn client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.client = Some((chain.into(), key.into()));
        self
    }

    /// All of TLS as you like it, whatever else was said of it. The default is TLS 1.2 and 1.3 with the ring provider,
    /// whichever provider the process has.
    pub fn tls_config(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls.config = Some(config);
        self
    }

    /// The largest message to receive; a larger one ends the connection. Default: 1 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// How many peers there may be; OFFERs of others are refused as `busy`. Default: 64.
    #[cfg(feature = "p2p")]
    pub fn max_peers(mut self, peers: usize) -> Self {
        self.p2p.max_peers = peers.max(1);
        self
    }

    /// Whether the gateway is told by which kinds of addresses peers got connected, or that they did not, and how
    /// long it took, though not to whom: for its operators' counts. Default: false.
    #[cfg(feature = "p2p")]
    pub fn report_outcomes(mut self, report: bool) -> Self {
        self.p2p.report_outcomes = report;
        self
    }

    /// Another WebRTC stack than the crate `webrtc`.
    #[cfg(feature = "p2p")]
    pub fn transport(mut self, transport: Arc<dyn crate::p2p::transport::Transport>) -> Self {
        self.p2p.transport = Some(transport);
        self
    }

    /// A client that is not connected yet, to add handlers to.
    ///
    /// # Errors
    ///
    /// A URL that cannot be dialed, credentials that would cross a network in the clear, or
    /// certificates that are of no use.
    pub fn build(self) -> Result<Client, ConnectError> {
        let endpoint = Endpoint::parse(&self.url)?;
        if self.credentials.is_some() && !endpoint.is_private() {
            return Err(ConnectError::CredentialsInTheClear);
        }
        let tls = self.tls.build().map_err(ConnectError::Certificates)?;
        let dialer = Dialer {
            endpoint,
            tls,
            min_protocol: self.min_protocol,
            max_message_bytes: self.max_message_bytes,
        };
        let config = Config {
            identity: self.identity,
            dialer,
            connect_timeout: self.connect_timeout,
            close_timeout: self.close_timeout,
            request_timeout: self.request_timeout,
            reconnect: self.reconnect,
            retry_first: self.retry_first,
            credentials: self.credentials,
            verify_incoming: self.verify_incoming,
            tolerate_quirks: self.tolerate_quirks,
            inbound_queue: self.inbound_queue,
            heartbeat: self.heartbeat,
            #[cfg(feature = "p2p")]
            p2p: self.p2p,
        };
        Ok(Client::new(Shared::new(config, self.metadata)))
    }

    /// Builds and connects. Messages may be waiting at the gateway: where none may pass
    /// unseen, [`build`](Self::build) first and add the handlers before
    /// [`Client::connect`].
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build) and [`Client::connect`].
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let mut client = self.build()?;
        client.connect().await?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(url: &str, credentials: &str) -> Result<Client, ConnectError> {
        Client::builder(url, Identity::generate()).credentials(credentials).build()
    }

    #[test]
    fn credentials_never_cross_a_network_in_the_clear() {
        assert!(matches!(
            build("ws://gateway.example/ws", "secret"),
            Err(ConnectError::CredentialsInTheClear)
        ));
        assert!(build("wss://gateway.example/ws", "secret").is_ok());
        assert!(build("ws://127.0.0.1:8000/ws", "secret").is_ok());
    }

    #[test]
    fn a_wrong_url_is_told_before_anything_is_dialed() {
        let client = Client::builder("http://gateway.example", Identity::generate()).build();
        assert!(matches!(client, Err(ConnectError::Url(_))));
    }
}
