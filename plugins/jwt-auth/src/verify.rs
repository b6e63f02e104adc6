//! From a token to an identity.

use std::collections::HashSet;

use jsonwebtoken::{
    Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde_json::Value;

use crate::{claims, config::Config, identity::Identity, keys::Keys};

/// No token is longer: what is presented is not trusted yet.
pub(crate) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token is not accepted, in the words that the agent gets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a token is required")]
    Missing,
    #[error("the token is too long")]
    TooLong,
    #[error("the token cannot be read")]
    Malformed,
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    #[error("the token's key is not known")]
    UnknownKey,
    #[error("the token's signature is not valid")]
    Signature,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token lacks the claim {0}")]
    Lacks(String),
    #[error("the token does not name an agent")]
    NoSubject,
    #[error("the token belongs to another agent")]
    OtherSubject,
}

/// Verifies a token at this time. Whose it is, is for [`Identity::check`].
pub(crate) fn verify(
    token: &str,
    keys: &Keys,
    config: &Config,
    now_ms: i64,
) -> Result<Identity, Refusal> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::TooLong);
    }
    let header = decode_header(token).map_err(|error| refusal(&error))?;
    // RFC 7515, section 4.1.11: extensions that are not understood must not be passed over.
    if header.crit.is_some() {
        return Err(Refusal::Malformed);
    }
    if !config.algorithms.contains(&header.alg) {
        return Err(Refusal::Algorithm);
    }
    let key = keys.of(header.kid.as_deref(), header.alg).ok_or(Refusal::UnknownKey)?;
    let mut validation = Validation::new(header.alg);
    // The times are checked below, by the gateway's clock.
    validation.validate_exp = false;
    let mut required = HashSet::from(["exp".to_owned()]);
    if !config.issuer.as_slice().is_empty() {
        validation.set_issuer(config.issuer.as_slice());
        required.insert("iss".into());
    }
    validation.validate_aud = !config.audience.as_slice().is_empty();
    if validation.validate_aud {
        validation.set_audience(config.audience.as_slice());
        required.insert("aud".into());
    }
    validation.required_spec_claims = required;
    let claims = decode::<Value>(token, key, &validation).map_err(|error| refusal(&error))?.claims;
    let expires_ms = times(&claims, config, now_ms)?;
    let missing = |name: &&String| claims::find(&claims, name).is_none();
    if let Some(name) = config.required_claims.iter().find(missing) {
        return Err(Refusal::Lacks(name.clone()));
    }
    Ok(Identity::of(&claims, expires_ms, config))
}

/// Checks `exp` and `nbf`; the end, with the leeway.
fn times(claims: &Value, config: &Config, now_ms: i64) -> Result<i64, Refusal> {
    let leeway = i64::try_from(config.leeway.as_millis()).unwrap_or(i64::MAX);
    let lacks = || Refusal::Lacks("exp".into());
    let expires = claims::find(claims, "exp").ok_or_else(lacks)?;
    let expires = claims::millis(expires).ok_or(Refusal::Malformed)?.saturating_add(leeway);
    if now_ms >= expires {
        return Err(Refusal::Expired);
    }
    if let Some(begins) = claims::find(claims, "nbf") {
        let begins = claims::millis(begins).ok_or(Refusal::Malformed)?;
        if now_ms.saturating_add(leeway) < begins {
            return Err(Refusal::NotYet);
        }
    }
    Ok(expires)
}

fn refusal(error: &Error) -> Refusal {
    match error.kind() {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::UnsupportedAlgorithm => Refusal::Algorithm,
        ErrorKind::MissingRequiredClaim(name) => Refusal::Lacks(name.clone()),
        _ => Refusal::Malformed,
    }
}
