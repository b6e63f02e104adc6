//! Bans, as they are kept in the engine: what there is to say of each, and when it ends.

use std::time::Duration;

use conexus_protocol::AgentKey;
use redis::Value;

use super::{
    answers::{array, bytes},
    codec,
    link::{RedisLink, micros},
    scripts,
};
use crate::{
    bans::MAX_BANS,
    cluster::backplane::{Away, BanList, BansAt, SharedBan},
};

pub(super) async fn ban(
    link: &RedisLink,
    bans: &[SharedBan],
    lifted: &[AgentKey],
) -> Result<bool, Away> {
    let mut arguments =
        vec![MAX_BANS.to_string().into_bytes(), bans.len().to_string().into_bytes()];
    for SharedBan { key, left, about } in bans {
        arguments.push(key.as_bytes().to_vec());
        arguments.push(micros(*left).to_string().into_bytes());
        arguments.push(serde_json::to_vec(about).unwrap_or_default());
    }
    arguments.extend(lifted.iter().map(|key| key.as_bytes().to_vec()));
    match link.must(&scripts::BAN, &link.names.bans(), arguments).await? {
        (_, Value::Int(flag @ 0..=1)) => Ok(flag == 1),
        (line, _) => Err(line.garbled("a ban")),
    }
}

pub(super) async fn bans(link: &RedisLink, known: Option<BansAt>) -> Result<Option<BanList>, Away> {
    let known = known.map_or((String::new(), String::new()), |BansAt { origin, version }| {
        (origin.to_string(), version.to_string())
    });
    let (line, answer) = link.must(&scripts::BANS, &link.names.bans(), known).await?;
    list(answer).ok_or_else(|| line.garbled("bans"))
}

/// None if it makes no sense; none within that if there is nothing new.
#[expect(clippy::option_option, reason = "they are told apart at once")]
fn list(answer: Value) -> Option<Option<BanList>> {
    let answer = array(answer)?;
    if answer.is_empty() {
        return Some(None);
    }
    let [origin, version, listed] = <[Value; 3]>::try_from(answer).ok()?;
    let at = BansAt {
        origin: codec::number(bytes(&origin)?)?,
        version: codec::number(bytes(&version)?)?,
    };
    let ban = |part: &[Value]| {
        let [key, left, about] = part else { return None };
        Some(SharedBan {
            key: codec::read_key(bytes(key)?)?,
            left: Duration::from_micros(codec::number(bytes(left)?)?),
            about: serde_json::from_slice(bytes(about)?).ok()?,
        })
    };
    let bans = array(listed)?.chunks(3).map(ban).collect::<Option<_>>()?;
    Some(Some(BanList { at, bans }))
}
