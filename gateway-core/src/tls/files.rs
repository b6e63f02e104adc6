//! PEM files: chains, keys and authorities, and errors that name file and setting.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};

/// A PEM file larger than this is none: chains have a few kilobytes, all public authorities 250.
const LARGEST: u64 = 4 << 20;

/// Why there is no TLS by these files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// It is not there, or not for us.
    #[error("{key}: {} cannot be read: {source}", path.display())]
    Read {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else is in it.
    #[error("{key}: {}: {problem}", path.display())]
    Content {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Each is well, but not together.
    #[error("tls.key: {} is not the key of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The library refuses what it was given.
    #[error("tls: {0}")]
    Library(#[from] rustls::Error),
    /// TLS is turned on or off.
    #[error("tls.certificate: TLS can be turned on and off by a restart alone")]
    Toggled,
}

/// A file that was read, to tell whether it has changed.
pub(super) type Seen = (PathBuf, String);

/// A setting's file.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    pub(crate) key: &'static str,
    pub(crate) path: &'a Path,
}

impl File<'_> {
    /// The content, and what to know it by.
    fn read(self, seen: &mut Vec<Seen>) -> Result<Vec<u8>, TlsError> {
        let failed = |source| TlsError::Read { key: self.key, path: self.path.into(), source };
        let metadata = fs::metadata(self.path).map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if metadata.len() > LARGEST {
            return Err(self.wrong("is far too large for a PEM file"));
        }
        let content = fs::read(self.path).map_err(failed)?;
        let hash = Sha256::digest(&content);
        seen.push((self.path.to_owned(), hash.iter().map(|byte| format!("{byte:02x}")).collect()));
        Ok(content)
    }

    pub(super) fn wrong(self, problem: impl Into<String>) -> TlsError {
        TlsError::Content { key: self.key, path: self.path.into(), problem: problem.into() }
    }

    /// One certificate at least, in the order of the file.
    pub(super) fn certificates(
        self,
        seen: &mut Vec<Seen>,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let content = self.read(seen)?;
        let certificates = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| self.wrong(broken(&error)))?;
        if certificates.is_empty() {
            return Err(self.wrong(
                "has no certificate: expected \"-----BEGIN CERTIFICATE-----\", the leaf first",
            ));
        }
        Ok(certificates)
    }

    pub(super) fn private_key(
        self,
        seen: &mut Vec<Seen>,
    ) -> Result<PrivateKeyDer<'static>, TlsError> {
        let content = self.read(seen)?;
        let has = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
        PrivateKeyDer::from_pem_slice(&content).map_err(|error| {
            self.wrong(match error {
                // Of PKCS#8, and the older form of OpenSSL.
                _ if has("ENCRYPTED") => {
                    "the key is encrypted, and nobody is here to give the passphrase".to_owned()
                }
                rustls::pki_types::pem::Error::NoItemsFound => {
                    "has no private key: expected PEM with PKCS#8, PKCS#1 or SEC1".to_owned()
                }
                error => broken(&error),
            })
        })
    }

    /// The authorities that clients' certificates are checked against.
    pub(super) fn authorities(self, seen: &mut Vec<Seen>) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in self.certificates(seen)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| {
                self.wrong(format!("certificate {} is no authority: {error}", index + 1))
            })?;
        }
        Ok(roots)
    }

    /// What others may do with the file, where that is anything.
    pub(super) fn open_to_others(self) -> Option<String> {
        let mode = fs::metadata(self.path).ok()?.permissions().mode();
        (mode & 0o007 != 0).then(|| {
            let (path, mode) = (self.path.display(), mode & 0o777);
            format!("{}: {path} is open to every user of the machine (mode {mode:o})", self.key)
        })
    }
}

fn broken(error: &rustls::pki_types::pem::Error) -> String {
    format!("is no valid PEM: {error}")
}
