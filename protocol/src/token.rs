//! A token by which an agent proves over plain HTTP who it is: a JWT of its own making.
//!
//! A compact JWS (RFC 7515) with EdDSA (RFC 8037). Its issuer is a `did:key`, which is the key that it
//! is signed with, so there is nothing to look up and nothing to confuse: one algorithm, one key, one
//! spelling. It names whom it is for and lives for minutes. What it signs begins with base64 of `{"`
//! and contains a point; no message's canonical form does, so neither can be taken for the other.
//!
//! The SDK signs, the gateway verifies.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    did::{AgentId, DidError},
    keys::{Identity, SignatureBytes},
    timestamp::Timestamp,
};

/// Holding one proves that its signature verifies; whether it is in time and
/// meant for somebody has yet to be asked. It can be asked before, too ([`UnverifiedToken`]).
#[derive(Debug, Clone)]
pub struct AgentToken(Claimed);

/// A token that was read and no more: what it claims costs nothing to look at, and proves nothing.
#[derive(Debug, Clone)]
pub struct UnverifiedToken<'a> {
    claimed: Claimed,
    signed: &'a str,
    signature: [u8; 64],
}

/// What a token says.
#[derive(Debug, Clone)]
struct Claimed {
    agent: AgentId,
    audiences: Vec<String>,
    /// In milliseconds since 1970.
    issued: i64,
    expires: i64,
    not_before: i64,
}

/// Why a text is no token, or none that counts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`AgentToken::MAX_BYTES`].
    #[error("token is over {} bytes", AgentToken::MAX_BYTES)]
    TooLong,
    /// Not three parts of base64url without padding.
    #[error("token is no compact JWS")]
    Encoding,
    /// The first part is no header that is understood.
    #[error("token's header is not {{\"alg\":\"EdDSA\"}}, perhaps with \"typ\":\"JWT\"")]
    Header,
    /// The second part lacks a claim, or one of them is of another type.
    #[error("token's claims are not iss, aud, iat and exp")]
    Claims,
    /// The issuer is no agent.
    #[error("token's iss: {0}")]
    Issuer(DidError),
    /// It is not the issuer's.
    #[error("token's signature does not verify with the key of its iss")]
    Signature,
    /// It ends too long after it begins, or before.
    #[error("token's exp is not within {} s after its iat", AgentToken::MAX_LIFETIME.as_secs())]
    Lifetime,
    /// It is of the future.
    #[error("token is not valid yet; check the clock")]
    NotYet,
    /// It is over.
    #[error("token has expired")]
    Expired,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    /// Extensions that must be understood (RFC 7515, 4.1.11). None is.
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(deserialize_with = "one_or_many")]
    aud: Vec<String>,
    iat: f64,
    exp: f64,
    nbf: Option<f64>,
}

#[derive(Serialize)]
struct OwnClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

impl AgentToken {
    /// No token is longer.
    pub const MAX_BYTES: usize = 4096;

    /// No token is valid for longer.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(300);

    /// A token of one's own for whoever has this URL, from now on.
    #[must_use]
    pub fn sign(identity: &Identity, audience: &str, now: Timestamp, lifetime: Duration) -> String {
        let iat = now.as_unix_millis().div_euclid(1000);
        let exp = iat.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let claims = OwnClaims { iss: identity.did(), aud: audience, iat, exp };
        // Texts and numbers: it always serializes.
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = identity.sign_raw(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_bytes()))
    }

    /// Reads a token and verifies its signature, strictly.
    ///
    /// # Errors
    /// [`TokenError`]; the times are not looked at yet, but for their distance.
    pub fn verify(text: &str) -> Result<Self, TokenError> {
        UnverifiedToken::parse(text)?.verify()
    }

    /// Whether it is valid at `now`, give or take `skew`.
    ///
    /// # Errors
    /// [`TokenError::NotYet`], [`TokenError::Expired`].
    pub fn is_in_time(&self, now: Timestamp, skew: Duration) -> Result<(), TokenError> {
        self.0.is_in_time(now, skew)
    }

    /// Whose it is.
    #[must_use]
    pub fn agent(&self) -> &AgentId {
        &self.0.agent
    }

    /// Whom it is for: any of these.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.0.audiences
    }
}

