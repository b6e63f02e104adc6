//! `[admin_token.NAME]`: who may ask the admin listener, and for what.
//!
//! A token is 256 random bits, which nobody guesses, so that its plain SHA-256 is enough to know it
//! by: the configuration never has the token itself.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

/// What a token is good for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To see everything.
    #[default]
    Read,
    /// To change things, too.
    Operate,
}

impl Scope {
    /// The words, as the configuration has them.
    pub const WORDS: &'static [&'static str] = &["read", "operate"];

    /// The word of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A token as the gateway knows it. `Debug` leaves the hash out: should somebody have chosen a token
/// that can be guessed, its hash would be enough to try.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AdminToken {
    sha256: [u8; 32],
    /// What it is good for.
    pub scope: Scope,
}

impl AdminToken {
    /// The token with this text.
    pub fn of(token: &str, scope: Scope) -> Self {
        Self { sha256: Sha256::digest(token).into(), scope }
    }

    /// The token whose SHA-256 is written so; `None` unless that is 64 hexadecimal digits.
    pub fn from_hash(text: &str, scope: Scope) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut sha256 = [0; 32];
        for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self { sha256, scope })
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// What the audit calls whoever needs no token.
pub(crate) const LOOPBACK: &str = "loopback";
/// What the audit calls whoever has none that is valid.
pub(crate) const UNKNOWN: &str = "unknown";

/// Why a token may not have this name, though it is one.
pub(crate) fn taken_by_nobody(name: &str) -> Option<&'static str> {
    let taken = [LOOPBACK, UNKNOWN].contains(&name);
    taken.then_some("is what the audit calls those who have no token; choose another name")
}

/// Every configured token, by its name.
pub type AdminTokens = BTreeMap<String, AdminToken>;

/// Whose token that is, and as what it is known. In a time that does not tell how much of it was
/// right, nor which of the tokens it was like.
pub fn find_token<'a>(tokens: &'a AdminTokens, presented: &str) -> Option<(&'a str, AdminToken)> {
    let presented: [u8; 32] = Sha256::digest(presented).into();
    let mut found = None;
    for (name, token) in tokens {
        let same: bool = token.sha256.ct_eq(&presented).into();
        if same {
            found = Some((name.as_str(), *token));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash() {
        let hash = crate::hooks::hexadecimal(&Sha256::digest("sesame"));
        let tokens = AdminTokens::from([
            ("ops".to_owned(), AdminToken::from_hash(&hash, Scope::Operate).unwrap()),
            ("board".to_owned(), AdminToken::of("open", Scope::Read)),
        ]);
        let found =
            |presented| find_token(&tokens, presented).map(|(name, known)| (name, known.scope));
        assert_eq!(found("sesame"), Some(("ops", Scope::Operate)));
        assert_eq!(found("open"), Some(("board", Scope::Read)));
        for wrong in ["", "Sesame", "sesame ", &*hash] {
            assert_eq!(find_token(&tokens, wrong), None, "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains("sha256"));
    }

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        let hash = "0123456789abcdef".repeat(4);
        assert!(AdminToken::from_hash(&hash, Scope::Read).is_some());
        assert_eq!(
            AdminToken::from_hash(&hash, Scope::Read),
            AdminToken::from_hash(&hash.to_uppercase(), Scope::Read)
        );
        for wrong in ["", "0123", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert!(AdminToken::from_hash(wrong, Scope::Read).is_none(), "{wrong}");
        }
    }
}
