//! Why a plugin was not loaded.

use std::{io, path::PathBuf};

use conexus_plugin_api::host::Mismatch;

/// Why a plugin was not loaded. Each names what it is about and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Not linked in.
    #[error("no plugin {name:?} is linked into this gateway; {}", linked(.known))]
    NotLinked {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither a file nor a folder.
    #[error("{}: neither a file nor a folder", file.display())]
    NoFile {
        /// It.
        file: PathBuf,
    },
    /// A folder does not tell which of its files is meant.
    #[error("{}: a folder; `crate` has to say which library in it is meant", folder.display())]
    FolderNeedsCrate {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder has no such library.
    #[error("{}: has no {file}", folder.display())]
    NotInFolder {
        /// The folder.
        folder: PathBuf,
        /// What was looked for.
        file: String,
    },
    /// The file's name is not that of a library.
    #[error("{}: its name does not tell its crate's; `crate` has to say it", file.display())]
    NoCrateName {
        /// The file.
        file: PathBuf,
    },
    /// Larger than any library.
    #[error("{}: larger than {max} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The bound.
        max: u64,
    },
    /// Not the content that was pinned.
    #[error("{}: its SHA-256 is {found}, the configuration pins {pinned}", file.display())]
    Pin {
        /// The file.
        file: PathBuf,
        /// As it is.
        found: String,
        /// As it should be.
        pinned: String,
    },
    /// Not something that can be loaded here.
    #[error("{}: {why}", file.display())]
    Image {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A library, but not this plugin.
    #[error("{}: it does not export {symbol}: {}", file.display(), exported(.plugins))]
    NoSymbol {
        /// The file.
        file: PathBuf,
        /// What was looked for.
        symbol: String,
        /// Other plugins that it is.
        plugins: Vec<String>,
    },
    /// The private copy cannot be made.
    #[error("{}: cannot copy it to {}: {source}", file.display(), to.display())]
    Copy {
        /// The file.
        file: PathBuf,
        /// Where to.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system's loader refuses it.
    #[error("{}: cannot be loaded: {why}", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// What the loader says.
        why: String,
    },
    /// It is a plugin, but not for this gateway.
    #[error("{name}: {mismatch}")]
    Mismatch {
        /// The file, or the name of what is linked in.
        name: String,
        /// Why.
        mismatch: Mismatch,
    },
    /// No more.
    #[error(
        "{}: {loaded} plugin libraries were loaded since the gateway started, the most that \
         may be (libraries stay in memory when they are replaced); restart it", file.display()
    )]
    TooMany {
        /// The file.
        file: PathBuf,
        /// How many.
        loaded: usize,
    },
}

fn linked(known: &[String]) -> String {
    match known {
        [] => "none is".into(),
        known => format!("there are {}", known.join(", ")),
    }
}

fn exported(plugins: &[String]) -> String {
    match plugins {
        [] => "it is no Conexus plugin, or its crate has another name (see `crate`)".into(),
        plugins => format!("it is the plugin of the crate {}", plugins.join(", ")),
    }
}
