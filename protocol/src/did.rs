//! Names of agents: `did:key` in both of its spellings, and the 32 bytes behind them.
//!
//! Presence, routing and policy go by [`AgentKey`], so an agent is the same agent however it
//! spells itself; [`AgentId`] keeps the spelling. Decoding base58 is cheap and done for every
//! message; the curve arithmetic is left to [`AgentKey::decompress`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::keys::PublicKey;

/// The reference's reserved name of a gateway; it carries no key.
pub const REFERENCE_GATEWAY_DID: &str = "did:key:gateway";

/// `did:key` and the multibase prefix of base58btc.
const PREFIX: &str = "did:key:z";
/// What the reference puts between the multibase prefix and the bare key.
const LEGACY_PREFIX: &str = "did:key:z6Mk";
/// The multicodec of an Ed25519 public key, as the varint that it is written as.
const MULTICODEC: [u8; 2] = [0xed, 0x01];
const KEY_BYTES: usize = 32;

/// The 32 bytes that a `did:key` names: what presence, routing and policy go by.
///
/// Any 32 bytes will do; whether they are a usable key is for [`AgentKey::decompress`] to say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentKey([u8; KEY_BYTES]);

impl AgentKey {
    /// Wraps the bytes of a public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Reads either spelling of a `did:key`, to the letter. Neither allocates nor checks the curve.
    ///
    /// # Errors
    /// [`DidError::NotDidKey`] without the prefix, else [`DidError::NotEd25519`].
    pub fn parse_did(did: &str) -> Result<Self, DidError> {
        let body = did.strip_prefix(PREFIX).ok_or(DidError::NotDidKey)?;
        // The two cannot be confused: as numbers, what follows `z6Mk` is below 2^256 in the
        // legacy spelling and above 2 * 2^256 in the standard one, so the order is free.
        if let Some([0xed, 0x01, key @ ..]) = decode_exactly::<{ KEY_BYTES + 2 }>(body) {
            return Ok(Self(key));
        }
        let body = did.strip_prefix(LEGACY_PREFIX).ok_or(DidError::NotEd25519)?;
        decode_exactly(body).map(Self).ok_or(DidError::NotEd25519)
    }

    /// The W3C spelling: `did:key:z` and base58btc of multicodec and key.
    #[must_use]
    pub fn did(&self) -> String {
        let mut bytes = [0; KEY_BYTES + 2];
        bytes[..2].copy_from_slice(&MULTICODEC);
        bytes[2..].copy_from_slice(&self.0);
        format!("{PREFIX}{}", bs58::encode(bytes).into_string())
    }

    /// The reference's spelling: `did:key:z6Mk` and base58btc of the bare key.
    #[must_use]
    pub fn legacy_did(&self) -> String {
        format!("{LEGACY_PREFIX}{}", self.base58())
    }

    /// base58btc of the bare key, as in REGISTER's `public_key`.
    #[must_use]
    pub fn base58(&self) -> String {
        bs58::encode(self.0).into_string()
    }

    /// Reads what [`AgentKey::base58`] writes.
    ///
    /// # Errors
    /// [`DidError::NotEd25519`] for anything but base58btc of exactly 32 bytes.
    pub fn parse_base58(text: &str) -> Result<Self, DidError> {
        decode_exactly(text).map(Self).ok_or(DidError::NotEd25519)
    }

    /// The point behind the bytes, ready to verify with.
    ///
    /// # Errors
    /// [`DidError::NotAPoint`] where the bytes encode no point, or not in the one canonical way;
    /// [`DidError::WeakKey`] for a small-order point, under which one signature fits every message.
    pub fn decompress(&self) -> Result<PublicKey, DidError> {
        PublicKey::decompress(self)
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.did())
    }
}

/// base58btc of exactly `N` bytes.
fn decode_exactly<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Decoding takes quadratic time, and two characters never carry less than one byte.
    if text.len() > 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    let length = bs58::decode(text).onto(&mut bytes[..]).ok()?;
    (length == N).then_some(bytes)
}

