//! `conexus run`: configuration, log, identity, and then the gateway until a signal.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use crate::{
    config::{self, ConfigErrors, Sources},
    gateway::{Gateway, GatewayError},
};

use super::{
    keyfile::{self, KeyFileError},
    logging::{self, LoggingError},
    signals::Signals,
};

/// Why the gateway did not start, or broke.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the configuration is faulty:\n{0}")]
    Config(ConfigErrors),
    #[error(transparent)]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    Identity(#[from] KeyFileError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    #[error("cannot print")]
    Print(#[source] io::Error),
}

pub(super) async fn run(sources: &Sources) -> Result<ExitCode, RunError> {
    let loaded = config::load(sources).map_err(RunError::Config)?;
    logging::start(&loaded.settings.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_open_files();
    let signals = Signals::catch().map_err(RunError::Signals)?;
    let identity = keyfile::open(&loaded.settings.server.identity)?;

    let gateway = Gateway::bind(Arc::new(loaded.settings), identity).await?;
    announce(&gateway).map_err(RunError::Print)?;
    gateway.run(signals.stop_requested()).await;
    Ok(ExitCode::SUCCESS)
}

/// The line that says that agents may come; scripts wait for it.
fn announce(gateway: &Gateway) -> io::Result<()> {
    let hooks = match gateway.hook_count() {
        1 => "1 hook".to_owned(),
        count => format!("{count} hooks"),
    };
    let (address, did) = (gateway.local_addr(), gateway.did());
    let mut out = io::stdout().lock();
    writeln!(out, "conexus listening on ws://{address}/ws as {did} ({hooks})")?;
    out.flush()
}

/// Each agent is an open file, and the soft limit is often 1024.
fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}
