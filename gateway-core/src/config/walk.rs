//! The walk over what was written: every key is looked up, every value checked, and each fault
//! is put down with its place.

use std::{ops::Range, path::PathBuf, rc::Rc};

use toml_edit::{ImDocument, Item, TableLike, Value};

use super::{
    fault::{Fault, Origin, Position},
    kind::Kind,
    named::Drafts,
    own_tables::{OWN_TABLES, OwnTable},
    settings::{KEYS, SECTIONS},
    table::Key,
};

pub(super) type Span = Range<usize>;

/// Where something was written.
pub(super) enum Layer {
    /// In a file: how its path is told, and its text.
    File { shown: PathBuf, text: String },
    /// In an environment variable.
    Env(String),
    /// On the command line.
    Set,
}

impl Layer {
    /// Where a part of it stands; the spans of values that were read on their own mean nothing.
    pub(super) fn at(&self, span: Option<Span>) -> Origin {
        match self {
            Self::File { shown, text } => Origin::File {
                path: shown.clone(),
                position: span.map(|span| Position::of(text, &span)),
            },
            Self::Env(name) => Origin::Env(name.clone()),
            Self::Set => Origin::Set,
        }
    }
}

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
    pub(super) drafts: Drafts,
    pub(super) faults: Vec<Fault>,
}

impl Findings {
    /// Walks over a file's text; `shown` is how its path is told.
    pub(super) fn walk_file(&mut self, shown: PathBuf, text: String) {
        match ImDocument::parse(text.clone()) {
            Ok(document) => {
                self.walk_root(document.as_table(), &Rc::new(Layer::File { shown, text }));
            }
            // The error's own Display quotes the line, which may hold a secret.
            Err(error) => self.faults.push(Fault {
                origin: Layer::File { shown, text }.at(error.span()),
                key: None,
                problem: error.message().trim().replace('\n', "; "),
                nearest: None,
            }),
        }
    }

    /// Takes one assignment of the environment or the command line.
    pub(super) fn assign(&mut self, path: &str, raw: &str, layer: Layer) {
        if let Some(table) = path.split('.').next().and_then(OwnTable::of) {
            return self.assign_named(table, path, raw, &Rc::new(layer));
        }
        let Some(key) = find(path) else {
            return self.unknown_within(path, false, layer.at(None));
        };
        match read_value(&key.kind, raw) {
            Ok(value) => self.check(key, value, |_| layer.at(None)),
            Err(problem) => self.fault(path, problem, layer.at(None)),
        }
    }

    fn walk_root(&mut self, root: &dyn TableLike, layer: &Rc<Layer>) {
        for (name, item) in root.iter() {
            let origin = layer.at(root.key(name).and_then(toml_edit::Key::span));
            let named = OwnTable::of(name);
            let known = is_section(name);
            match (item.as_table_like(), named) {
                (Some(tables), Some(named)) => self.walk_named(named, tables, layer),
                (Some(section), None) if known => self.walk_section(name, section, layer),
                (Some(_), None) => self
                    .faults
                    .push(Fault::of(name, "unknown section", origin).near(nearest_section(name))),
                (None, Some(_)) => {
                    self.fault(name, format!("is a section; expected [{name}.NAME]"), origin);
                }
                (None, None) if known => {
                    self.fault(name, format!("is a section; expected [{name}]"), origin);
                }
                (None, None) => self.unknown_key(name, origin),
            }
        }
    }

    fn walk_section(&mut self, section: &str, table: &dyn TableLike, layer: &Layer) {
        for (name, item) in table.iter() {
            let path = format!("{section}.{name}");
            let key_span = table.key(name).and_then(toml_edit::Key::span);
            if let Some(section) = item.as_table_like().filter(|_| is_section(&path)) {
                self.walk_section(&path, section, layer);
                continue;
            }
            let Some(key) = find(&path) else {
                self.unknown_within(&path, item.is_table_like(), layer.at(key_span));
                continue;
            };
            let item_span = item.span();
            // A table or an array of tables is the same value in a longer spelling.
            if let Ok(value) = Item::into_value(item.clone()) {
                let place = |span: Option<Span>| {
                    layer.at(span.or_else(|| item_span.clone()).or_else(|| key_span.clone()))
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

    pub(super) fn fault(&mut self, key: &str, problem: impl Into<String>, origin: Origin) {
        self.faults.push(Fault::of(key, problem, origin));
    }

    /// Something in a section that is no key: a section within it, in another shape or misspelt?
    fn unknown_within(&mut self, path: &str, is_table: bool, origin: Origin) {
        if is_section(path) {
            return self.fault(path, format!("is a section; expected [{path}]"), origin);
        }
        match nearest_section(path).filter(|near| is_table && near.contains('.')) {
            Some(near) => {
                self.faults.push(Fault::of(path, "unknown section", origin).near(Some(near)));
            }
            None => self.unknown_key(path, origin),
        }
    }

    fn unknown_key(&mut self, path: &str, origin: Origin) {
        self.faults.push(Fault::of(path, "unknown key", origin).near(nearest_key(path)));
    }
}

fn is_section(path: &str) -> bool {
    SECTIONS.iter().any(|(section, _)| *section == path)
}

fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Reads a value as TOML; what is not TOML, or is a number where a text belongs, is taken as a
/// plain text, so that quotes are seldom needed in a shell.
pub(super) fn read_value(kind: &Kind, raw: &str) -> Result<Value, String> {
    let plain = Value::from(raw);
    let parsed = match raw.trim().parse::<Value>() {
        Ok(value) => value,
        // Taken as a text it would pass, and a slip in `{ file = …` become the secret itself.
        Err(_) if kind.takes_any_text() && raw.trim_start().starts_with(TOML_OPENERS) => {
            return Err("starts like a list, a table or a text of TOML, but is none".to_owned());
        }
        Err(_) => return Ok(plain),
    };
    let compound = matches!(parsed, Value::Array(_) | Value::InlineTable(_) | Value::String(_));
    let misread = !compound && !kind.check(&parsed).is_empty();
    Ok(if misread && kind.check(&plain).is_empty() { plain } else { parsed })
}

const TOML_OPENERS: [char; 4] = ['{', '[', '"', '\''];

/// The known key that was probably meant, or the one of that name in another section.
fn nearest_key(path: &str) -> Option<&'static str> {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    let similar = nearest(path, name.len(), KEYS.iter().map(|key| key.path));
    let elsewhere = || KEYS.iter().find(|key| key.name() == name).map(|key| key.path);
    similar.or_else(elsewhere)
}

/// The section that was probably meant, or the one of that name within another.
fn nearest_section(path: &str) -> Option<&'static str> {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    let sections = SECTIONS.iter().map(|(section, _)| *section);
    let own = OWN_TABLES.iter().map(|table| table.name);
    let similar = nearest(path, name.len(), sections.clone().chain(own));
    let within = |section: &&str| section.rsplit_once('.').is_some_and(|(_, last)| last == name);
    similar.or_else(|| sections.clone().find(within))
}

/// The known name that was probably meant: of `len` letters, one in three may be wrong, but not
/// all of them.
pub(super) fn nearest<'a>(
    name: &str,
    len: usize,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= (len / 3).max(1) && *distance < len)
        .min()
        .map(|(_, known)| known)
}
