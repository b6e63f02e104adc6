//! The configuration explained: to people, as `gateway.toml` and `docs/configuration.md`, and to
//! editors, as a JSON schema. All three are made from the table of keys and from the operator's own
//! tables, so that none can say what another does not.
//!
//! The repository keeps what is made here (`docs/regenerate` writes it); a test compares.

mod reference;
mod schema;
mod template;

pub use reference::reference;
pub use schema::schema;
pub use template::template;

/// What holds for all of the configuration, a paragraph each.
const VALUES: &[&str] = &[
    "Durations and sizes always have a unit: \"250ms\" \"45s\" \"5m\" \"1h\", \"512B\" \"64KiB\" \"1MiB\". A \
     secret is a text, { file = \"…\" } or { env = \"…\" }, and is never printed.",
    "Later layers win: gateway.toml (or --config FILE), conf.d/*.toml beside it in the order of their names, environment \
     variables (CONEXUS_PRESENCE__TIMEOUT=45s), and --set presence.timeout=45s. A list in a later \
     layer replaces the earlier one whole, and so does a chain of hooks.",
];

/// What holds for the tables whose names are the operator's own, a paragraph each.
const POLICY: &[&str] = &[
    "Policy: hooks decide who may register, what is routed where, when a silent agent is gone.",
    "Names are yours: 1 to 64 of a-z, 0-9, \"_\" and \"-\". A later layer replaces single keys of these \
     tables, a config whole. In the environment, CONEXUS_HOOK__MEMBERS__USE=script:allowlist sets \
     hook.members.use, in lower case whatever the variable's; a chain is set whole, as in \
     CONEXUS_CHAIN__ON_REGISTER='[{ hook = \"members\" }]'.",
];

/// The paragraphs of a documentation that was written line by line.
fn paragraphs(lines: &[&str]) -> Vec<String> {
    let blocks = lines.split(|line| line.trim().is_empty()).filter(|block| !block.is_empty());
    blocks.map(|block| block.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")).collect()
}

/// Lines are at most this long, where the words allow it.
const WIDTH: usize = 100;

/// A paragraph as lines, each with this at its beginning.
fn wrapped(paragraph: &str, beginning: &str) -> String {
    let mut text = String::new();
    let mut line = beginning.to_owned();
    for word in paragraph.split_whitespace() {
        let begun = line.len() > beginning.len();
        if begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text += &line;
            text += "\n";
            line = beginning.to_owned();
        } else if begun {
            line += " ";
        }
        line += word;
    }
    text + line.as_str() + "\n"
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use conexus_plugin_api::{Point, PointKind};

    use super::super::{
        KEYS, Settings, Sources, load,
        own_tables::{Default as FieldDefault, OWN_TABLES},
    };
    use super::*;

    #[test]
    fn what_the_repository_keeps_is_what_is_made_of_the_table_of_keys() {
        for (path, made) in [
            ("gateway.toml", template()),
            ("docs/configuration.md", reference()),
            ("docs/gateway.schema.json", schema()),
        ] {
            let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
            let kept = fs::read_to_string(kept).unwrap_or_default();
            let line = kept.lines().zip(made.lines()).position(|(kept, made)| kept != made);
            assert!(
                kept == made,
                "{path} is not what the code says, from line {} on: run docs/regenerate",
                line.unwrap_or_else(|| kept.lines().count().min(made.lines().count())) + 1
            );
        }
    }

    #[test]
    fn what_is_unset_by_default_has_an_example_and_nothing_else_has() {
        let settings = Settings::default();
        for key in KEYS {
            let unset = settings.toml(key).is_none();
            assert_eq!(key.example.is_some(), unset, "{}", key.path);
            if let Some(example) = key.example {
                let value = example.parse().unwrap();
                assert!(key.kind.check(&value).is_empty(), "{}: {example}", key.path);
            }
        }
    }

    #[test]
    fn own_tables_have_the_defaults_that_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[hook.a]\nuse = \"script:a\"\n[plugins.a]\npath = \"a.so\"\n[rate_class.a]\n\
             [admin_token.a]\nsha256 = \"{}\"\n[[chain.on_route]]\nhook = \"a\"\n",
            "0".repeat(64)
        );
        fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let sources = Sources { working_dir: folder.path().to_owned(), ..Sources::default() };
        let settings = load(&sources).unwrap().settings;
        let chains = settings.policies.shown_chains().into_iter();
        let chains = chains.map(|(path, mut entries)| (path, entries.remove(0)));
        let shown: Vec<_> = settings.named_tables().into_iter().chain(chains).collect();
        assert_eq!(shown.len(), OWN_TABLES.len());
        for (path, rows) in shown {
            let table = OWN_TABLES.iter().find(|table| path.starts_with(table.name)).unwrap();
            assert_eq!(rows.len(), table.fields.len(), "{path}");
            for (field, (name, value)) in table.fields.iter().zip(rows) {
                assert_eq!(field.name, name);
                let value = super::super::toml(&value);
                match field.default {
                    FieldDefault::Required => assert!(value.is_some(), "{path}.{name}"),
                    FieldDefault::Unset => assert_eq!(value, None, "{path}.{name}"),
                    FieldDefault::Value(told) => {
                        assert_eq!(value.as_deref(), Some(told), "{path}.{name}")
                    }
                }
            }
        }
    }

    #[test]
    fn examples_of_own_tables_are_valid_unless_they_leave_something_out() {
        for table in OWN_TABLES {
            for field in table.fields.iter().filter(|field| !field.example.contains('…')) {
                let value = field.example.parse().unwrap();
                assert!(field.kind.check(&value).is_empty(), "{}.{}", table.name, field.name);
            }
        }
    }

    #[test]
    fn every_point_with_a_chain_is_named() {
        let chain = OWN_TABLES.iter().find(|table| table.name == "chain").unwrap();
        let about = chain.about.concat();
        let (decide, told) = about.split_once("Points that are told").unwrap();
        for point in Point::ALL.iter().filter(|point| point.kind() != PointKind::Lifecycle) {
            let part = if point.is_verdict() { decide } else { told };
            let named = |text: &str| text.split([' ', ',', '.']).any(|word| word == point.name());
            assert!(named(part), "{point}");
        }
    }
}