impl<'a> UnverifiedToken<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`]; the times are not looked at yet, but for their distance.
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > AgentToken::MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Encoding)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Encoding)?;
        let header: Header = object(&decode(header)?).ok_or(TokenError::Header)?;
        let is_jwt = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
        if header.alg != "EdDSA" || !is_jwt || header.crit.is_some() {
            return Err(TokenError::Header);
        }
        let claims: Claims = object(&decode(claims)?).ok_or(TokenError::Claims)?;
        let signature = decode(signature)?.try_into().map_err(|_| TokenError::Encoding)?;

        let agent = AgentId::parse(&claims.iss).map_err(TokenError::Issuer)?;
        let (issued, expires) = (millis(claims.iat), millis(claims.exp));
        let most = i64::try_from(AgentToken::MAX_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        if !(1..=most).contains(&expires.saturating_sub(issued)) {
            return Err(TokenError::Lifetime);
        }
        let not_before = claims.nbf.map_or(issued, millis);
        let claimed = Claimed { agent, audiences: claims.aud, issued, expires, not_before };
        Ok(Self { claimed, signed, signature })
    }

    /// Whether it is the agent's that it claims to be of, strictly.
    ///
    /// # Errors
    /// [`TokenError::Signature`].
    pub fn verify(self) -> Result<AgentToken, TokenError> {
        let signature = SignatureBytes::from_bytes(self.signature);
        let key = self.claimed.agent.public_key();
        match key.verify(self.signed.as_bytes(), &signature) {
            Ok(()) => Ok(AgentToken(self.claimed)),
            Err(_) => Err(TokenError::Signature),
        }
    }

    /// Whether it would be valid at `now`, give or take `skew`.
    ///
    /// # Errors
    /// [`TokenError::NotYet`], [`TokenError::Expired`].
    pub fn is_in_time(&self, now: Timestamp, skew: Duration) -> Result<(), TokenError> {
        self.claimed.is_in_time(now, skew)
    }

    /// Whose it claims to be.
    #[must_use]
    pub fn agent(&self) -> &AgentId {
        &self.claimed.agent
    }

    /// Whom it claims to be for: any of these.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.claimed.audiences
    }
}

impl Claimed {
    fn is_in_time(&self, now: Timestamp, skew: Duration) -> Result<(), TokenError> {
        let now = now.as_unix_millis();
        let skew = i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
        if self.issued.max(self.not_before) > now.saturating_add(skew) {
            return Err(TokenError::NotYet);
        }
        if self.expires <= now.saturating_sub(skew) {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

/// An object of JSON. An array would be read as one, too, its elements as the members in their order.
fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok())?
}

/// The one spelling: no padding, no white space, no set bits beyond the last byte.
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Encoding)
}

