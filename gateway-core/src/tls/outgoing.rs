//! TLS to a server of the operator's: whose certificates count there, and what is shown.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::files::{File, TlsError};

/// Trusts the authorities in this file, or else the public ones, and shows this certificate with its key.
pub(crate) fn client_config(
    ca: Option<File<'_>>,
    identity: Option<(File<'_>, File<'_>)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    // What changes in the files counts when the gateway is started anew.
    let seen = &mut Vec::new();
    let roots = match ca {
        Some(ca) => ca.authorities(seen)?,
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = identity else {
        return Ok(Arc::new(config.with_no_client_auth()));
    };
    let shown = (certificate.certificates(seen)?, key.private_key(seen)?);
    let config = config.with_client_auth_cert(shown.0, shown.1).map_err(|error| {
        let of = certificate.path.display();
        key.wrong(format!("does not go with the certificate in {of}: {error}"))
    })?;
    Ok(Arc::new(config))
}
