//! The walk over what was written: every key is looked up, every value checked, and each fault
//! is put down with its place.

use std::{ops::Range, path::Path};

use toml_edit::{ImDocument, Item, TableLike, Value};

use super::{
    fault::{Fault, Origin, Position},
    settings::{KEYS, SECTIONS},
    table::Key,
};

type Span = Range<usize>;

/// A known key that was set, to a value that is valid by itself.
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) entries: Vec<Entry>,
    pub(super) faults: Vec<Fault>,
}

impl Findings {
    /// Walks over a file's text; `shown` is how its path is told.
    pub(super) fn walk_file(&mut self, shown: &Path, text: &str) {
        let at = |span: Option<Span>| Origin::File {
            path: shown.to_owned(),
            position: span.map(|span| Position::of(text, &span)),
        };
        match ImDocument::parse(text) {
            Ok(document) => self.walk_root(document.as_table(), &at),
            // The error's own Display quotes the line, which may hold a secret.
            Err(error) => self.faults.push(Fault {
                origin: at(error.span()),
                key: None,
                problem: error.message().trim().replace('\n', "; "),
                nearest: None,
            }),
        }
    }

    /// Takes one assignment of the environment or the command line.
    pub(super) fn assign(&mut self, path: &str, raw: &str, origin: Origin) {
        let Some(key) = find(path) else { return self.unknown_key(path, origin) };
        match read_value(key, raw) {
            Ok(value) => self.check(key, value, |_| origin.clone()),
            Err(problem) => self.fault(path, problem, origin),
        }
    }

    fn walk_root(&mut self, root: &dyn TableLike, at: &dyn Fn(Option<Span>) -> Origin) {
        for (name, item) in root.iter() {
            let origin = at(root.key(name).and_then(toml_edit::Key::span));
            let known = SECTIONS.iter().any(|(section, _)| *section == name);
            match item.as_table_like() {
                Some(section) if known => self.walk_section(name, section, at),
                Some(_) => self.faults.push(Fault {
                    origin,
                    key: Some(name.to_owned()),
                    problem: "unknown section".to_owned(),
                    nearest: nearest_section(name),
                }),
                None if known => {
                    self.fault(name, format!("is a section; expected [{name}]"), origin)
                }
                None => self.unknown_key(name, origin),
            }
        }
    }

    fn walk_section(
        &mut self,
        section: &str,
        table: &dyn TableLike,
        at: &dyn Fn(Option<Span>) -> Origin,
    ) {
        for (name, item) in table.iter() {
            let path = format!("{section}.{name}");
            let key_span = table.key(name).and_then(toml_edit::Key::span);
            let Some(key) = find(&path) else {
                self.unknown_key(&path, at(key_span));
                continue;
            };
            let item_span = item.span();
            // A table or an array of tables is the same value in a longer spelling.
            if let Ok(value) = Item::into_value(item.clone()) {
                let place = |span: Option<Span>| {
                    at(span.or_else(|| item_span.clone()).or_else(|| key_span.clone()))
                };
                self.check(key, value, place);
            }
        }
    }

    fn check(&mut self, key: &'static Key, value: Value, at: impl Fn(Option<Span>) -> Origin) {
        let wrong = key.kind.check(&value);
        if wrong.is_empty() {
            let origin = at(value.span());
            self.entries.push(Entry { key, value, origin });
        }
        for wrong in wrong {
            self.fault(key.path, wrong.problem, at(wrong.span));
        }
    }

    fn fault(&mut self, key: &str, problem: String, origin: Origin) {
        self.faults.push(Fault { origin, key: Some(key.to_owned()), problem, nearest: None });
    }

    fn unknown_key(&mut self, path: &str, origin: Origin) {
        self.faults.push(Fault {
            origin,
            key: Some(path.to_owned()),
            problem: "unknown key".to_owned(),
            nearest: nearest_key(path),
        });
    }
}

fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Reads a value as TOML; what is not TOML, or is a number where a text belongs, is taken as a
/// plain text, so that quotes are seldom needed in a shell.
fn read_value(key: &Key, raw: &str) -> Result<Value, String> {
    let plain = Value::from(raw);
    let parsed = match raw.trim().parse::<Value>() {
        Ok(value) => value,
        // Taken as a text it would pass, and a slip in `{ file = …` become the secret itself.
        Err(_) if key.kind.takes_any_text() && raw.trim_start().starts_with(TOML_OPENERS) => {
            return Err("starts like a list, a table or a text of TOML, but is none".to_owned());
        }
        Err(_) => return Ok(plain),
    };
    let compound = matches!(parsed, Value::Array(_) | Value::InlineTable(_) | Value::String(_));
    let misread = !compound && !key.kind.check(&parsed).is_empty();
    Ok(if misread && key.kind.check(&plain).is_empty() { plain } else { parsed })
}

const TOML_OPENERS: [char; 4] = ['{', '[', '"', '\''];

/// The known key that was probably meant: one letter in three may be wrong, or the section.
fn nearest_key(path: &str) -> Option<&'static str> {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    let similar = KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(path, key.path), key.path))
        .filter(|(distance, _)| *distance <= (name.len() / 3).max(1))
        .min();
    let elsewhere = || KEYS.iter().find(|key| key.name() == name).map(|key| key.path);
    similar.map(|(_, path)| path).or_else(elsewhere)
}

fn nearest_section(name: &str) -> Option<&'static str> {
    SECTIONS
        .iter()
        .map(|(section, _)| (strsim::damerau_levenshtein(name, section), *section))
        .filter(|(distance, _)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, section)| section)
}
