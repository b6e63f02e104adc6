//! `conexus config`: the settings in effect, and where each was set.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;

use crate::config::{KEYS, Loaded, Sources, load};

#[derive(clap::Args)]
pub(super) struct Options {
    /// Print a JSON object with value and origin of each key
    #[arg(long)]
    json: bool,
}

pub(super) fn config(options: &Options, sources: &Sources) -> io::Result<ExitCode> {
    let loaded = match load(sources) {
        Ok(loaded) => loaded,
        Err(errors) => {
            writeln!(io::stderr(), "{errors}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let text = if options.json { as_json(&loaded) } else { as_toml(&loaded) };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(loaded: &Loaded) -> String {
    let of = |key| json!(loaded.settings.value(key));
    let keys = KEYS.iter().map(|key| {
        let origin = loaded.origins[key.path].to_string();
        (key.path.to_owned(), json!({ "value": of(key), "origin": origin }))
    });
    format!("{:#}\n", serde_json::Value::Object(keys.collect()))
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
        let line = match loaded.settings.toml(key) {
            Some(value) => format!("{} = {value}", key.name()),
            None => format!("# {} is unset", key.name()),
        };
        text += &format!("{line:<44} # {}\n", loaded.origins[key.path]);
    }
    text
}

#[cfg(test)]
mod tests {
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
        let shown: serde_json::Value = serde_json::from_str(&as_json(&loaded())).unwrap();
        assert_eq!(shown.as_object().unwrap().len(), KEYS.len());
        assert_eq!(shown["presence.timeout"], json!({ "value": "45s", "origin": "--set" }));
        assert_eq!(shown["http.agents_token"]["value"], "<secret>");
        assert_eq!(shown["presence.heartbeat"]["value"], json!(null));
    }
}
