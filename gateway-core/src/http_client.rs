//! The HTTP client: of commands that ask a running gateway, and of the export of spans.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no TLS")]
    Tls(#[from] rustls::Error),
    #[error("no HTTP client")]
    Http(#[from] reqwest::Error),
}

/// A client that trusts the public certificate authorities.
pub(crate) fn client(patience: Duration) -> Result<reqwest::Client, ClientError> {
    Ok(builder(patience)?.build()?)
}

/// A client for this machine, which to a proxy would be another one.
pub(crate) fn direct_client(patience: Duration) -> Result<reqwest::Client, ClientError> {
    Ok(builder(patience)?.no_proxy().build()?)
}

fn builder(patience: Duration) -> Result<reqwest::ClientBuilder, ClientError> {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(patience))
}
