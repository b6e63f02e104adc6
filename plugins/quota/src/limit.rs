//! One limit: so much of something in a window of the clock.

use std::{fmt, time::Duration};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Messages,
    Bytes,
}

/// Over which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    Minute,
    Hour,
    Day,
}

/// So much of something in a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    unit: Unit,
    window: Window,
    pub(crate) max: i64,
    warn: Option<i64>,
}

impl Window {
    const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }
}

impl Limit {
    pub(crate) fn new(unit: Unit, window: Window, max: u64, warn_at: Option<f64>) -> Self {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a share")]
        let warn = warn_at.map(|share| (max as f64 * share).ceil() as i64);
        Self { unit, window, max, warn }
    }

    /// What a message of this many bytes uses up.
    pub(crate) fn amount(&self, bytes: usize) -> i64 {
        match self.unit {
            Unit::Messages => 1,
            Unit::Bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }

    /// Under which the window of this moment is counted for an agent.
    pub(crate) fn key(&self, agent: &str, now_ms: i64) -> String {
        format!("{self}:{}:{agent}", now_ms.div_euclid(self.window.seconds() * 1000))
    }

    /// How long until the window ends; more than nothing.
    pub(crate) fn left(&self, now_ms: i64) -> Duration {
        let length = self.window.seconds() * 1000;
        Duration::from_millis((length - now_ms.rem_euclid(length)).unsigned_abs())
    }

    /// Whether adding `amount` to reach `sum` crossed the line at which to warn.
    pub(crate) fn crosses(&self, amount: i64, sum: i64) -> bool {
        self.warn.is_some_and(|line| sum >= line && sum.saturating_sub(amount) < line)
    }
}

/// As in the configuration: `bytes_per_day`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Messages => "messages",
            Unit::Bytes => "bytes",
        };
        let window = match self.window {
            Window::Minute => "minute",
            Window::Hour => "hour",
            Window::Day => "day",
        };
        write!(f, "{unit}_per_{window}")
    }
}

/// A time in words short enough for an answer: `2h 5m`, `45s`. Rounded up.
pub(crate) fn words(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_clock() {
        let limit = Limit::new(Unit::Messages, Window::Hour, 1, None);
        assert_eq!(limit.key("x", 3_599_999), "messages_per_hour:0:x");
        assert_eq!(limit.key("x", 3_600_000), "messages_per_hour:1:x");
        assert_eq!(limit.left(3_599_999), Duration::from_millis(1));
        assert_eq!(limit.left(3_600_000), Duration::from_secs(3600));
        assert_eq!(limit.key("x", -1), "messages_per_hour:-1:x");
        assert_eq!(limit.left(-1), Duration::from_millis(1));
    }

    #[test]
    fn the_line_is_crossed_once() {
        let limit = Limit::new(Unit::Messages, Window::Day, 10, Some(0.75));
        let crossings: Vec<_> = (1..=10).filter(|sum| limit.crosses(1, *sum)).collect();
        assert_eq!(crossings, [8]);
        assert!(limit.crosses(9, 9));
    }

    #[test]
    fn times_are_said_shortly() {
        for (millis, said) in [(1, "1s"), (45_000, "45s"), (60_001, "1m 1s"), (7_500_000, "2h 5m")]
        {
            assert_eq!(words(Duration::from_millis(millis)), said);
        }
    }
}
