//! The log: to standard error, since standard output is for what was asked for.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{LogFormat, LogSettings};

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log.level is not understood")]
    Level(#[from] ParseError),
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
}

/// The WebSocket library traces every message with its text, credentials included.
const SILENCED: &str = "tungstenite=info";
const SILENCED_TOO: &str = "tokio_tungstenite=info";

/// Sets the log of the process up; once.
pub(super) fn start(settings: &LogSettings) -> Result<(), LoggingError> {
    let mut filter = EnvFilter::try_new(&settings.level)?;
    for directive in [SILENCED, SILENCED_TOO] {
        filter = filter.add_directive(directive.parse()?);
    }
    let log = fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.format {
        LogFormat::Auto => log.with_ansi(wants_colour()).finish().try_init()?,
        LogFormat::Human => log.with_ansi(false).finish().try_init()?,
        LogFormat::Json => log.json().finish().try_init()?,
    }
    Ok(())
}

/// See <https://no-color.org>.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}
