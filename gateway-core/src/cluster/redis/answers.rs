//! What scripts answer, taken apart. None is an answer that makes no sense.

use std::{ops::RangeInclusive, time::Duration};

use conexus_protocol::AgentKey;
use redis::Value;
use tracing::warn;

use super::{address::Address, codec};
use crate::{
    cluster::{
        backplane::{Claimed, Entry, Listed, NodeInfo, Roster},
        ids::{Epoch, MemberId},
    },
    pace::OncePerSecond,
};

/// To `renew.lua`.
pub(super) fn roster(answer: Value) -> Option<Roster> {
    let [now, entered, listed, unburied] = <[Value; 4]>::try_from(array(answer)?).ok()?;
    let entered = matches!(entered, Value::Int(1));
    let mut members = Vec::new();
    for part in array(listed)?.chunks_exact(3) {
        let [member, left, about] = part else { return None };
        let left = Duration::from_micros(codec::number(bytes(left)?)?);
        let member = member_id(member)?;
        members.push(Listed { member, info: info(member, bytes(about)?), left });
    }
    let unburied = array(unburied)?.iter().map(member_id).collect::<Option<_>>()?;
    Some(Roster { members, entered, unburied, now: epoch_of(&now)? })
}

/// To `put.lua`.
pub(super) fn claimed(answer: Value, agents: usize) -> Option<Vec<Claimed>> {
    let answer = array(answer)?;
    if answer.len() != 4 * agents {
        return None;
    }
    let one = |part: &[Value]| {
        let [word, epoch, holder, held] = part else { return None };
        let before = match bytes(holder)? {
            b"" => None,
            _ => Some((member_id(holder)?, epoch_of(held)?)),
        };
        match (bytes(word)?, before) {
            (b"won", before) => Some(Claimed::Won { epoch: epoch_of(epoch)?, before }),
            (b"lost", Some((to, epoch))) => Some(Claimed::Lost { to, epoch }),
            _ => None,
        }
    };
    answer.chunks_exact(4).map(one).collect()
}

/// To `HMGET`, in the order of the keys. Who is down in a way that nobody can read is not found: it is no
/// reason to do without all the others.
pub(super) fn found(
    answer: Value,
    keys: impl ExactSizeIterator<Item = AgentKey>,
) -> Option<Vec<Option<Entry>>> {
    let answer = array(answer)?;
    if answer.len() != keys.len() {
        return None;
    }
    let one = |(key, entry): (AgentKey, &Value)| match entry {
        Value::Nil => Some(None),
        entry => Some(read(key, bytes(entry)?)),
    };
    keys.zip(&answer).map(one).collect()
}

/// To `entries.lua`. What nobody can read is left out.
pub(super) fn entries(answer: Value) -> Option<Vec<Entry>> {
    let one = |part: &[Value]| {
        let [key, entry] = part else { return None };
        Some(read(codec::read_key(bytes(key)?)?, bytes(entry)?))
    };
    let entries: Option<Vec<_>> = array(answer)?.chunks_exact(2).map(one).collect();
    Some(entries?.into_iter().flatten().collect())
}

fn read(key: AgentKey, entry: &[u8]) -> Option<Entry> {
    static PACE: OncePerSecond = OncePerSecond::new();
    let read = codec::read_entry(key, entry);
    if read.is_none()
        && let Some(more) = PACE.due()
    {
        warn!(
            agent = key.did(),
            more, "its entry in the directory cannot be read, so it is not found"
        );
    }
    read
}

/// To `missing.lua`, asked for so many agents.
pub(super) fn missing(answer: Value, asked: usize) -> Option<Vec<usize>> {
    let one = |place: Value| match place {
        Value::Int(place) => usize::try_from(place).ok().filter(|place| *place < asked),
        _ => None,
    };
    array(answer)?.into_iter().map(one).collect()
}

/// To `SENTINEL GET-MASTER-ADDR-BY-NAME`.
pub(super) fn address(answer: Value) -> Option<Address> {
    let [host, port] = <[Value; 2]>::try_from(array(answer)?).ok()?;
    Some(Address::new(std::str::from_utf8(bytes(&host)?).ok()?, codec::number(bytes(&port)?)?))
}

/// Slots of a Redis Cluster, and which of its machines takes writes to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) by: Address,
}

/// To `CLUSTER SLOTS`, asked at this address: a machine that does not know its own leaves it out.
pub(super) fn served(answer: Value, asked: &Address) -> Option<Vec<Served>> {
    let one = |part: Value| {
        let mut part = array(part)?.into_iter();
        let (Value::Int(first), Value::Int(last)) = (part.next()?, part.next()?) else {
            return None;
        };
        let slots = u16::try_from(first).ok()?..=u16::try_from(last).ok()?;
        // The first is the master; what comes behind its port is not asked for.
        let mut master = array(part.next()?)?.into_iter();
        let (host, port) = (master.next()?, master.next()?);
        let Value::Int(port) = port else { return None };
        let host = match &host {
            Value::Nil => "",
            host => std::str::from_utf8(bytes(host)?).ok()?,
        };
        let host = if host.is_empty() { &*asked.host } else { host };
        Some(Served { slots, by: Address::new(host, u16::try_from(port).ok()?) })
    };
    array(answer)?.into_iter().map(one).collect()
}

pub(super) fn array(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(values) = value { Some(values) } else { None }
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

fn member_id(value: &Value) -> Option<MemberId> {
    MemberId::parse(std::str::from_utf8(bytes(value)?).ok()?)
}

fn epoch_of(value: &Value) -> Option<Epoch> {
    codec::number(bytes(value)?).map(Epoch)
}

/// What a node tells of itself. One of another version may do so in another way: it is not spoken with, but
/// it is there.
fn info(member: MemberId, told: &[u8]) -> NodeInfo {
    serde_json::from_slice(told).unwrap_or_else(|_| NodeInfo {
        node_id: member.to_string(),
        did: String::new(),
        version: String::new(),
        frames: 0,
        started_ms: 0,
        agents: 0,
        draining: false,
        lease_ms: 0,
    })
}
