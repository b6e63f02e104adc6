//! The level of the log, which can be changed while it is written.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// The WebSocket library traces every message with its text, credentials included.
const SILENCED: [&str; 2] = ["tungstenite=info", "tokio_tungstenite=info"];

/// Puts another filter in place of the one in effect; false when there is no log any more.
type Apply = dyn Fn(EnvFilter) -> bool + Send + Sync;

/// The level of a log. Cheap to clone.
#[derive(Clone)]
pub struct LogLevel(Arc<Shared>);

struct Shared {
    text: Mutex<String>,
    apply: Box<Apply>,
}

impl LogLevel {
    /// Of a log whose filter is changed by `apply`, and was made of `text`.
    pub fn new(text: &str, apply: impl Fn(EnvFilter) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { text: Mutex::new(text.to_owned()), apply: Box::new(apply) }))
    }

    /// Of no log: what is set is only remembered.
    pub fn of_none() -> Self {
        Self::new("off", |_| true)
    }

    /// What it is now, as it was written.
    pub fn get(&self) -> String {
        self.0.text.lock().clone()
    }

    /// Changes it.
    ///
    /// # Errors
    /// What is wrong with the text; then everything stays as it was.
    pub fn set(&self, text: &str) -> Result<(), LevelError> {
        // A path within the library would be closer than what silences it.
        if text.contains("tungstenite") {
            return Err(LevelError::Silenced);
        }
        if !crate::config::is_log_level(text) {
            return Err(LevelError::NotUnderstood(text.to_owned()));
        }
        let filter = filter(text).map_err(|_| LevelError::NotUnderstood(text.to_owned()))?;
        let mut shown = self.0.text.lock();
        if !(self.0.apply)(filter) {
            return Err(LevelError::NoLog);
        }
        text.clone_into(&mut shown);
        Ok(())
    }
}

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LevelError {
    /// It is no level.
    #[error(
        "level: {0:?} is not understood; expected a level such as \"info\" or a list such as \"info,conexus_gateway::session=debug\""
    )]
    NotUnderstood(String),
    /// It names a library that traces credentials.
    #[error("level: tungstenite stays at info, since it traces every message with its text")]
    Silenced,
    /// Nothing is logged any more.
    #[error("there is no log")]
    NoLog,
}

/// The filter of a level, never with what must not be logged.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let mut filter = EnvFilter::try_new(text)?;
    for directive in SILENCED {
        filter = filter.add_directive(directive.parse()?);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_changes_nothing() {
        let level = LogLevel::new("info", |_| true);
        for wrong in ["", "inof", "info,", "a=loud", "x[y"] {
            let fault = level.set(wrong).unwrap_err();
            assert!(fault.to_string().contains(&format!("{wrong:?}")), "{fault}");
        }
        assert_eq!(level.get(), "info");
        level.set("warn,conexus_gateway::session=debug").unwrap();
        assert_eq!(level.get(), "warn,conexus_gateway::session=debug");
    }

    #[test]
    fn messages_are_never_traced() {
        for text in ["trace", "tungstenite=trace", "trace,tokio_tungstenite=trace"] {
            let filter = filter(text).unwrap().to_string();
            for silenced in SILENCED {
                assert!(filter.split(',').any(|directive| directive == silenced), "{filter}");
            }
        }
        let level = LogLevel::new("info", |_| true);
        assert_eq!(level.set("tungstenite::protocol=trace"), Err(LevelError::Silenced));
    }
}
