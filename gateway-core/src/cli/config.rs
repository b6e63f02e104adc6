//! `conexus config`: the settings in effect, and where each was set; or all that there are.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::Value;

use crate::config::{KEYS, Loaded, Row, Sources, load, reference, schema, template, toml};

#[derive(clap::Args)]
pub(super) struct Options {
    /// Print a JSON object with value and origin of each key
    #[arg(long)]
    json: bool,

    /// Print a gateway.toml with every key, its documentation and its default
    #[arg(long, group = "made", conflicts_with = "json")]
    template: bool,

    /// Print the documentation of every key, as docs/configuration.md has it
    #[arg(long, group = "made", conflicts_with = "json")]
    reference: bool,

    /// Print the JSON schema of the configuration, for editors
    #[arg(long, group = "made", conflicts_with = "json")]
    schema: bool,
}

impl Options {
    /// What needs no configuration.
    fn made(&self) -> Option<String> {
        if self.template {
            return Some(template());
        }
        if self.reference {
            return Some(reference());
        }
        self.schema.then(schema)
    }
}

pub(super) fn config(options: &Options, sources: &Sources) -> io::Result<ExitCode> {
    if let Some(made) = options.made() {
        io::stdout().lock().write_all(made.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = match load(sources) {
        Ok(loaded) => loaded,
        Err(errors) => {
            writeln!(io::stderr(), "{errors}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let text = match options.json {
        true => format!("{:#}\n", Value::Object(loaded.effective())),
        false => as_toml(&loaded),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What could stand in a file, but for secrets, with each origin in a comment.
fn as_toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = key.section();
            text += &format!("{gap}[{section}]\n");
        }
        let origin = loaded.origins[key.path].to_string();
        text += &line(key.name(), loaded.settings.toml(key), &origin);
    }
    text + policies_as_toml(loaded).as_str()
}

fn policies_as_toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    let lines = |path: &str, rows: Vec<Row>| -> String {
        let line = |(name, value): (&str, Value)| {
            line(name, toml(&value), &loaded.policy_origin(&format!("{path}.{name}")))
        };
        rows.into_iter().map(line).collect()
    };
    for (path, rows) in loaded.settings.named_tables() {
        text += &format!("\n[{path}]\n{}", lines(&path, rows));
    }
    let (empty, chains): (Vec<_>, Vec<_>) =
        loaded.settings.policies.shown_chains().into_iter().partition(|(_, rows)| rows.is_empty());
    if !empty.is_empty() {
        text += "\n[chain]\n";
    }
    for (path, _) in empty {
        let name = path.trim_start_matches("chain.");
        text += &line(name, Some("[]".to_owned()), &chain_origin(loaded, &path));
    }
    for (path, entries) in chains {
        for (index, rows) in entries.into_iter().enumerate() {
            let header = format!("[[{path}]]");
            text += &format!("\n{header:<44} # {}\n", chain_origin(loaded, &path));
            text += &lines(&format!("{path}[{index}]"), rows);
        }
    }
    text
}

/// Where a chain was set, and which one it put out of effect.
fn chain_origin(loaded: &Loaded, path: &str) -> String {
    let origin = loaded.policy_origin(path);
    match loaded.replaced_chains.get(path) {
        Some(replaced) => format!("{origin}, replaces the chain of {replaced}"),
        None => origin,
    }
}

fn line(name: &str, value: Option<String>, origin: &str) -> String {
    let setting = match value {
        Some(value) => format!("{name} = {value}"),
        None => format!("# {name} is unset"),
    };
    format!("{setting:<44} # {origin}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn loaded() -> Loaded {
        let set = ["http.agents_token=hunter2", "presence.timeout=45s"];
        let sources = Sources { set: set.map(str::to_owned).to_vec(), ..Sources::default() };
        let folder = tempfile::tempdir().unwrap();
        load(&Sources { working_dir: folder.path().to_owned(), ..sources }).unwrap()
    }

    #[test]
    fn every_key_is_shown_with_its_origin() {
        let text = as_toml(&loaded());
        for line in [
            "[presence]",
            "timeout = \"45s\"                              # --set",
            "# heartbeat is unset                         # default",
            "agents_token = \"<secret>\"                    # --set",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        assert_eq!(text.matches(" # ").count(), KEYS.len());
    }

    #[test]
    fn json_has_value_and_origin_of_every_key() {
        let shown = loaded().effective();
        assert_eq!(shown.len(), KEYS.len());
        assert_eq!(shown["presence.timeout"], json!({ "value": "45s", "origin": "--set" }));
        assert_eq!(shown["http.agents_token"]["value"], "<secret>");
        assert_eq!(shown["presence.heartbeat"]["value"], json!(null));
    }

    #[test]
    fn hooks_and_chains_are_shown_with_their_origins_and_without_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let main = "[hook.members]\nuse = \"script:allowlist\"\nconfig = { key = { env = \"K\" }, n = 1.5 }\n\
                    [[chain.on_route]]\nhook = \"members\"\n[[chain.on_watch]]\nhook = \"members\"\n";
        let later =
            "[[chain.on_route]]\nhook = \"members\"\nmode = \"shadow\"\n[chain]\non_watch = []\n";
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        std::fs::write(folder.path().join("gateway.toml"), main).unwrap();
        std::fs::write(folder.path().join("conf.d/a.toml"), later).unwrap();
        let loaded = load(&Sources {
            working_dir: folder.path().to_owned(),
            env: vec![("K".to_owned(), "hunter2".to_owned())],
            ..Sources::default()
        })
        .unwrap();

        let text = as_toml(&loaded);
        for line in [
            "[hook.members]",
            "use = \"script:allowlist\"                     # gateway.toml:2:7",
            "config = { key = \"<secret>\", n = 1.5 }       # gateway.toml:3:10",
            "blocking = false                             # default",
            "on_watch = []                                # conf.d/a.toml:5:1, replaces the chain of gateway.toml:6:9",
            "[[chain.on_route]]                           # conf.d/a.toml:1:9, replaces the chain of gateway.toml:4:9",
            "mode = \"shadow\"                              # conf.d/a.toml:3:8",
            "# budget is unset                            # default",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        let shown = Value::Object(loaded.effective());
        assert!(!(text + shown.to_string().as_str()).contains("hunter2"));
        assert_eq!(shown["hook.members.config"]["value"], json!({ "n": 1.5, "key": "<secret>" }));
        assert_eq!(shown["chain.on_route"]["value"][0]["mode"], "shadow");
        assert_eq!(shown["chain.on_route"]["replaces"], "gateway.toml:4:9");
        assert_eq!(shown["chain.on_watch"]["value"], json!([]));
    }
}
