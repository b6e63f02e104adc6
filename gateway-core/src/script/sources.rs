//! The texts of scripts and modules, and where they may lie.
//!
//! A script names its modules as `import "lib/NAME" as alias;`: files in the folder `lib` of the
//! scripts folder and nowhere else, however the name or a symbolic link tries.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::hooks::SourceFile;

/// The largest script.
const MAX_SOURCE_BYTES: u64 = 1 << 20;

/// The largest list that a configuration names.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// A text that was read, under the name that errors give it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// `allowlist.rhai`, `lib/nets.rhai`: relative to the scripts folder.
    pub(super) name: Arc<str>,
    pub(super) text: Arc<str>,
    /// None for a text that is in no file.
    pub(super) file: Option<SourceFile>,
}

impl Source {
    /// Reads a script or module.
    pub(super) fn read(path: &Path, name: &str) -> io::Result<Self> {
        let (text, file) = read_text(path, MAX_SOURCE_BYTES)?;
        Ok(Self { name: name.into(), text: text.into(), file: Some(file) })
    }
}

/// Reads a list that a configuration names.
pub(super) fn read_list(path: &Path) -> io::Result<(String, SourceFile)> {
    read_text(path, MAX_LIST_BYTES)
}

fn read_text(path: &Path, max_bytes: u64) -> io::Result<(String, SourceFile)> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("larger than {} MiB", max_bytes >> 20)));
    }
    let sha256 = hex(&Sha256::digest(&bytes));
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("is not UTF-8"))?;
    Ok((text, SourceFile { path: path.to_owned(), sha256 }))
}

/// The folder of modules, below that of scripts.
const MODULES: &str = "lib";

/// The file of a script. Where links in the folder lead is up to the operator.
pub(super) fn locate(root: &Path, name: &str) -> io::Result<PathBuf> {
    let relative = PathBuf::from(format!("{name}.rhai"));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || name.is_empty() || name.contains(['\\', '\0']) {
        return Err(io::Error::other("is not a plain name"));
    }
    Ok(root.join(relative))
}

/// The file of a module, which a script names: in the folder `lib`, also when links are followed.
pub(super) fn locate_module(root: &Path, name: &str) -> io::Result<PathBuf> {
    let path = locate(root, name)?;
    let folder = root.join(MODULES);
    if !path.starts_with(&folder) {
        return Err(io::Error::other(format!("is not in the folder {MODULES}")));
    }
    if !path.canonicalize()?.starts_with(folder.canonicalize()?) {
        return Err(io::Error::other("leads out of the folder"));
    }
    Ok(path)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
