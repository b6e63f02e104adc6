//! The configuration, and the aliases by key.

use std::{collections::HashMap, time::Duration};

use conexus_protocol::AgentKey;
use serde::Deserialize;

use crate::load::Key;

/// See the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    aliases: Vec<Alias>,
    #[serde(
        default = "half_a_minute",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub(crate) answer_within: Duration,
    #[serde(
        default = "a_second",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub(crate) refresh: Duration,
    #[serde(default = "ten_thousand")]
    pub(crate) max_pending: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alias {
    did: String,
    capability: String,
}

impl Config {
    /// What each alias stands for, or what is wrong.
    pub(crate) fn aliases(&self) -> Result<HashMap<Key, String>, String> {
        if self.aliases.is_empty() {
            return Err("`aliases` is empty: nothing would be redirected".into());
        }
        if self.max_pending == 0 {
            return Err("`max_pending` is 0".into());
        }
        let mut aliases = HashMap::new();
        for (nth, Alias { did, capability }) in self.aliases.iter().enumerate() {
            let key = AgentKey::parse_did(did)
                .map_err(|error| format!("`aliases[{nth}].did` {did:?}: {error}"))?;
            if capability.is_empty() {
                return Err(format!("`aliases[{nth}].capability` is empty"));
            }
            if aliases.insert(*key.as_bytes(), capability.clone()).is_some() {
                return Err(format!("`aliases[{nth}].did` {did:?} is there twice"));
            }
        }
        Ok(aliases)
    }
}

const fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

const fn a_second() -> Duration {
    Duration::from_secs(1)
}

const fn ten_thousand() -> usize {
    10_000
}