/// A NumericDate (RFC 7519, section 2: seconds, perhaps with a fraction) in milliseconds.
fn millis(seconds: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation, reason = "saturates, as dates that far should")]
    let millis = (seconds * 1000.0) as i64;
    millis
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(audience) => vec![audience],
        OneOrMany::Many(audiences) => audiences,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "wss://gateway.example/ws";
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    /// Whatever one likes to sign.
    fn token(identity: &Identity, header: &str, claims: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = identity.sign_raw(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_bytes()))
    }

    const HEADER: &str = r#"{"alg":"EdDSA"}"#;

    fn claims(identity: &Identity, changes: Value) -> String {
        let mut claims = json!({"iss": identity.did(), "aud": URL, "iat": 1000, "exp": 1060});
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
                value => claims[name] = value.clone(),
            }
        }
        claims.to_string()
    }

    #[test]
    fn a_token_of_ones_own_verifies_within_its_time() {
        let me = Identity::generate();
        for me in [me.clone(), me.with_legacy_did()] {
            let text = AgentToken::sign(&me, URL, at(1000), MINUTE);
            let token = AgentToken::verify(&text).unwrap();
            assert_eq!((token.agent().as_str(), token.audiences()), (me.did(), &[URL.into()][..]));
            let skew = Duration::from_secs(10);
            for (now, expected) in [
                (989, Err(TokenError::NotYet)),
                (990, Ok(())),
                (1069, Ok(())),
                (1070, Err(TokenError::Expired)),
            ] {
                assert_eq!(token.is_in_time(at(now), skew), expected, "{now}");
            }
        }
    }

    #[test]
    fn what_other_libraries_write_is_read() {
        let me = Identity::generate();
        let read =
            |header: &str, changes| AgentToken::verify(&token(&me, header, &claims(&me, changes)));
        let full = r#"{"typ": "jwt", "alg": "EdDSA", "kid": "x"}"#;
        let changes = json!({"aud": ["other", URL], "iat": 1000.5, "exp": 1e3 + 60.0, "jti": "x"});
        assert_eq!(read(full, changes).unwrap().audiences().len(), 2);
        let later = read(HEADER, json!({"nbf": 1030})).unwrap();
        assert_eq!(later.is_in_time(at(1029), Duration::ZERO), Err(TokenError::NotYet));
        assert_eq!(later.is_in_time(at(1030), Duration::ZERO), Ok(()));
    }

    #[test]
    fn nothing_but_ed25519_by_the_issuer_is_accepted() {
        let (me, other) = (Identity::generate(), Identity::generate());
        let fault = |text: &str| AgentToken::verify(text).unwrap_err();
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"eddsa"}"#,
            r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt"}"#,
            r#"{"alg":"none","alg":"EdDSA"}"#,
            r#"{}"#,
            "[]",
            r#"["EdDSA",null,null]"#,
            "",
        ] {
            let text = token(&me, header, &claims(&me, json!({})));
            assert_eq!(fault(&text), TokenError::Header, "{header}");
        }
        for changes in [
            json!({"iss": null}),
            json!({"aud": null}),
            json!({"iat": null}),
            json!({"exp": null}),
            json!({"exp": "1060"}),
            json!({"aud": 1}),
            json!({"nbf": "x"}),
        ] {
            let text = token(&me, HEADER, &claims(&me, changes.clone()));
            assert_eq!(fault(&text), TokenError::Claims, "{changes}");
        }
        let listed = json!([me.did(), URL, 1000, 1060, null]).to_string();
        assert_eq!(fault(&token(&me, HEADER, &listed)), TokenError::Claims);
        let twice = claims(&me, json!({})).replace("{", r#"{"iss":"x","#);
        assert_eq!(fault(&token(&me, HEADER, &twice)), TokenError::Claims);
        for (iat, exp) in [(1000.0, 1301.0), (1000.0, 1000.0), (1000.0, 999.0), (-1e300, 1e300)] {
            let text = token(&me, HEADER, &claims(&me, json!({"iat": iat, "exp": exp})));
            assert_eq!(fault(&text), TokenError::Lifetime, "{iat} {exp}");
        }
        let text = token(&me, HEADER, &claims(&me, json!({"iss": "did:web:me"})));
        assert!(matches!(fault(&text), TokenError::Issuer(_)));
        assert_eq!(fault(&token(&other, HEADER, &claims(&me, json!({})))), TokenError::Signature);

        let forged = token(&other, HEADER, &claims(&me, json!({})));
        let unverified = UnverifiedToken::parse(&forged).unwrap();
        assert_eq!(unverified.agent().as_str(), me.did());
        assert_eq!(unverified.audiences(), [URL]);
        assert_eq!(unverified.verify().unwrap_err(), TokenError::Signature);
        let good = token(&me, HEADER, &claims(&me, json!({})));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        for text in [
            String::new(),
            "a".into(),
            "a.b".into(),
            signed.to_owned(),
            format!("{signed}."),
            format!("{good}="),
            format!("{good} "),
            format!("{good}."),
            format!("{signed}.{}", &signature[..80]),
        ] {
            assert!(AgentToken::verify(&text).is_err(), "{text}");
        }
        assert_eq!(fault(&"a".repeat(4097)), TokenError::TooLong);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_passes(text in "[A-Za-z0-9_.-]{0,200}") {
            prop_assert!(AgentToken::verify(&text).is_err());
        }

        #[test]
        fn a_changed_letter_makes_it_worthless(place in 0_usize..300, letter in "[A-Za-z0-9_-]") {
            let me = Identity::from_seed(&[7; 32]);
            let good = AgentToken::sign(&me, URL, at(1000), MINUTE);
            let place = place % good.len();
            let mut changed = good.clone();
            changed.replace_range(place..=place, &letter);
            prop_assert!(changed == good || AgentToken::verify(&changed).is_err());
        }
    }
}
