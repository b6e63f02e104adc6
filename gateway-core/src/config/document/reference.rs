//! `docs/configuration.md`: every key with what may be there, its default, and when a change of it
//! comes into effect.

use super::{
    super::{
        own_tables::{Default, OWN_TABLES, OwnTable},
        settings::{KEYS, SECTIONS, Settings},
        table::Key,
    },
    POLICY, VALUES, paragraphs, wrapped,
};

const HEAD: &str = "\
# Configuration

<!-- Made from gateway-core/src/config by docs/regenerate, as gateway.toml is: change it there. -->

Every key of the gateway's configuration: what it is for, its default, what may be there, and how a
change comes into effect. [gateway.toml](../gateway.toml) has the same keys to fill in, and `conexus
config --template` prints it.

";

const COMMANDS: &str = "\
`conexus check` says all that is wrong, with file and line, and starts nothing. `conexus config` shows
what is in effect and where it was set.

**In an editor.** [gateway.schema.json](gateway.schema.json) is a JSON schema of the file, which `conexus
config --schema` prints. Editors that know TOML schemas (Even Better TOML for VS Code, Taplo) complete
keys with it and underline what is wrong, if the file begins with a line that says where it lies:
`#:schema ./docs/gateway.schema.json`. What ties several keys together, and how large a size or long a
duration may be, only `conexus check` knows.

**Reload or restart.** SIGHUP, `conexus reload` and a changed file (`policy.watch`) have the whole
configuration read again. Keys marked *reload* and the tables at the end are taken over then, without
disconnecting anybody; a changed key marked *restart* is named in the log, and waits for one.

";

/// All keys, for people.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    text += &format!("{}\n{COMMANDS}", prose(VALUES));
    let defaults = Settings::default();
    text += &contents();
    for (section, about) in SECTIONS {
        text += &format!("\n## `[{section}]`\n\n");
        text += &prose(&paragraphs(about));
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            text += &format!("\n### `{}`\n\n{}", key.path, prose(&paragraphs(key.doc)));
            text += &format!("\n{}\n", facts(key, &defaults));
        }
    }
    text += "\n## Tables with names of your own\n\n";
    text += &prose(POLICY);
    for table in OWN_TABLES {
        text += &own_table(table);
    }
    text
}

/// A table of all tables.
fn contents() -> String {
    let sections = SECTIONS
        .iter()
        .map(|(section, about)| (format!("[{section}]"), paragraphs(about).concat()));
    let own = OWN_TABLES.iter().map(|table| (table.header.to_owned(), table.about.concat()));
    let mut text = "| table | what |\n| --- | --- |\n".to_owned();
    for (header, about) in sections.chain(own) {
        let first = about.split_inclusive(". ").next().unwrap_or_default();
        let first = escaped(first.trim_end().trim_end_matches('.'));
        text += &format!("| [`{header}`](#{}) | {first} |\n", anchor(&header));
    }
    text
}

fn facts(key: &Key, defaults: &Settings) -> String {
    let default = match (defaults.toml(key), key.example) {
        (Some(value), _) => format!("Default: `{value}`"),
        (None, Some(example)) => format!("Unset by default, else such as `{example}`"),
        (None, None) => "Unset by default".to_owned(),
    };
    let effect = if key.is_hot() { "reload" } else { "restart" };
    let accepted = escaped(&key.kind.accepted());
    format!("*{default} · takes {accepted} · {effect} · `{}`*", key.variable())
}

fn own_table(table: &OwnTable) -> String {
    let mut text = format!("\n### `{}`\n\n", table.header);
    text += &prose(table.about);
    text += "\n| key | default | takes | what |\n| --- | --- | --- | --- |\n";
    for field in table.fields {
        let default = match field.default {
            Default::Required => "required".to_owned(),
            Default::Unset => "unset".to_owned(),
            Default::Value(value) => format!("`{value}`"),
        };
        let cells = [default, escaped(&field.kind.accepted()), escaped(field.doc)];
        text += &format!("| `{}` | {} |\n", field.name, cells.join(" | "));
    }
    text += &format!("\n```toml\n{}\n", table.sample);
    for field in table.fields {
        text += &format!("{} = {}\n", field.name, field.example);
    }
    text += "```\n";
    for note in table.notes {
        text += "\n";
        text += &prose(&[note]);
    }
    text
}

fn prose<T: AsRef<str>>(paragraphs: &[T]) -> String {
    let escaped: Vec<_> =
        paragraphs.iter().map(|text| wrapped(&escaped(text.as_ref()), "")).collect();
    escaped.join("\n")
}

/// So that Markdown takes nothing of it for its own, but for code.
fn escaped(text: &str) -> String {
    let outside = |part: &str| part.replace('*', r"\*").replace('<', "&lt;").replace('|', r"\|");
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 0 { outside(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == '_' || *c == '-';
    heading.to_ascii_lowercase().chars().filter(kept).collect()
}