/// A `did:key` as its agent spells it, whose key is a usable Ed25519 point. Only
/// [`AgentId::parse`] makes one. Cheap to clone.
///
/// Equal ids are spelled alike; to compare agents compare [`AgentId::key`].
#[derive(Clone)]
pub struct AgentId(Arc<Inner>);

struct Inner {
    text: Box<str>,
    key: AgentKey,
    public_key: PublicKey,
}

impl AgentId {
    /// Reads either spelling of a `did:key` and decompresses its key.
    ///
    /// # Errors
    /// As [`AgentKey::parse_did`] and [`AgentKey::decompress`].
    pub fn parse(did: &str) -> Result<Self, DidError> {
        let key = AgentKey::parse_did(did)?;
        let public_key = key.decompress()?;
        Ok(Self(Arc::new(Inner { text: did.into(), key, public_key })))
    }

    /// For keys of our own, which need no proof.
    pub(crate) fn of_own(text: String, key: AgentKey, public_key: PublicKey) -> Self {
        Self(Arc::new(Inner { text: text.into(), key, public_key }))
    }

    /// The DID, as it was spelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The key that the DID names.
    #[must_use]
    pub fn key(&self) -> AgentKey {
        self.0.key
    }

    /// The same key, ready to verify with.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }
}

impl PartialEq for AgentId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for AgentId {}

impl Hash for AgentId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no DID of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DidError {
    /// It does not begin with `did:key:z`.
    #[error("not a did:key in base58btc")]
    NotDidKey,
    /// What follows is not base58btc of an Ed25519 key.
    #[error("not the base58btc of a 32-byte ed25519 key")]
    NotEd25519,
    /// The bytes encode no point of the curve.
    #[error("not a point of the curve")]
    NotAPoint,
    /// The point has small order.
    #[error("a small-order key")]
    WeakKey,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    const SEED: [u8; 32] = [7; 32];

    #[test]
    fn both_spellings_name_the_same_key() {
        let key = Identity::from_seed(&SEED).key();
        assert_eq!(AgentKey::parse_did(&key.did()), Ok(key));
        assert_eq!(AgentKey::parse_did(&key.legacy_did()), Ok(key));
        assert_eq!(AgentKey::parse_base58(&key.base58()), Ok(key));
        assert_ne!(AgentId::parse(&key.did()), AgentId::parse(&key.legacy_did()));
    }

    #[test]
    fn keys_that_begin_with_zeros_survive_both_spellings() {
        for zeros in 0..=32 {
            let mut bytes = [0x5a; 32];
            bytes[..zeros].fill(0);
            let key = AgentKey::from_bytes(bytes);
            assert_eq!(AgentKey::parse_did(&key.did()), Ok(key));
            assert_eq!(AgentKey::parse_did(&key.legacy_did()), Ok(key));
        }
    }

    #[test]
    fn the_gateway_name_of_the_reference_is_no_key() {
        assert_eq!(AgentKey::parse_did(REFERENCE_GATEWAY_DID), Err(DidError::NotDidKey));
    }

    #[test]
    fn a_long_text_is_refused_before_it_is_decoded() {
        let did = format!("did:key:z6Mk{}", "z".repeat(1 << 20));
        assert_eq!(AgentKey::parse_did(&did), Err(DidError::NotEd25519));
    }

    #[test]
    fn unusable_points_are_decoded_but_not_decompressed() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        let weak = AgentKey::from_bytes(identity_point);
        assert_eq!(AgentKey::parse_did(&weak.did()), Ok(weak));
        assert_eq!(weak.decompress().err(), Some(DidError::WeakKey));

        let mut no_point = [0; 32];
        no_point[0] = 2;
        assert_eq!(AgentKey::from_bytes(no_point).decompress().err(), Some(DidError::NotAPoint));

        // y = p + 3: the point with y = 3, in a second encoding.
        let mut twice = [0xff; 32];
        twice[0] = 0xf0;
        twice[31] = 0x7f;
        assert_eq!(AgentKey::from_bytes(twice).decompress().err(), Some(DidError::NotAPoint));
    }
}
