//! The log: to standard error, since standard output is for what was asked for.
//!
//! A thread of its own writes it, as many lines at once as have come up, so that no session waits for
//! whoever reads the log, and a line costs no call of the system. It keeps a bounded number of lines
//! for a reader that stands still; what is too much then is dropped and counted, and so is what a
//! full disk does not take.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::ParseError,
    fmt::{self, FormatEvent, FormatFields, MakeWriter, SubscriberBuilder},
    util::{SubscriberInitExt, TryInitError},
};

use crate::{
    config::{LogFormat, LogSettings},
    log_level::{self, LogLevel},
};

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log.level is not understood")]
    Level(#[from] ParseError),
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
}

/// How many lines wait for a reader that stands still: some megabytes.
const WAITING_LINES: usize = 16 * 1024;

/// The log as long as it is written. Dropping it writes what waits, for a second at most.
pub(super) struct Log {
    /// Changes what is written.
    pub(super) level: LogLevel,
    dropped: ErrorCounter,
    unwritten: Arc<AtomicU64>,
    _writer: WorkerGuard,
}

impl Log {
    /// Tells how many lines were dropped so far.
    pub(super) fn lines_dropped(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let (dropped, unwritten) = (self.dropped.clone(), Arc::clone(&self.unwritten));
        Arc::new(move || dropped.dropped_lines() as u64 + unwritten.load(Relaxed))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let lines = self.lines_dropped()();
        if lines > 0 {
            tracing::warn!(lines, "lines of this log were dropped: nobody took them");
        }
    }
}

/// Sets the log of the process up; once.
pub(super) fn start(settings: &LogSettings) -> Result<Log, LoggingError> {
    let filter = log_level::filter(&settings.level)?;
    let unwritten = Arc::new(AtomicU64::new(0));
    let (writer, guard) = NonBlockingBuilder::default()
        .thread_name("log")
        .buffered_lines_limit(WAITING_LINES)
        .finish(Counted { out: BufWriter::new(io::stderr()), unwritten: Arc::clone(&unwritten) });
    let dropped = writer.error_counter();
    let lines = fmt::fmt().with_env_filter(filter).with_writer(writer);
    let level = &settings.level;
    let level = match settings.format {
        LogFormat::Auto => start_with(level, lines.with_ansi(wants_colour()))?,
        LogFormat::Human => start_with(level, lines.with_ansi(false))?,
        LogFormat::Json => start_with(level, lines.json())?,
    };
    Ok(Log { level, dropped, unwritten, _writer: guard })
}

/// Counts what cannot be written, as on a full disk: the thread that writes goes on with the next
/// line, and says nothing, having nowhere to say it.
struct Counted<W> {
    out: W,
    unwritten: Arc<AtomicU64>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    /// A line.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.out.write_all(line).inspect_err(|_| {
            self.unwritten.fetch_add(1, Relaxed);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn start_with<N, E, W>(
    level: &str,
    lines: SubscriberBuilder<N, E, EnvFilter, W>,
) -> Result<LogLevel, TryInitError>
where
    N: for<'a> FormatFields<'a> + Send + Sync + 'static,
    E: FormatEvent<Registry, N> + Send + Sync + 'static,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = lines.with_filter_reloading();
    let filter = lines.reload_handle();
    lines.finish().try_init()?;
    Ok(LogLevel::new(level, move |wanted| filter.reload(wanted).is_ok()))
}

/// See <https://no-color.org>.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}
