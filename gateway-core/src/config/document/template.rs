//! `gateway.toml`: every key with its default, commented out, and a hook at work.

use super::{
    super::{
        own_tables::{Field, OWN_TABLES, OwnTable},
        settings::{KEYS, SECTIONS, Settings},
    },
    POLICY, VALUES, paragraphs, wrapped,
};

const HEAD: &str = "\
#:schema ./docs/gateway.schema.json
# The Conexus gateway's configuration: every key with its default.
#
# A line that begins with \"#\" and a letter is a default, commented out: remove the \"#\" to change
# it. docs/configuration.md has the same, with bounds.
";

const COMMANDS: &str = "\
#   conexus check     says all that is wrong, with file and line
#   conexus config    shows what is in effect and where it was set
";

const SAMPLE: &str = r#"
# A hook at work: nobody sends more than 200 messages a second. Edit scripts/rate_limit.rhai or this
# while the gateway runs, and see it reload.
[hook.rates]
use = "script:rate_limit"
config.route = { count = 200, per = "1s" }

[[chain.on_route]]
hook = "rates"
"#;

/// A `gateway.toml` in which every key stands with its documentation and its default.
pub fn template() -> String {
    let mut text = HEAD.to_owned();
    for paragraph in VALUES {
        text += "#\n";
        text += &comment(paragraph);
    }
    text += "#\n";
    text += COMMANDS;
    let defaults = Settings::default();
    for (section, about) in SECTIONS {
        text += "\n\n";
        text += &comments(&paragraphs(about));
        text += &format!("[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            text += "\n";
            let mut doc = paragraphs(key.doc);
            text += &match defaults.toml(key) {
                Some(value) => format!("{}#{} = {value}\n", comments(&doc), key.name()),
                None => {
                    if let Some(last) = doc.last_mut().filter(|last| last.ends_with('.')) {
                        last.replace_range(last.len() - 1.., ":");
                    }
                    let example = key.example.unwrap_or_default();
                    format!("{}# {} = {example}\n", comments(&doc), key.name())
                }
            };
        }
    }
    text += "\n\n";
    text += &comments(&POLICY.iter().map(|paragraph| (*paragraph).to_owned()).collect::<Vec<_>>());
    for table in OWN_TABLES {
        text += "\n";
        text += &own_table(table);
    }
    text + SAMPLE
}

fn own_table(table: &OwnTable) -> String {
    let about: Vec<_> = table.about.iter().map(|about| (*about).to_owned()).collect();
    let mut text = comments(&about) + "#\n# " + table.sample + "\n";
    let longest = |of: fn(&Field) -> &str| {
        table.fields.iter().map(|field| of(field).chars().count()).max().unwrap_or_default()
    };
    let (names, values) = (longest(|field| field.name), longest(|field| field.example));
    for field in table.fields {
        let line = format!("# {:names$} = {:values$}   # {}", field.name, field.example, field.doc);
        text += line.trim_end();
        text += "\n";
    }
    for note in table.notes {
        text += "#\n";
        text += &comment(note);
    }
    text
}

/// Paragraphs, an empty comment between them.
fn comments(paragraphs: &[String]) -> String {
    paragraphs.iter().map(|paragraph| comment(paragraph)).collect::<Vec<_>>().join("#\n")
}

fn comment(paragraph: &str) -> String {
    wrapped(paragraph, "# ")
}
