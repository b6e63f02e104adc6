//! Points in time, as messages write them.
//!
//! A message's time is a civil date, a civil time and an offset, in one exact format; what is
//! kept is the instant. `envelope` reads them, `draft` and the gateway write them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);
const EARLIEST: DateTime = date(1, 1, 1).at(0, 0, 0, 0);
const LATEST: DateTime = DateTime::MAX;

/// A point in time, UTC, in nanoseconds. Always within the years 1 to 9999.
///
/// ```
/// # use conexus_protocol::Timestamp;
/// let time = Timestamp::parse("2026-04-10T07:00:31.075761+02:00").unwrap();
/// assert_eq!(time.to_string(), "2026-04-10T05:00:31.075761Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime);

impl Timestamp {
    /// Reads `YYYY-MM-DDTHH:MM:SS[.fraction][Z|+HH:MM|-HH:MM]` with up to nine fraction digits;
    /// no zone means UTC. No leap seconds. An instant that its offset carries out of the years
    /// 1 to 9999 counts as their end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.as_bytes();
        let year = number(&mut rest, 4)?;
        let month = preceded(b'-', &mut rest)?;
        let day = preceded(b'-', &mut rest)?;
        let hour = preceded(b'T', &mut rest)?;
        let minute = preceded(b':', &mut rest)?;
        let second = preceded(b':', &mut rest)?;
        let nanosecond = fraction(&mut rest)?;
        let offset = offset(rest)?;
        if year == 0 {
            return None;
        }
        let civil = DateTime::new(
            i16::try_from(year).ok()?,
            i8::try_from(month).ok()?,
            i8::try_from(day).ok()?,
            i8::try_from(hour).ok()?,
            i8::try_from(minute).ok()?,
            i8::try_from(second).ok()?,
            i32::try_from(nanosecond).ok()?,
        );
        let civil = civil.ok()?;
        // Most are in UTC, and arithmetic takes longer than all the rest.
        Some(Self::clamped(if offset.is_zero() { civil } else { civil.saturating_sub(offset) }))
    }

    /// The time by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// The instant that many milliseconds after the Unix epoch.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        Self::after_epoch(SignedDuration::from_millis(millis))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn as_unix_nanos(&self) -> i128 {
        self.0.duration_since(EPOCH).as_nanos()
    }

    /// Whole milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub fn as_unix_millis(&self) -> i64 {
        // The years 1 to 9999 are within 2^48 milliseconds of the epoch.
        i64::try_from(self.as_unix_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    fn after_epoch(duration: SignedDuration) -> Self {
        Self::clamped(EPOCH.saturating_add(duration))
    }

    fn clamped(civil: DateTime) -> Self {
        Self(civil.clamp(EARLIEST, LATEST))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX),
            Err(before) => SignedDuration::try_from(before.duration())
                .map_or(SignedDuration::MIN, |duration| -duration),
        };
        Self::after_epoch(since_epoch)
    }
}

/// `digits` decimal digits, taken off the front.
fn number(rest: &mut &[u8], digits: usize) -> Option<u32> {
    let (head, tail) = rest.split_at_checked(digits)?;
    *rest = tail;
    head.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// Two digits after `separator`.
fn preceded(separator: u8, rest: &mut &[u8]) -> Option<u32> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    if *first == separator { number(rest, 2) } else { None }
}

/// Nanoseconds: a point and one to nine digits, or nothing.
fn fraction(rest: &mut &[u8]) -> Option<u32> {
    let Some((b'.', tail)) = rest.split_first() else { return Some(0) };
    let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    *rest = tail;
    let scale = 10u32.pow(9 - u32::try_from(digits).ok()?);
    Some(number(rest, digits)? * scale)
}

/// What the zone is ahead of UTC: `Z`, `+HH:MM`, `-HH:MM` or nothing.
fn offset(mut rest: &[u8]) -> Option<SignedDuration> {
    let sign = match rest {
        [] | [b'Z'] => return Some(SignedDuration::ZERO),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let hours = preceded(rest[0], &mut rest)?;
    let minutes = preceded(b':', &mut rest)?;
    if hours > 23 || minutes > 59 || !rest.is_empty() {
        return None;
    }
    Some(SignedDuration::from_mins(sign * i64::from(hours * 60 + minutes)))
}

/// RFC 3339 with six fraction digits and `Z`, as the reference writes it.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.0;
        write!(f, "{:04}-{:02}-{:02}", time.year(), time.month(), time.day())?;
        write!(f, "T{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())?;
        write!(f, ".{:06}Z", time.subsec_nanosecond() / 1000)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a timestamp"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        Timestamp::parse(text).map(|time| time.to_string())
    }

    #[test]
    fn every_zone_comes_out_as_utc() {
        let utc = "2026-01-12T10:00:00.500000Z";
        for text in [
            "2026-01-12T10:00:00.5Z",
            "2026-01-12T10:00:00.50",
            "2026-01-12T12:30:00.5+02:30",
            "2026-01-12T02:00:00.500000000-08:00",
        ] {
            assert_eq!(shown(text).as_deref(), Some(utc), "{text}");
        }
    }

    #[test]
    fn anything_but_the_one_format_is_refused() {
        for text in [
            "",
            "now",
            "0000-01-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-01-12T24:00:00Z",
            "2026-01-12T23:59:60Z",
            "2026-01-12T10:00Z",
            "2026-01-12 10:00:00Z",
            "2026-01-12t10:00:00z",
            "2026-01-12T10:00:00.Z",
            "2026-01-12T10:00:00.1234567890Z",
            "2026-01-12T10:00:00+0100",
            "2026-01-12T10:00:00+24:00",
            "2026-01-12T10:00:00+00:60",
            "2026-01-12T10:00:00+00:00Z",
            "2026-01-12T10:00:00Z ",
            " 2026-01-12T10:00:00Z",
            "+026-01-12T10:00:00Z",
            "2026-01-12T10:00:0\u{661}Z",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn the_ends_of_time_stay_within_four_digits_of_year() {
        let last = "9999-12-31T23:59:59.999999Z";
        assert_eq!(shown(last).as_deref(), Some(last));
        assert_eq!(shown("9999-12-31T23:59:59-23:59").as_deref(), Some(last));
        let first = "0001-01-01T00:00:00.000000Z";
        assert_eq!(shown("0001-01-01T00:00:00+23:59").as_deref(), Some(first));
        assert_eq!(Timestamp::from_unix_millis(i64::MIN).to_string(), first);
        assert_eq!(Timestamp::from_unix_millis(i64::MAX).to_string(), last);
    }

    #[test]
    fn instants_count_from_the_unix_epoch() {
        let time = Timestamp::parse("1970-01-02T00:00:00.000000001Z").unwrap();
        assert_eq!(time.as_unix_nanos(), 86_400_000_000_001);
        assert_eq!(time.as_unix_millis(), 86_400_000);
        let before = Timestamp::from_unix_millis(-1);
        assert_eq!(before.to_string(), "1969-12-31T23:59:59.999000Z");
        assert_eq!(before.as_unix_millis(), -1);
        assert_eq!(Timestamp::from(UNIX_EPOCH).as_unix_nanos(), 0);
    }

    #[test]
    fn timestamps_serialize_as_their_text() {
        let time = Timestamp::parse("2026-04-10T05:00:31.075761Z").unwrap();
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, r#""2026-04-10T05:00:31.075761Z""#);
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
    }
}
