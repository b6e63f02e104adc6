//! `conexus keygen`: a private key, for a gateway or for an agent.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use conexus_protocol::Identity;

use super::keyfile::{self, KeyFileError};

#[derive(clap::Args)]
pub(super) struct Options {
    /// Write the key to this file and its DID to standard output. Without it, the key goes to
    /// standard output and the DID to standard error
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Overwrite an existing file
    #[arg(long, requires = "out")]
    force: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

pub(super) fn keygen(options: &Options) -> Result<ExitCode, KeygenError> {
    let identity = Identity::generate();
    match &options.out {
        Some(path) => {
            keyfile::write(path, &identity, options.force)?;
            writeln!(io::stdout(), "{}", identity.did())?;
        }
        None => {
            io::stdout().write_all(identity.to_pem().as_bytes())?;
            writeln!(io::stderr(), "{}", identity.did())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
