//! Settings as text: the value of each key as TOML, secrets as `<secret>`.

use super::{settings::Settings, table::Key};

impl Settings {
    /// The value of a key; `null` where it is unset. Secrets are `"<secret>"`.
    pub fn value(&self, key: &Key) -> serde_json::Value {
        // Plain data with text keys: it always serializes.
        let all = serde_json::to_value(self).unwrap_or_default();
        all[key.section()][key.name()].clone()
    }

    /// The value of a key in TOML; `None` where it is unset. Secrets are `"<secret>"`.
    pub fn toml(&self, key: &Key) -> Option<String> {
        to_toml(&self.value(key)).map(|value| value.to_string())
    }
}

fn to_toml(value: &serde_json::Value) -> Option<toml_edit::Value> {
    Some(match value {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(flag) => (*flag).into(),
        serde_json::Value::Number(number) => number.as_i64()?.into(),
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(list) => list.iter().filter_map(to_toml).collect(),
        serde_json::Value::Object(members) => {
            members.iter().filter_map(|(name, value)| Some((name, to_toml(value)?))).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::{IceServerSettings, KEYS, Secret};
    use super::*;

    fn toml(settings: &Settings, path: &str) -> Option<String> {
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
            assert_eq!(toml(&settings, path).as_deref(), Some(expected));
        }
        assert_eq!(toml(&settings, "presence.heartbeat"), None);
    }

    #[test]
    fn secrets_are_not_written_out_at_any_depth() {
        let mut settings = Settings::default();
        settings.http.agents_token = Some(Secret::new("hunter2"));
        settings.ice.servers = vec![IceServerSettings {
            urls: vec!["turn:turn.example".into()],
            username: Some("conexus".into()),
            credential: Some(Secret::new("hunter2")),
        }];
        assert_eq!(toml(&settings, "http.agents_token").unwrap(), r#""<secret>""#);
        let servers = toml(&settings, "ice.servers").unwrap();
        assert!(servers.contains("<secret>") && !servers.contains("hunter2"), "{servers}");
    }
}
