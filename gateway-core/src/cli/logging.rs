//! The log: to standard error, since standard output is for what was asked for.
//!
//! A thread of its own writes it, as many lines at once as have come up, so that no session waits for
//! whoever reads the log, and a line costs no call of the system. It keeps a bounded number of lines
//! for a reader that stands still; what is too much then is dropped and counted.

use std::io::{self, BufWriter, IsTerminal};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
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

/// How many lines wait for a reader that stands still: some megabytes.
const WAITING_LINES: usize = 16 * 1024;

/// The log as long as it is written. Dropping it writes what waits, for a second at most.
pub(super) struct Log {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Drop for Log {
    fn drop(&mut self) {
        let lines = self.dropped.dropped_lines();
        if lines > 0 {
            tracing::warn!(lines, "lines of this log were dropped: nobody took them");
        }
    }
}

/// Sets the log of the process up; once.
pub(super) fn start(settings: &LogSettings) -> Result<Log, LoggingError> {
    let mut filter = EnvFilter::try_new(&settings.level)?;
    for directive in [SILENCED, SILENCED_TOO] {
        filter = filter.add_directive(directive.parse()?);
    }
    let (writer, guard) = NonBlockingBuilder::default()
        .thread_name("log")
        .buffered_lines_limit(WAITING_LINES)
        .finish(BufWriter::new(io::stderr()));
    let log = Log { dropped: writer.error_counter(), _writer: guard };
    let lines = fmt().with_env_filter(filter).with_writer(writer);
    match settings.format {
        LogFormat::Auto => lines.with_ansi(wants_colour()).finish().try_init()?,
        LogFormat::Human => lines.with_ansi(false).finish().try_init()?,
        LogFormat::Json => lines.json().finish().try_init()?,
    }
    Ok(log)
}

/// See <https://no-color.org>.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}
