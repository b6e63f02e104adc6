//! How nodes and registrations are told apart across the cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node for as long as it counts as there without a break: a number that it draws by lot when it
/// joins. One that comes back after the others have given it up is another member, so that what
/// they still do about the old one cannot touch the new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct MemberId(pub(crate) u64);

impl MemberId {
    pub(crate) fn generate() -> Self {
        Self(rand::random())
    }

    /// What [`Display`](fmt::Display) wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberId({self})")
    }
}

/// When an agent registered, by the clock of the engine: microseconds since 1970. Of two
/// registrations of a key the one with the greater epoch counts, wherever it is; no two of one key
/// have the same. No node's own clock is in it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub(crate) struct Epoch(pub(crate) u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Into how many parts the directory is divided, by the first byte of a key. The parts are what can
/// lie on different machines of a Redis Cluster.
pub(crate) const BUCKETS: usize = 256;

/// One part of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Bucket(pub(crate) u8);

impl Bucket {
    pub(crate) fn of(key: conexus_protocol::AgentKey) -> Self {
        // Keys of Ed25519 are as good as random in every byte.
        Self(key.as_bytes()[0])
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_as_it_is_written() {
        for id in [MemberId(0), MemberId(7), MemberId(u64::MAX), MemberId::generate()] {
            assert_eq!(MemberId::parse(&id.to_string()), Some(id));
        }
        for wrong in ["", "7", "+000000000000007", "00000000000000g7", "00000000000000007"] {
            assert_eq!(MemberId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Bucket::all().count(), BUCKETS);
    }
}
