//! What is looked at when a link begins: the engine's clock, and whether it is one that will do.

use std::sync::Once;

use redis::Value;
use tracing::warn;

use super::{codec, fault::Fault, line::Line};
use crate::cluster::backplane::Away;

/// The first version that has channels by slots.
const OLDEST: u32 = 7;

/// What is said of the engine's settings is said once, not with each link.
static SAID: Once = Once::new();

/// Refuses an engine that is too old, takes no writes, or is of another kind.
pub(super) async fn check(line: &Line, is_cluster: bool) -> Result<(), Away> {
    read_clock(line).await?;
    let told = match line.ask(redis::cmd("INFO")).await? {
        Ok(Value::BulkString(told)) => told,
        Ok(Value::VerbatimString { text, .. }) => text.into_bytes(),
        Ok(_) => return Err(line.garbled("INFO")),
        // Who may not ask learns it by what fails.
        Err(error) if Fault::is_not_allowed(&error) => return Ok(()),
        Err(error) => return Err(line.fail(Fault::from(error))),
    };
    let told = String::from_utf8_lossy(&told);
    let of = |name: &str| {
        let value =
            |line: &'_ str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
        told.lines().find_map(value)
    };
    if of("cluster_enabled").is_some_and(|enabled| (enabled == "1") != is_cluster) {
        let why = match is_cluster {
            true => "is no machine of a Redis Cluster, as cluster.redis.mode has it",
            false => "is a machine of a Redis Cluster: cluster.redis.mode must be \"cluster\"",
        };
        return Err(line.fail(Fault::Other(why.to_owned())));
    }
    let version = of("redis_version").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < OLDEST) {
        let why = format!("is version {version}; what is needed is {OLDEST} or later");
        return Err(line.fail(Fault::Other(why)));
    }
    if of("role").is_some_and(|role| role != "master") {
        return Err(line.fail(Fault::Other("is a replica, which takes no writes".to_owned())));
    }
    let policy = of("maxmemory_policy").unwrap_or_default();
    let is_bounded = of("maxmemory").is_some_and(|bytes| bytes != "0");
    if is_bounded && !matches!(&*policy, "" | "noeviction") {
        SAID.call_once(|| {
            warn!(
                engine = %line.at, %policy,
                "the engine drops keys of its own accord when it is full, agents of this cluster among \
                 them: set its maxmemory-policy to noeviction"
            );
        });
    }
    Ok(())
}

/// Asks a machine of the engine for its time.
pub(super) async fn read_clock(line: &Line) -> Result<(), Away> {
    let told = line.demand(redis::cmd("TIME")).await?;
    let part = |part: &Value| match part {
        Value::BulkString(digits) => codec::number::<u64>(digits),
        _ => None,
    };
    let micros = match &told {
        Value::Array(parts) => match parts.as_slice() {
            [seconds, micros] => part(seconds).zip(part(micros)),
            _ => None,
        },
        _ => None,
    };
    let (seconds, micros) = micros.ok_or_else(|| line.garbled("TIME"))?;
    line.clock.told(seconds.saturating_mul(1_000_000).saturating_add(micros));
    Ok(())
}
