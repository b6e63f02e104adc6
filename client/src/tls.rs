//! TLS settings for `wss` URLs.
//!
//! The provider is named, never taken from the process: a library must not depend on
//! which crate installed a default first.

use std::{fmt, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

/// Whom `wss` trusts, and what it shows.
#[derive(Default)]
pub(crate) struct Settings {
    /// In place of Mozilla's.
    pub(crate) roots: Option<RootCertStore>,
    /// More of them, as PEM.
    pub(crate) pems: Vec<Vec<u8>>,
    /// The client's own certificate and its key, as PEM.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
    /// In place of all that.
    pub(crate) config: Option<Arc<ClientConfig>>,
}

/// Why certificates that a client was given are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// No PEM, or broken.
    #[error("{what}: no valid pem")]
    Pem {
        /// Which of the texts.
        what: &'static str,
        /// Where it is wrong.
        source: pem::Error,
    },
    /// There is none in the text.
    #[error("{0}: no certificate in it")]
    Empty(&'static str),
    /// It cannot be used: the key is not that of the certificate, say.
    #[error("{what}: not usable")]
    Unusable {
        /// Which of the texts.
        what: &'static str,
        /// What the library says.
        source: Error,
    },
}

/// What the texts are called.
const ROOTS: &str = "root certificates";
const CHAIN: &str = "client certificate";
const KEY: &str = "client key";

impl Settings {
    /// The library's configuration; none where nothing was asked for.
    pub(crate) fn build(self) -> Result<Option<Arc<ClientConfig>>, CertificateFault> {
        if self.config.is_some() {
            return Ok(self.config);
        }
        if self.roots.is_none() && self.pems.is_empty() && self.client.is_none() {
            return Ok(None);
        }
        let mut roots = match (self.roots, self.pems.is_empty()) {
            (Some(roots), _) => roots,
            (None, true) => public_roots(),
            (None, false) => RootCertStore::empty(),
        };
        for pem in &self.pems {
            for certificate in certificates(pem, ROOTS)? {
                let unusable = |source| CertificateFault::Unusable { what: ROOTS, source };
                roots.add(certificate).map_err(unusable)?;
            }
        }
        let unusable = |source| CertificateFault::Unusable { what: CHAIN, source };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let config = match self.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(&chain, CHAIN)?;
                let key = PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|source| CertificateFault::Pem { what: KEY, source })?;
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
        };
        Ok(Some(Arc::new(config)))
    }
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|source| CertificateFault::Pem { what, source })?;
    if certificates.is_empty() {
        return Err(CertificateFault::Empty(what));
    }
    Ok(certificates)
}

/// Mozilla's roots and the ring provider, TLS 1.2 and 1.3.
pub(crate) fn default_config() -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(public_roots())
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What a failed handshake means to whoever dialed.
pub(crate) struct Meaning<'a>(pub(crate) &'a Error);

impl fmt::Display for Meaning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => {
                    "the gateway's certificate is of an authority that is not trusted here"
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "the gateway's certificate has expired"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "the gateway's certificate is not valid yet"
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    "the gateway's certificate is for another name than the one dialed"
                }
                _ => "the gateway's certificate is not valid",
            },
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                "the gateway asks for a client certificate"
            }
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRevoked
                | AlertDescription::DecryptError,
            ) => "the gateway does not take the client certificate",
            Error::AlertReceived(AlertDescription::ProtocolVersion) => {
                "the gateway speaks another version of tls"
            }
            Error::InvalidMessage(_) => "the gateway's port does not speak tls",
            _ => "tls failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = include_bytes!("../tests/tls/cert.pem");
    const PRIVATE: &[u8] = include_bytes!("../tests/tls/key.pem");

    #[test]
    fn defaults_need_no_provider_of_the_process() {
        assert!(default_config().is_ok());
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }

    #[test]
    fn what_is_given_is_told_apart_when_it_is_of_no_use() {
        let roots = |pem: &[u8]| Settings { pems: vec![pem.into()], ..Settings::default() };
        let client = |chain: &[u8], key: &[u8]| Settings {
            client: Some((chain.into(), key.into())),
            ..Settings::default()
        };
        assert!(roots(CERTIFICATE).build().unwrap().is_some());
        assert!(client(CERTIFICATE, PRIVATE).build().unwrap().is_some());
        assert!(Settings::default().build().unwrap().is_none());
        let words = |settings: Settings| settings.build().unwrap_err().to_string();
        assert_eq!(words(roots(b"")), "root certificates: no certificate in it");
        assert_eq!(
            words(roots(b"-----BEGIN CERTIFICATE-----\n?")),
            "root certificates: no valid pem"
        );
        assert_eq!(words(client(b"", PRIVATE)), "client certificate: no certificate in it");
        assert_eq!(words(client(CERTIFICATE, CERTIFICATE)), "client key: no valid pem");
    }
}
