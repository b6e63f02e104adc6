//! Durations and sizes as the configuration writes them: a whole number and its unit.
//!
//! A bare number is refused, zero included: `timeout = 45` says nothing about what is meant.
//! The submodules are serde's `with = "…"` adapters.

use std::time::Duration;

/// What a duration may look like, for error texts.
pub(super) const DURATION_FORM: &str = r#"a duration such as "250ms", "45s", "5m" or "1h""#;
/// What a size may look like, for error texts.
pub(super) const SIZE_FORM: &str = r#"a size such as "512B", "64KiB", "1MiB" or "2GiB""#;

/// Longest first, so that writing picks the largest unit that loses nothing.
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is no quantity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    #[error("{0:?} has no unit")]
    NoUnit(String),
    #[error("{0:?} has an unknown unit")]
    UnknownUnit(String),
    #[error("{0:?} is not a whole number and a unit")]
    NoNumber(String),
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Reads `"45s"`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// Reads `"64KiB"` as bytes.
pub(super) fn parse_size(text: &str) -> Result<usize, QuantityError> {
    let bytes = parse(text, &SIZES)?;
    usize::try_from(bytes).map_err(|_| QuantityError::TooLarge(text.to_owned()))
}

/// Writes what [`parse_duration`] reads; below a millisecond nothing is kept.
pub(super) fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Zero divides by every unit, and nobody writes "0h".
    if millis == 0 { "0s".to_owned() } else { format(millis, &DURATIONS) }
}

/// Writes what [`parse_size`] reads.
pub(super) fn format_size(bytes: usize) -> String {
    if bytes == 0 { "0B".to_owned() } else { format(bytes as u64, &SIZES) }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, QuantityError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(QuantityError::NoNumber(text.to_owned()));
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(QuantityError::NoUnit(text.to_owned()));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(QuantityError::UnknownUnit(text.to_owned()));
    };
    let product = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    product.ok_or_else(|| QuantityError::TooLarge(text.to_owned()))
}

fn format(amount: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().find(|(_, factor)| amount.is_multiple_of(*factor));
    let (name, factor) = fitting.unwrap_or(&("", 1));
    format!("{}{name}", amount / factor)
}

/// A [`Duration`] in serde's eyes: `"45s"`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::format_duration(*duration).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// An optional [`Duration`] in serde's eyes: `"45s"`, or absent.
pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(super::format_duration).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse_duration(&text).map_err(D::Error::custom)).transpose()
    }
}

/// A number of bytes in serde's eyes: `"64KiB"`.
pub(super) mod size {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &usize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::format_size(*bytes).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<usize, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_size(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("45s", 45_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("2 s", 2000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, bytes) in
            [("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 1 << 31)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn quantities_without_a_known_unit_or_a_whole_number_are_refused() {
        for text in
            ["45", "0", "", "s", "-1s", "1.5s", "1h30m", "45 sec", "45S", "99999999999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        for text in ["64", "64KB", "64kb", "64k", "KiB", "-1B", "1.5MiB", "99999999999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn writing_uses_the_largest_unit_that_loses_nothing() {
        assert_eq!(format_duration(Duration::from_secs(300)), "5m");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_size(65_536), "64KiB");
        assert_eq!(format_size(1000), "1000B");
    }
}
