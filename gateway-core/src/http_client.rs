//! The HTTP client: of commands that ask a running gateway, and of the export of spans.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
#[cfg(feature = "otlp")]
use rustls::{RootCertStore, crypto::ring};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no TLS")]
    Tls(#[from] rustls::Error),
    #[error("no HTTP client")]
    Http(#[from] reqwest::Error),
}

/// A client that trusts the public certificate authorities.
#[cfg(feature = "otlp")]
pub(crate) fn client(patience: Duration) -> Result<reqwest::Client, ClientError> {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client_with(patience, &Arc::new(tls))
}

/// A client that trusts, and shows, what it is told.
pub(crate) fn client_with(
    patience: Duration,
    tls: &Arc<ClientConfig>,
) -> Result<reqwest::Client, ClientError> {
    Ok(builder(patience, tls).build()?)
}

/// The same for this machine, which to a proxy would be another one.
pub(crate) fn direct_client(
    patience: Duration,
    tls: &Arc<ClientConfig>,
) -> Result<reqwest::Client, ClientError> {
    Ok(builder(patience, tls).no_proxy().build()?)
}

fn builder(patience: Duration, tls: &Arc<ClientConfig>) -> reqwest::ClientBuilder {
    let tls = ClientConfig::clone(tls);
    reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(patience)
}
