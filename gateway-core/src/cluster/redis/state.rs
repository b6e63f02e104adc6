//! The state that hooks share, in the engine: values with their kind, counters, rate limits.
//!
//! A number is kept in digits, so that the engine adds to it with all its 64 bits; anything else begins
//! with a letter for its kind. What has a time to live is dropped by the engine itself.

use std::time::Duration;

use conexus_plugin_api::host::{StateError, Value};
use redis::{ErrorKind, RedisError, ServerErrorKind, Value as Answer};

use super::{
    codec,
    fault::Fault,
    link::RedisLink,
    scripts::{self, Stored},
};
use crate::cluster::backplane::{Away, StateOperation, StateReply, StateRequest};

/// Longer than anybody means, and far from where the engine's clock would overflow.
const LONGEST_TTL: u128 = 1 << 60;
/// What doubles hold exactly, with room to add.
const EXACT: u128 = 1 << 51;

/// Does it, and says what came of it.
pub(super) async fn state(
    link: &RedisLink,
    StateRequest { namespace, key, operation }: &StateRequest,
) -> Result<Result<StateReply, StateError>, Away> {
    let is_rate = matches!(operation, StateOperation::RateLimit { .. });
    let name =
        if is_rate { link.names.rate(namespace, key) } else { link.names.value(namespace, key) };
    let line = link.lines.to(&name)?;
    let answer = match call(operation) {
        Ok(None) => {
            let mut get = redis::cmd("GET");
            get.arg(&name);
            line.ask(get).await?
        }
        Ok(Some((script, arguments))) => link.write(line, script, &[name], arguments).await?,
        Err(error) => return Ok(Err(error)),
    };
    match answer {
        Ok(answer) => match reply(operation, answer) {
            Some(reply) => Ok(Ok(reply)),
            None => Err(line.garbled("what hooks asked")),
        },
        Err(error) => match refusal(&error) {
            Some(refusal) => Ok(Err(refusal)),
            None => Err(line.fail(Fault::from(error))),
        },
    }
}

/// The script that does it and what it is told; none where reading is all.
#[expect(clippy::type_complexity, reason = "it is taken apart at once")]
fn call(operation: &StateOperation) -> Result<Option<(&'static Stored, Vec<Vec<u8>>)>, StateError> {
    Ok(Some(match operation {
        StateOperation::Get => return Ok(None),
        StateOperation::Set { value, ttl } => (&scripts::SET, vec![write(value), millis(*ttl)]),
        StateOperation::Delete => (&scripts::DELETE, Vec::new()),
        StateOperation::Incr { by, ttl } => (&scripts::INCR, vec![digits(by), millis(*ttl)]),
        StateOperation::Cas { expected, value, ttl } => {
            let (word, expected) = match expected {
                Some(expected) => ("is", write(expected)),
                None => ("none", Vec::new()),
            };
            (&scripts::CAS, vec![word.into(), expected, write(value), millis(*ttl)])
        }
        StateOperation::Expire { ttl } => (&scripts::EXPIRE, vec![millis(*ttl)]),
        StateOperation::RateLimit { count, per } => {
            (&scripts::RATE, cost(*count, *per).ok_or(StateError::BadRate)?)
        }
    }))
}

/// What the answer says, if it is one to that.
fn reply(operation: &StateOperation, answer: Answer) -> Option<StateReply> {
    Some(match (operation, answer) {
        (StateOperation::Get, Answer::Nil) => StateReply::Value(None),
        (StateOperation::Get, Answer::BulkString(kept)) => StateReply::Value(Some(read(&kept)?)),
        (StateOperation::Set { .. }, Answer::Int(1)) => StateReply::Done,
        (StateOperation::Incr { .. }, Answer::BulkString(sum)) => {
            StateReply::Number(codec::number(&sum)?)
        }
        (
            StateOperation::Delete
            | StateOperation::Cas { .. }
            | StateOperation::Expire { .. }
            | StateOperation::RateLimit { .. },
            Answer::Int(flag @ 0..=1),
        ) => StateReply::Flag(flag == 1),
        _ => return None,
    })
}

