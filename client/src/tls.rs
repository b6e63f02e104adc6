//! TLS settings for `wss` URLs.
//!
//! The provider is named, never taken from the process: a library must not depend on
//! which crate installed a default first.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Mozilla's roots and the ring provider, TLS 1.2 and 1.3.
pub(crate) fn default_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    with_roots(roots)
}

/// The given roots and the ring provider, TLS 1.2 and 1.3.
pub(crate) fn with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_need_no_provider_of_the_process() {
        assert!(default_config().is_ok());
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }
}
