//! All settings in effect with where each was set, as JSON: what `conexus config --json` prints and
//! the admin API shows. Secrets are `"<secret>"`.

use serde_json::{Map, Value, json};

use super::{fault::Origin, load::Loaded, settings::KEYS, show::Row};

impl Loaded {
    /// `{"presence.timeout": {"value": "45s", "origin": "gateway.toml:3:11"}, …}`; a chain that put
    /// one of an earlier layer out of effect says which in `replaces`.
    pub fn effective(&self) -> Map<String, Value> {
        let shown = KEYS.iter().map(|key| {
            let origin = self.origins.get(key.path).unwrap_or(&Origin::Default).to_string();
            let value = self.settings.value(key);
            (key.path.to_owned(), json!({ "value": value, "origin": origin }))
        });
        let mut keys: Map<String, Value> = shown.collect();
        for (path, rows) in self.settings.named_tables() {
            for (name, value) in rows {
                let path = format!("{path}.{name}");
                let origin = self.policy_origin(&path);
                keys.insert(path, json!({ "value": value, "origin": origin }));
            }
        }
        for (path, entries) in self.settings.policies.shown_chains() {
            let entries: Vec<Map<_, _>> = entries.into_iter().map(as_object).collect();
            let mut shown = json!({ "value": entries, "origin": self.policy_origin(&path) });
            if let Some(replaced) = self.replaced_chains.get(&path) {
                shown["replaces"] = replaced.to_string().into();
            }
            keys.insert(path, shown);
        }
        keys
    }

    /// Where a key of a table with a name of the operator's own was set.
    pub(crate) fn policy_origin(&self, path: &str) -> String {
        self.policy_origins.get(path).unwrap_or(&Origin::Default).to_string()
    }
}

fn as_object(rows: Vec<Row>) -> Map<String, Value> {
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