/// What the engine refuses for a reason that is the hook's concern.
fn refusal(error: &RedisError) -> Option<StateError> {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::Extension if error.code() == Some("OOM") => Some(StateError::Full),
        ErrorKind::Server(ServerErrorKind::ResponseError) if detail.contains("would overflow") => {
            Some(StateError::Overflow)
        }
        ErrorKind::Server(ServerErrorKind::ResponseError)
            if detail.contains("not an integer or out of range") =>
        {
            Some(StateError::NotANumber)
        }
        _ => None,
    }
}

fn digits(number: &i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A value, as it is kept.
fn write(value: &Value) -> Vec<u8> {
    let (kind, content) = match value {
        Value::Int(number) => return digits(number),
        Value::Text(text) => (b't', text.as_bytes()),
        Value::Json(text) => (b'j', text.as_bytes()),
        Value::Bytes(bytes) => (b'b', &**bytes),
    };
    [&[kind], content].concat()
}

fn read(kept: &[u8]) -> Option<Value> {
    let text = |text| std::str::from_utf8(text).ok().map(Into::into);
    Some(match kept.split_first()? {
        (b't', content) => Value::Text(text(content)?),
        (b'j', content) => Value::Json(text(content)?),
        (b'b', content) => Value::Bytes(content.into()),
        _ => Value::Int(codec::number(kept)?),
    })
}

/// What is left of a millisecond counts as a whole one, so that only no time at all is none.
fn millis(ttl: Option<Duration>) -> Vec<u8> {
    let millis = |ttl: Duration| ttl.as_nanos().div_ceil(1_000_000).min(LONGEST_TTL).to_string();
    ttl.map(millis).unwrap_or_default().into_bytes()
}

/// What one costs, what a whole burst costs, and how many of these units a microsecond has: nanoseconds,
/// unless they are too many to reckon with exactly.
fn cost(count: u32, per: Duration) -> Option<Vec<Vec<u8>>> {
    if count == 0 || per.is_zero() {
        return None;
    }
    let (per, units) = match per.as_nanos() {
        nanos if nanos <= EXACT => (nanos, 1000),
        _ => (per.as_micros().min(EXACT), 1),
    };
    // Rounded down, so that a burst is whole again after `per` at last.
    let interval = (per / u128::from(count)).max(1);
    let cost = [interval, interval * u128::from(count), units];
    Some(cost.iter().map(|number| number.to_string().into_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_is_written() {
        for value in [
            Value::Int(0),
            Value::Int(i64::MIN),
            Value::Int(i64::MAX),
            Value::Text("".into()),
            Value::Text("12".into()),
            Value::Json("{\"ä\":1}".into()),
            Value::Bytes([0, 255].as_slice().into()),
        ] {
            assert_eq!(read(&write(&value)), Some(value));
        }
        for wrong in [&b""[..], b"x", b"1 ", b"t\xff", b"9223372036854775808"] {
            assert_eq!(read(wrong), None);
        }
    }

    #[test]
    fn times_are_written_in_whole_milliseconds_and_within_bounds() {
        assert_eq!(millis(None), b"");
        assert_eq!(millis(Some(Duration::ZERO)), b"0");
        assert_eq!(millis(Some(Duration::from_nanos(1))), b"1");
        assert_eq!(millis(Some(Duration::MAX)), LONGEST_TTL.to_string().into_bytes());
    }

    #[test]
    fn a_rate_is_reckoned_in_numbers_that_doubles_hold() {
        let told = |count, per| {
            cost(count, per).map(|cost| {
                cost.iter().map(|digits| codec::number(digits).unwrap()).collect::<Vec<u128>>()
            })
        };
        assert_eq!(told(0, Duration::from_secs(1)), None);
        assert_eq!(told(1, Duration::ZERO), None);
        let second = Some(vec![333_333_333, 999_999_999, 1000]);
        assert_eq!(told(3, Duration::from_secs(1)), second);
        for (count, per) in
            [(1, Duration::MAX), (u32::MAX, Duration::MAX), (u32::MAX, Duration::from_nanos(1))]
        {
            let cost = told(count, per).unwrap();
            assert!(cost[0] >= 1 && cost[1] < 1 << 52, "{cost:?}");
        }
    }
}
