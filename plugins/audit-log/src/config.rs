//! The configuration.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde::Deserialize;

/// See the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub(crate) path: PathBuf,
    #[serde(default = "max_bytes")]
    pub(crate) max_bytes: ByteSize,
    #[serde(default = "keep")]
    pub(crate) keep: u32,
    #[serde(default)]
    pub(crate) payload: bool,
    #[serde(default)]
    pub(crate) fsync: bool,
    #[serde(default = "queue")]
    pub(crate) queue: usize,
    #[serde(default = "queue_bytes")]
    pub(crate) queue_bytes: ByteSize,
}

/// Rotating costs a rename for each file that is kept.
const MAX_KEEP: u32 = 1000;
const MAX_QUEUE: usize = 1 << 20;
const MIN_BYTES: ByteSize = ByteSize::kib(4);

impl Config {
    /// What is wrong beyond what types can say.
    pub(crate) fn check(&self) -> Result<(), String> {
        let path = self.path.display();
        let folder = self.path.parent().ok_or_else(|| format!("`path` {path} is no file"))?;
        // A bare name lies in the folder that the gateway was started in.
        if !folder.as_os_str().is_empty() && !folder.is_dir() {
            return Err(format!("`path` {path}: there is no folder {}", folder.display()));
        }
        if self.path.file_name().is_none() || self.path.is_dir() {
            return Err(format!("`path` {path} is a folder"));
        }
        if self.max_bytes < MIN_BYTES {
            return Err(format!("`max_bytes` is less than {MIN_BYTES}"));
        }
        if self.keep > MAX_KEEP {
            return Err(format!("`keep` is more than {MAX_KEEP}"));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            return Err(format!("`queue` is not from 1 to {MAX_QUEUE}"));
        }
        if self.queue_bytes < MIN_BYTES {
            return Err(format!("`queue_bytes` is less than {MIN_BYTES}"));
        }
        Ok(())
    }
}

const fn max_bytes() -> ByteSize {
    ByteSize::mib(64)
}

const fn keep() -> u32 {
    5
}

const fn queue() -> usize {
    8192
}

const fn queue_bytes() -> ByteSize {
    ByteSize::mib(16)
}
