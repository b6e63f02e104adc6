//! Settings as text: the value of each key as TOML, secrets as `<secret>`.

use serde_json::{Value, json};

use super::{
    policies::{ChainEntry, HookSettings, PluginSettings, Policies, RateClass},
    settings::Settings,
    table::Key,
    tokens::AdminToken,
    units::{format_duration, format_size},
};

/// A key of a table with a name of the operator's own, and its value; `null` where it is unset.
pub type Row = (&'static str, Value);

impl Settings {
    /// The value of a key; `null` where it is unset. Secrets are `"<secret>"`.
    pub fn value(&self, key: &Key) -> Value {
        // Plain data with text keys: it always serializes.
        let all = serde_json::to_value(self).unwrap_or_default();
        let (section, name) = key.field();
        all[section][name].clone()
    }

    /// The value of a key in TOML; `None` where it is unset. Secrets are `"<secret>"`.
    pub fn toml(&self, key: &Key) -> Option<String> {
        toml(&self.value(key))
    }
}

/// A value in TOML; `None` where it is unset.
pub(crate) fn toml(value: &Value) -> Option<String> {
    to_toml(value).map(|value| value.to_string())
}

impl Settings {
    /// Each table with a name of the operator's own but the chains, with its rows.
    pub fn named_tables(&self) -> Vec<(String, Vec<Row>)> {
        let tokens = self
            .admin_tokens
            .iter()
            .map(|(name, token)| (format!("admin_token.{name}"), token.rows()));
        self.policies.tables().into_iter().chain(tokens).collect()
    }
}

impl AdminToken {
    fn rows(&self) -> Vec<Row> {
        vec![("sha256", json!("<secret>")), ("scope", json!(self.scope))]
    }
}

impl Policies {
    /// Each `hook.NAME`, `plugins.NAME` and `rate_class.NAME` with its rows.
    pub fn tables(&self) -> Vec<(String, Vec<Row>)> {
        let hooks = self.hooks.iter().map(|(name, hook)| (format!("hook.{name}"), hook.rows()));
        let plugins =
            self.plugins.iter().map(|(name, plugin)| (format!("plugins.{name}"), plugin.rows()));
        let classes = self
            .rate_classes
            .iter()
            .map(|(name, class)| (format!("rate_class.{name}"), class.rows()));
        hooks.chain(plugins).chain(classes).collect()
    }

    /// Each `chain.on_POINT` with the rows of its entries.
    pub fn shown_chains(&self) -> Vec<(String, Vec<Vec<Row>>)> {
        let rows = |entries: &[ChainEntry]| entries.iter().map(ChainEntry::rows).collect();
        self.chains
            .iter()
            .map(|(chain, entries)| (format!("chain.{}", chain.0), rows(entries)))
            .collect()
    }
}

impl HookSettings {
    fn rows(&self) -> Vec<Row> {
        vec![
            ("use", String::from(self.source.clone()).into()),
            ("config", self.shown_config.clone().into()),
            ("blocking", self.blocking.into()),
            ("tick", json!(self.tick.map(format_duration))),
            ("namespace", json!(self.namespace)),
            ("scope", json!(self.scope)),
        ]
    }
}

impl ChainEntry {
    fn rows(&self) -> Vec<Row> {
        vec![
            ("hook", json!(self.hook)),
            ("mode", json!(self.mode)),
            ("on_error", json!(self.on_error)),
            ("budget", json!(self.budget.map(format_duration))),
            ("warn", json!(self.warn.map(format_duration))),
        ]
    }
}

impl PluginSettings {
    fn rows(&self) -> Vec<Row> {
        vec![
            ("path", json!(self.path)),
            ("sha256", json!(self.sha256)),
            ("crate", json!(self.crate_name)),
        ]
    }
}

impl RateClass {
    fn rows(&self) -> Vec<Row> {
        vec![
            ("messages_per_second", self.messages_per_second.into()),
            ("message_burst", self.message_burst.into()),
            ("bytes_per_second", format_size(self.bytes_per_second).into()),
            ("bytes_burst", format_size(self.bytes_burst).into()),
        ]
    }
}

fn to_toml(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.into(),
        Value::Array(list) => list.iter().filter_map(to_toml).collect(),
        Value::Object(members) => {
            members.iter().filter_map(|(name, value)| Some((name, to_toml(value)?))).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::{IceServerSettings, KEYS, Secret};
    use super::*;

    fn toml_of(settings: &Settings, path: &str) -> Option<String> {
        settings.toml(KEYS.iter().find(|key| key.path == path).unwrap())
    }

    #[test]
    fn values_are_written_as_the_file_has_them() {
        let settings = Settings::default();
        for (path, expected) in [
            ("server.listen", r#""127.0.0.1:8000""#),
            ("presence.timeout", r#""5m""#),
            ("limits.message_bytes", r#""64KiB""#),
            ("limits.connections", "10000"),
            ("protocol.require_subprotocol", "true"),
            ("routing.relay", r#"["OFFER", "ANSWER", "ICE_CANDIDATE", "ERROR"]"#),
        ] {
            assert_eq!(toml_of(&settings, path).as_deref(), Some(expected));
        }
        assert_eq!(toml_of(&settings, "presence.heartbeat"), None);
    }

    #[test]
    fn secrets_are_not_written_out_at_any_depth() {
        let mut settings = Settings::default();
        settings.http.agents_token = Some(Secret::new("hunter2"));
        settings.ice.servers = vec![IceServerSettings {
            urls: vec!["turn:turn.example".into()],
            username: Some("conexus".into()),
            credential: Some(Secret::new("hunter2")),
            secret: Some(Secret::new("hunter2")),
        }];
        assert_eq!(toml_of(&settings, "http.agents_token").unwrap(), r#""<secret>""#);
        let servers = toml_of(&settings, "ice.servers").unwrap();
        assert!(servers.contains("<secret>") && !servers.contains("hunter2"), "{servers}");
    }
}
