//! Whom a command trusts over TLS, and what it shows: the same options wherever a gateway is dialed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Whom to trust.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "trust")]
pub(super) struct Trust {
    /// The certificate authorities to trust, a PEM file, in place of the public ones
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// What to show.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "shown")]
pub(super) struct Shown {
    /// The certificate to show where the gateway asks for one, a PEM file
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,

    /// The private key of --client-cert, a PEM file
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsOptionsError {
    #[error("{option}: {} cannot be read", path.display())]
    Read { option: &'static str, path: PathBuf, source: io::Error },
    #[error("{option}: {} has no valid PEM of the kind that is wanted", path.display())]
    Pem { option: &'static str, path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{option}: {} has no certificate", path.display())]
    Empty { option: &'static str, path: PathBuf },
    #[error("{option}: {} cannot be used", path.display())]
    Unusable { option: &'static str, path: PathBuf, source: rustls::Error },
    #[error("no TLS")]
    Tls(#[from] rustls::Error),
}

pub(super) fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, TlsOptionsError> {
    let failed = |source| TlsOptionsError::Read { option, path: path.to_owned(), source };
    fs::read(path).map_err(failed)
}

fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsOptionsError> {
    let pem = |source| TlsOptionsError::Pem { option, path: path.to_owned(), source };
    let content = read(option, path)?;
    let found = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(pem)?;
    if found.is_empty() {
        return Err(TlsOptionsError::Empty { option, path: path.to_owned() });
    }
    Ok(found)
}

impl Trust {
    /// The authorities, where some were named.
    pub(super) fn roots(&self) -> Result<Option<RootCertStore>, TlsOptionsError> {
        let Some(path) = &self.ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("--ca", path)? {
            roots.add(certificate).map_err(|source| TlsOptionsError::Unusable {
                option: "--ca",
                path: path.clone(),
                source,
            })?;
        }
        Ok(Some(roots))
    }

    /// All that the library wants to know.
    pub(super) fn config(&self, shown: &Shown) -> Result<Arc<ClientConfig>, TlsOptionsError> {
        let public = || webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?.unwrap_or_else(public));
        let (Some(chain), Some(key)) = (&shown.client_cert, &shown.client_key) else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let option = "--client-key";
        let pem = |source| TlsOptionsError::Pem { option, path: key.clone(), source };
        let private = PrivateKeyDer::from_pem_slice(&read(option, key)?).map_err(pem)?;
        let config = builder.with_client_auth_cert(certificates("--client-cert", chain)?, private);
        let unusable = |source| TlsOptionsError::Unusable { option, path: key.clone(), source };
        Ok(Arc::new(config.map_err(unusable)?))
    }
}
