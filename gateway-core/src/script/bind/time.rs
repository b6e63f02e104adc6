//! Time: durations as scripts write them, the wall clock, calendars.

use std::time::Duration;

use jiff::{
    Timestamp,
    tz::{Offset, TimeZone},
};
use rhai::{Dynamic, Map, NativeCallContext};

use super::{Bindings, Fallible, ask};
use crate::config::units;

/// What no duration may exceed.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A number of seconds, or a text such as `"250ms"`.
pub(crate) fn duration(value: &Dynamic) -> Result<Duration, String> {
    let parsed = if let Ok(seconds) = value.as_int() {
        u64::try_from(seconds).ok().map(Duration::from_secs)
    } else if let Ok(seconds) = value.as_float() {
        Duration::try_from_secs_f64(seconds).ok()
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        return match units::parse_duration(&text) {
            Ok(duration) if duration <= LONGEST => Ok(duration),
            Ok(_) => Err(format!("{text:?} is too long")),
            Err(error) => Err(error.to_string()),
        };
    } else {
        None
    };
    parsed.filter(|duration| *duration <= LONGEST).ok_or_else(|| {
        format!(
            r#"{value} is no duration; write seconds, or a text such as "250ms", "45s" or "5m""#
        )
    })
}

/// Unix seconds, or an RFC 3339 text, in Unix milliseconds.
pub(crate) fn instant_ms(value: &Dynamic) -> Result<i64, String> {
    if let Ok(seconds) = value.as_int() {
        seconds.checked_mul(1000).ok_or_else(|| format!("{seconds} is out of range"))
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        let moment: Timestamp = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        Ok(moment.as_millisecond())
    } else {
        Err("a moment is written as Unix seconds or as \"2025-01-31T12:00:00Z\"".to_owned())
    }
}

/// An IANA name, `UTC`, or an offset such as `+02:00`.
fn zone(name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let unknown = || format!("there is no time zone {name:?}");
    match name.strip_prefix(['+', '-']) {
        Some(offset) => {
            let (hours, minutes) = offset.split_once(':').ok_or_else(unknown)?;
            let number = |text: &str| text.parse::<i32>().ok().filter(|_| text.len() == 2);
            let (hours, minutes) =
                number(hours).zip(number(minutes)).filter(|(_, m)| *m < 60).ok_or_else(unknown)?;
            let seconds = (hours * 60 + minutes) * 60;
            let signed = if name.starts_with('-') { -seconds } else { seconds };
            Offset::from_seconds(signed).map(TimeZone::fixed).map_err(|_| unknown())
        }
        None => jiff::tz::db().get(name).map_err(|_| unknown()),
    }
}

fn local_time(ms: i64, name: &str) -> Fallible<Map> {
    let moment = Timestamp::from_millisecond(ms).map_err(|error| error.to_string())?;
    let local = moment.to_zoned(zone(name)?);
    let day = local.weekday();
    let days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let number = i64::from(day.to_monday_one_offset());
    let name = usize::try_from(number - 1).ok().and_then(|n| days.get(n)).copied();
    let number_of = |name: &str, value: i64| (name.into(), Dynamic::from(value));
    Ok(Map::from([
        number_of("year", local.year().into()),
        number_of("month", local.month().into()),
        number_of("day", local.day().into()),
        number_of("hour", local.hour().into()),
        number_of("minute", local.minute().into()),
        number_of("second", local.second().into()),
        number_of("weekday", number),
        ("day_name".into(), name.unwrap_or_default().into()),
    ]))
}

pub(super) fn bind(bindings: &mut Bindings) {
    bindings.function("now", |context: NativeCallContext| {
        ask(&context, |services| Ok(services.now_ms().div_euclid(1000)))
    });
    bindings.function("now_ms", |context: NativeCallContext| {
        ask(&context, |services| Ok(services.now_ms()))
    });
    bindings.function("local_time", |context: NativeCallContext, zone: &str| {
        ask(&context, |services| local_time(services.now_ms(), zone))
    });
    bindings.function("local_time", |zone: &str, moment: Dynamic| {
        local_time(instant_ms(&moment)?, zone)
    });
    bindings.function("seconds", |value: Dynamic| -> Fallible<f64> {
        Ok(duration(&value)?.as_secs_f64())
    });
}
