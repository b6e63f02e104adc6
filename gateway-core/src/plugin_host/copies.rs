//! The private folder in which the copies lie that are loaded.

use std::{
    fs::{OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tempfile::TempDir;

/// Made at the first copy, removed when dropped.
#[derive(Debug)]
pub(super) struct Copies {
    parent: PathBuf,
    folder: Mutex<Option<TempDir>>,
}

impl Copies {
    pub(super) fn new(parent: Option<PathBuf>) -> Self {
        Self { parent: parent.unwrap_or_else(std::env::temp_dir), folder: Mutex::new(None) }
    }

    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    /// Writes a copy that only this process's user can touch.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let mut folder = self.folder.lock();
        let folder = match &mut *folder {
            Some(folder) => folder,
            none => none.insert(
                tempfile::Builder::new()
                    .prefix("conexus-plugins-")
                    .permissions(Permissions::from_mode(0o700))
                    .tempdir_in(&self.parent)?,
            ),
        };
        let copy = folder.path().join(name);
        // A copy that was not finished is of no use to anybody.
        if let Err(error) = write_new(&copy, bytes) {
            let _ = std::fs::remove_file(&copy);
            return Err(error);
        }
        Ok(copy)
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
