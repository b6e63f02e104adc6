//! A secret that cannot be printed by accident.
//!
//! Written in the configuration as a string, `{ file = "…" }` or `{ env = "…" }`. The loader
//! resolves the last two itself, since it knows which folder a path is relative to; the
//! `Deserialize` here is for settings read by other means.

use std::{
    fmt::{self, Display, Formatter},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use subtle::ConstantTimeEq;

/// A secret text. `Debug`, `Display` and `Serialize` give `<secret>`; only [`Secret::expose`]
/// gives the text.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares with what a peer sent, in a time that does not tell how much of it was right.
    pub fn matches(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl Display for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = SecretSource::deserialize(deserializer)?;
        source.read(Path::new(""), |name| std::env::var(name).ok()).map_err(D::Error::custom)
    }
}

/// Where a secret is to be found.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, { file = \"…\" } or { env = \"…\" }")]
pub(super) enum SecretSource {
    Text(String),
    File(InFile),
    Env(InEnv),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFile {
    pub(super) file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InEnv {
    pub(super) env: String,
}

/// Why a secret could not be had. Never contains any of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error("the secret is empty")]
    Empty,
    #[error("the secret's file {} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the secret's environment variable {0} is not set")]
    Env(String),
}

impl SecretSource {
    /// Fetches the secret; a relative path starts at `folder`.
    pub(super) fn read(
        self,
        folder: &Path,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Text(text) => text,
            Self::File(InFile { file }) => read_file(&folder.join(file))?,
            Self::Env(InEnv { env: name }) => env(&name).ok_or(SecretError::Env(name))?,
        };
        if text.is_empty() { Err(SecretError::Empty) } else { Ok(Secret(text)) }
    }
}

/// Editors and `echo` end a file with a newline that is no part of the secret.
fn read_file(path: &Path) -> Result<String, SecretError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::File { path: path.to_owned(), source })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "<secret> <secret> Some(<secret>)"
        );
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""<secret>""#);
    }

    #[test]
    fn a_secret_file_loses_its_last_newline_only() {
        let folder = tempfile::tempdir().unwrap();
        for (written, read) in [("a b\n", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a ", "a ")] {
            std::fs::write(folder.path().join("token"), written).unwrap();
            let source = SecretSource::File(InFile { file: "token".into() });
            assert_eq!(source.read(folder.path(), |_| None).unwrap().expose(), read);
        }
    }

    #[test]
    fn only_the_same_text_matches() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches("hunter2"));
        for wrong in ["", "hunter", "hunter22", "Hunter2"] {
            assert!(!secret.matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_secret_deserializes_from_a_text_alone_a_file_or_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "from the file\n").unwrap();
        let read = |json: serde_json::Value| serde_json::from_value::<Secret>(json);
        assert_eq!(read("plain".into()).unwrap().expose(), "plain");
        assert_eq!(read(serde_json::json!({"file": path})).unwrap().expose(), "from the file");
        assert_eq!(
            read(serde_json::json!({"env": "CARGO_PKG_NAME"})).unwrap().expose(),
            std::env::var("CARGO_PKG_NAME").unwrap()
        );
        assert!(read(serde_json::json!({"env": "CARGO_PKG_NAME", "file": "x"})).is_err());
        assert!(read("".into()).is_err());
    }
}
