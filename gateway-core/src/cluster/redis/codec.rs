//! What is kept and told in the engine, as bytes.

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, sync::Arc};

use conexus_plugin_api::{Agent, Metadata};
use conexus_protocol::AgentKey;
use serde::{Deserialize, Serialize};

use crate::cluster::{
    backplane::{Change, ChangeKind, Entry},
    ids::{Epoch, MemberId},
};

/// What is kept of an [`Agent`]: all but its key, by which it is kept.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    did: Cow<'a, str>,
    session: u64,
    address: SocketAddr,
    subprotocol: Cow<'a, str>,
    connected_at_ms: i64,
    metadata: Cow<'a, Metadata>,
    #[serde(default, skip_serializing_if = "is_empty")]
    labels: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_class: Option<Cow<'a, str>>,
}

fn is_empty(labels: &BTreeMap<String, String>) -> bool {
    labels.is_empty()
}

/// An agent, as it is kept.
pub(super) fn write_agent(agent: &Agent) -> Vec<u8> {
    let kept = Kept {
        did: Cow::Borrowed(&agent.did),
        session: agent.session,
        address: agent.address,
        subprotocol: Cow::Borrowed(&agent.subprotocol),
        connected_at_ms: agent.connected_at_ms,
        metadata: Cow::Borrowed(&agent.metadata),
        labels: Cow::Borrowed(&agent.labels),
        rate_class: agent.rate_class.as_deref().map(Cow::Borrowed),
    };
    // Nothing in it that JSON could not have; were it otherwise, nobody could read the entry.
    serde_json::to_vec(&kept).unwrap_or_default()
}

/// An entry of the directory: `MEMBER EPOCH AGENT`.
pub(super) fn read_entry(key: AgentKey, entry: &[u8]) -> Option<Entry> {
    let mut parts = entry.splitn(3, |byte| *byte == b' ');
    let mut part = || parts.next();
    let member = MemberId::parse(std::str::from_utf8(part()?).ok()?)?;
    let epoch = Epoch(number(part()?)?);
    let kept: Kept<'_> = serde_json::from_slice(part()?).ok()?;
    let agent = Agent {
        did: kept.did.into_owned(),
        key: *key.as_bytes(),
        session: kept.session,
        address: kept.address,
        subprotocol: kept.subprotocol.into_owned(),
        connected_at_ms: kept.connected_at_ms,
        metadata: kept.metadata.into_owned(),
        labels: kept.labels.into_owned(),
        rate_class: kept.rate_class.map(Cow::into_owned),
    };
    Some(Entry { key, member, epoch, agent: Arc::new(agent) })
}

/// A key, as it is kept.
pub(super) fn read_key(bytes: &[u8]) -> Option<AgentKey> {
    bytes.try_into().ok().map(AgentKey::from_bytes)
}

/// Changes as one script tells them: of each `KEY KIND MEMBER EPOCH " " REASON "\n"`, where the first
/// three have 32, 1 and 16 bytes. None if that is not so.
pub(super) fn read_changes(mut told: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !told.is_empty() {
        let (fixed, rest) = told.split_at_checked(49)?;
        let (line, rest) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'\n')?)?;
        let (key, fixed) = fixed.split_at(32);
        let (kind, member) = fixed.split_at(1);
        let (epoch, reason) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
        changes.push(Change {
            key: read_key(key)?,
            member: MemberId::parse(std::str::from_utf8(member).ok()?)?,
            epoch: Epoch(number(epoch)?),
            kind: match kind {
                b"C" => ChangeKind::Came,
                b"M" => ChangeKind::Moved,
                b"L" => ChangeKind::Left(String::from_utf8(reason[1..].to_vec()).ok()?),
                _ => return None,
            },
        });
        told = &rest[1..];
    }
    Some(changes)
}

/// A number as scripts write it.
pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::handle::tests::session;

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let mut agent = Agent::clone(&session().facts());
        let key = AgentKey::from_bytes(agent.key);
        for labels in [BTreeMap::new(), BTreeMap::from([("team".to_owned(), "ä b".to_owned())])] {
            agent.rate_class = labels.keys().next().cloned();
            agent.labels = labels;
            let mut entry = format!("{} {} ", MemberId(7), u64::MAX).into_bytes();
            entry.extend(write_agent(&agent));
            let read = read_entry(key, &entry).unwrap();
            assert_eq!((read.member, read.epoch), (MemberId(7), Epoch(u64::MAX)));
            assert_eq!(*read.agent, agent);
        }
        for wrong in ["", "x", "0000000000000007 7", "0000000000000007 7 {}"] {
            assert!(read_entry(key, wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn changes_are_read_one_behind_the_other_or_not_at_all() {
        let key = [b'\n'; 32];
        let told = |kind, rest: &str| {
            let mut told = key.to_vec();
            told.extend(format!("{kind}{}{rest}", MemberId(7)).bytes());
            told
        };
        let both = [told('C', "12 \n"), told('L', "13 node lost\n")].concat();
        let changes = read_changes(&both).unwrap();
        let key = AgentKey::from_bytes(key);
        let change = |epoch, kind| Change { key, member: MemberId(7), epoch: Epoch(epoch), kind };
        let left = ChangeKind::Left("node lost".to_owned());
        assert_eq!(changes, [change(12, ChangeKind::Came), change(13, left)]);
        assert_eq!(read_changes(b""), Some(Vec::new()));
        for length in 1..both.len() {
            let cut = read_changes(&both[..length]);
            assert!(cut.is_none() || length == told('C', "12 \n").len(), "{length}");
        }
        for wrong in [told('X', "12 \n"), told('C', "12\n"), told('C', "x \n"), told('C', " \n")] {
            assert_eq!(read_changes(&wrong), None);
        }
    }
}
