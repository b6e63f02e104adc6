//! The configuration, and what is wrong with it before a key is read.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jsonwebtoken::Algorithm;
use serde::Deserialize;

/// See the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) algorithms: Vec<Algorithm>,
    #[serde(default)]
    pub(crate) issuer: OneOrMany,
    #[serde(default)]
    pub(crate) audience: OneOrMany,
    #[serde(
        default = "half_a_minute",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub(crate) leeway: Duration,
    #[serde(default)]
    pub(crate) required_claims: Vec<String>,
    #[serde(default)]
    pub(crate) when: When,
    pub(crate) query: Option<String>,
    #[serde(default)]
    pub(crate) subject: Subject,
    #[serde(default = "sub")]
    pub(crate) subject_claim: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) rate_class_claim: Option<String>,
}

/// `"a"` or `["a", "b"]`; empty means that anything will do.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Where a token is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    /// The upgrade request.
    Connect,
    /// REGISTER's `credentials`.
    Register,
    /// Whichever there is.
    #[default]
    Either,
}

/// What the subject of a token has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// The DID of the agent that presents it.
    #[default]
    Did,
    /// Whatever it likes.
    Any,
}

/// Where the keys lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Pem(PathBuf),
    Secret(PathBuf),
    Jwks(PathBuf),
}

impl Config {
    /// The one source of keys.
    pub(crate) fn source(&self) -> Result<Source, &'static str> {
        let Self { key_file, secret_file, jwks_file, .. } = self;
        match (key_file, secret_file, jwks_file) {
            (Some(path), None, None) => Ok(Source::Pem(path.clone())),
            (None, Some(path), None) => Ok(Source::Secret(path.clone())),
            (None, None, Some(path)) => Ok(Source::Jwks(path.clone())),
            _ => Err("set exactly one of `key_file`, `secret_file` and `jwks_file`"),
        }
    }

    /// What is wrong beyond what types can say.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let family = self.algorithms.first().map(|first| first.family());
        match (&self.source()?, family) {
            (_, None) => return Err("`algorithms` names none"),
            // A set may have keys of several families; each is used for its own.
            (Source::Jwks(_), Some(_)) => {}
            (_, Some(family)) => {
                if self.algorithms.iter().any(|algorithm| algorithm.family() != family) {
                    return Err("`algorithms` are of different families: one key fits only one");
                }
            }
        }
        if self.query.as_ref().is_some_and(String::is_empty) {
            return Err("`query` is empty");
        }
        if self.query.is_some() && self.when == When::Register {
            return Err("`query` has no use with `when = \"register\"`");
        }
        if self.subject_claim.is_empty() {
            return Err("`subject_claim` is empty");
        }
        Ok(())
    }
}

impl OneOrMany {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

const fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

fn sub() -> String {
    "sub".into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fault(config: Value) -> String {
        match serde_json::from_value::<Config>(config) {
            Ok(config) => config.check().unwrap_err().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_least_configuration_is_enough() {
        let config = json!({"key_file": "/k", "algorithms": ["EdDSA"]});
        let config: Config = serde_json::from_value(config).unwrap();
        config.check().unwrap();
        assert_eq!(config.leeway, Duration::from_secs(30));
        assert_eq!((config.when, config.subject), (When::Either, Subject::Did));
    }

    #[test]
    fn faults_name_their_key() {
        for (config, key) in [
            (json!({"key_file": "/k"}), "algorithms"),
            (json!({"key_file": "/k", "algorithms": []}), "algorithms"),
            (json!({"key_file": "/k", "algorithms": ["none"]}), "none"),
            (json!({"key_file": "/k", "algorithms": ["EdDSA", "HS256"]}), "algorithms"),
            (json!({"algorithms": ["EdDSA"]}), "key_file"),
            (json!({"key_file": "/k", "jwks_file": "/j", "algorithms": ["EdDSA"]}), "jwks_file"),
            (json!({"key_file": "/k", "algorithms": ["EdDSA"], "isuer": "x"}), "isuer"),
            (json!({"key_file": "/k", "algorithms": ["EdDSA"], "when": "never"}), "never"),
            (json!({"key_file": "/k", "algorithms": ["EdDSA"], "query": ""}), "query"),
            (
                json!({"key_file": "/k", "algorithms": ["EdDSA"], "subject_claim": ""}),
                "subject_claim",
            ),
            (
                json!({"key_file": "/k", "algorithms": ["EdDSA"], "query": "t", "when": "register"}),
                "query",
            ),
        ] {
            let fault = fault(config.clone());
            assert!(fault.contains(key), "{config}: {fault}");
        }
    }

    #[test]
    fn a_leeway_needs_a_unit() {
        let config = json!({"key_file": "/k", "algorithms": ["EdDSA"], "leeway": "45"});
        assert!(serde_json::from_value::<Config>(config).is_err());
    }
}
