//! The file that holds a private key: readable by its owner alone from the moment it exists.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use conexus_protocol::Identity;

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("key file {} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("key file {} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("key file {} exists; --force overwrites it, and its identity is lost", .0.display())]
    Exists(PathBuf),
    #[error("key file {} is no Ed25519 private key in PKCS#8 PEM", path.display())]
    Content { path: PathBuf, source: conexus_protocol::KeyFileError },
}

/// Reads the identity, or makes one if the file does not exist.
pub(super) fn open(path: &Path) -> Result<Identity, KeyFileError> {
    let pem = match read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path),
        Err(source) => return Err(KeyFileError::Read { path: path.to_owned(), source }),
    };
    warn_if_open_to_others(path);
    Identity::from_pem(&pem)
        .map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}

/// A key file is a few lines; anything longer is another file, which need not have an end.
fn read(path: &Path) -> io::Result<String> {
    const MOST: u64 = 64 * 1024;
    let mut pem = String::new();
    File::open(path)?.take(MOST).read_to_string(&mut pem)?;
    Ok(pem)
}

fn make(path: &Path) -> Result<Identity, KeyFileError> {
    let identity = Identity::generate();
    write(path, &identity, false)?;
    tracing::info!(path = %path.display(), did = identity.did(), "made a private key");
    Ok(identity)
}

/// Writes the key. What is there already stays unless `overwrite`, and then until the new file
/// is complete.
pub(super) fn write(path: &Path, identity: &Identity, overwrite: bool) -> Result<(), KeyFileError> {
    let pem = identity.to_pem();
    let written =
        if overwrite { replace(path, &pem, PRIVATE) } else { write_new(path, &pem, PRIVATE) };
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
        _ => KeyFileError::Write { path: path.to_owned(), source },
    })
}

/// Readable by its owner alone.
const PRIVATE: u32 = 0o600;

/// Writes a file whole, in place of one that may be there.
pub(super) fn replace(path: &Path, pem: &str, mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    // What a crash left behind is in nobody's way.
    let _ = fs::remove_file(&draft);
    write_new(&draft, pem, mode)?;
    fs::rename(&draft, path).inspect_err(|_| drop(fs::remove_file(&draft)))
}

fn write_new(path: &Path, pem: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
    // Half a key is none, and would stand in the way of the next attempt.
    written.inspect_err(|_| drop(fs::remove_file(path)))
}

fn warn_if_open_to_others(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(path = %path.display(), mode, "the private key is open to other users");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_missing_key_is_made_for_its_owner_alone_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conexus.key");
        let first = open(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(open(&path).unwrap().did(), first.did());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_key_is_overwritten_on_demand_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conexus.key");
        fs::write(&path, "precious").unwrap();
        let identity = Identity::generate();
        assert!(matches!(write(&path, &identity, false), Err(KeyFileError::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        write(&path, &identity, true).unwrap();
        assert_eq!(open(&path).unwrap().did(), identity.did());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = folder.path().join("wrong.key");
        for content in
            ["", "no key", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            fs::write(&wrong, content).unwrap();
            let error = open(&wrong).map(|_| ()).unwrap_err();
            assert!(
                matches!(error, KeyFileError::Content { .. })
                    && error.to_string().contains("wrong.key")
            );
        }
        let error = open(&folder.path().join("absent/conexus.key")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("absent/conexus.key cannot be written"), "{error}");
    }
}
