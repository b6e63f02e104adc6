//! Where a setting came from, and what is wrong with it.

use std::{
    fmt::{self, Display, Formatter},
    ops::Range,
    path::PathBuf,
};

/// Where the value of a key was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is built in.
    Default,
    /// In a file; the path is relative to the working directory where it lies below it.
    File {
        /// The file.
        path: PathBuf,
        /// Absent when the file as a whole is meant.
        position: Option<Position>,
    },
    /// By the environment variable of this name.
    Env(String),
    /// By `--set`.
    Set,
}

/// A place in a file, counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// Where a byte span of `text` begins.
    pub(super) fn of(text: &str, span: &Range<usize>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, position: None } => write!(f, "{}", path.display()),
            Self::File { path, position: Some(Position { line, column }) } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// One thing wrong with the configuration. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands.
    pub origin: Origin,
    /// The key that it is about, as written; absent when it is about a whole file.
    pub key: Option<String>,
    /// What is wrong and what is accepted.
    pub problem: String,
    /// The known key, section or name that comes nearest to an unknown one.
    pub nearest: Option<String>,
}

impl Fault {
    /// A fault in the value of a key.
    pub(super) fn of(key: impl Into<String>, problem: impl Into<String>, origin: Origin) -> Self {
        Self { origin, key: Some(key.into()), problem: problem.into(), nearest: None }
    }

    /// With the name that was probably meant.
    pub(super) fn near(self, nearest: Option<impl Into<String>>) -> Self {
        Self { nearest: nearest.map(Into::into), ..self }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.problem)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest}?"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a configuration; never empty. `Display` gives a line per fault.
#[derive(Debug)]
pub struct ConfigErrors(Vec<Fault>);

impl ConfigErrors {
    /// `None` if there are no faults.
    pub(super) fn from_faults(faults: Vec<Fault>) -> Option<Self> {
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// The faults, layer by layer.
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

impl Display for ConfigErrors {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
