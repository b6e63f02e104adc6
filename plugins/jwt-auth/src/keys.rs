//! The issuer's keys, read from a file.

use std::{fs, path::Path};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{JwkSet, PublicKeyUse},
};

use crate::config::Source;

/// No file of keys is larger.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// RFC 7518, section 3.2: a key as long as the hash, of which the shortest has 32 bytes.
const MIN_SECRET_BYTES: usize = 32;

/// Why there are no keys. Names the configuration's key, never a secret.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` {path}: {why}", path = path.display())]
pub(crate) struct KeyError {
    key: &'static str,
    path: std::path::PathBuf,
    why: String,
}

/// What tokens are verified with.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// One key for all.
    One(DecodingKey),
    /// By `kid`.
    Set(Vec<SetKey>),
}

/// One key of a set.
#[derive(Debug, Clone)]
pub(crate) struct SetKey {
    id: Option<String>,
    /// What the set says that it is for.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Reads them; all must be usable with one of the algorithms.
    pub(crate) fn read(source: &Source, algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let (key, path) = match source {
            Source::Pem(path) => ("key_file", path),
            Source::Secret(path) => ("secret_file", path),
            Source::Jwks(path) => ("jwks_file", path),
        };
        let parsed = content(path).and_then(|content| match source {
            Source::Pem(_) => public_key(&content, algorithms),
            Source::Secret(_) => secret(&content, algorithms),
            Source::Jwks(_) => set(&content, algorithms),
        });
        parsed.map_err(|why| KeyError { key, path: path.clone(), why })
    }

    /// The key of a token. A token without `kid` has one only where there is no choice.
    pub(crate) fn of(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        match self {
            Self::One(key) => Some(key),
            Self::Set(keys) => {
                let mut fitting = keys.iter().filter(|key| {
                    key.key.family() == algorithm.family()
                        && fits(&key.key, algorithm)
                        && key.algorithm.is_none_or(|only| only == algorithm)
                        && id.is_none_or(|id| key.id.as_deref() == Some(id))
                });
                let first = fitting.next()?;
                (id.is_some() || fitting.next().is_none()).then_some(&first.key)
            }
        }
    }
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("has {size} bytes, more than any file of keys"));
    }
    fs::read(path).map_err(|error| error.to_string())
}

fn public_key(pem: &[u8], algorithms: &[Algorithm]) -> Result<Keys, String> {
    let is = |what: &str| pem.windows(what.len()).any(|part| part == what.as_bytes());
    if is("PRIVATE KEY-----") {
        return Err("is a private key; only the public one belongs here".into());
    }
    let (kind, key) = match algorithms.first().map(|first| first.family()) {
        Some(AlgorithmFamily::Ed) => ("an Ed25519", DecodingKey::from_ed_pem(pem)),
        Some(AlgorithmFamily::Ec) => ("an elliptic curve", DecodingKey::from_ec_pem(pem)),
        Some(AlgorithmFamily::Rsa) => ("an RSA", DecodingKey::from_rsa_pem(pem)),
        _ => return Err("`algorithms` are of shared secrets: use `secret_file`".into()),
    };
    let key = key.map_err(|_| format!("is not {kind} public key in PEM, as `algorithms` asks"))?;
    if !algorithms.iter().any(|algorithm| fits(&key, *algorithm)) {
        return Err("is on another curve than `algorithms` asks".into());
    }
    Ok(Keys::One(key))
}

/// Whether the length is right for the curve; others are of any length.
fn fits(key: &DecodingKey, algorithm: Algorithm) -> bool {
    let length = key.try_get_as_bytes().map(<[u8]>::len).ok();
    match algorithm {
        Algorithm::EdDSA => length == Some(32),
        Algorithm::ES256 => length == Some(65),
        Algorithm::ES384 => length == Some(97),
        _ => true,
    }
}

fn secret(content: &[u8], algorithms: &[Algorithm]) -> Result<Keys, String> {
    if algorithms.iter().any(|algorithm| algorithm.family() != AlgorithmFamily::Hmac) {
        return Err("`algorithms` are of public keys: use `key_file`".into());
    }
    let secret = content.trim_ascii();
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("has fewer than {MIN_SECRET_BYTES} bytes"));
    }
    Ok(Keys::One(DecodingKey::from_secret(secret)))
}

fn set(content: &[u8], algorithms: &[Algorithm]) -> Result<Keys, String> {
    let set: JwkSet = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    let mut keys = Vec::new();
    for jwk in set.keys {
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            continue;
        }
        // A key for something else (encryption, another algorithm) is no fault of the set.
        let algorithm = match jwk.common.key_algorithm {
            Some(named) => match named.to_string().parse() {
                Ok(algorithm) if algorithms.contains(&algorithm) => Some(algorithm),
                _ => continue,
            },
            None => None,
        };
        let Ok(key) = DecodingKey::from_jwk(&jwk) else { continue };
        let usable = |algorithm: &Algorithm| {
            algorithm.family() == key.family() && fits(&key, *algorithm) && !short(&key)
        };
        if algorithms.iter().any(usable) {
            keys.push(SetKey { id: jwk.common.key_id, algorithm, key });
        }
    }
    if keys.is_empty() {
        return Err("has no key that fits `algorithms`".into());
    }
    Ok(Keys::Set(keys))
}

/// Whether it is a shared secret that is too short.
fn short(key: &DecodingKey) -> bool {
    key.family() == AlgorithmFamily::Hmac
        && key.try_get_as_bytes().is_ok_and(|secret| secret.len() < MIN_SECRET_BYTES)
}
