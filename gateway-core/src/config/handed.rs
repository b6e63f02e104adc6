//! What a hook's `config` becomes: JSON, with secrets fetched and paths made absolute.
//!
//! Beside it stands the same with `<secret>` in the place of each secret, so that whoever shows a
//! configuration need not know which values those are.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value as Json};
use toml_edit::{InlineTable, Value};

use super::{
    fault::Fault,
    load::Sources,
    named::Written,
    secret::{InEnv, InFile, SecretSource},
};

/// A config, ready to be handed over.
#[derive(Default)]
pub(super) struct Handed {
    pub(super) real: Map<String, Json>,
    pub(super) shown: Map<String, Json>,
    /// The files that it names.
    pub(super) files: Vec<PathBuf>,
}

/// Makes the config of `key` ready. What cannot be had is a fault at its own place.
pub(super) fn hand_over(
    key: &str,
    written: &Written,
    sources: &Sources,
    faults: &mut Vec<Fault>,
) -> Handed {
    let folder = sources.folder_of(&written.origin);
    let mut hand = Hand { written, sources, folder, faults, files: BTreeSet::new() };
    // The whole is the hook's: `config = { env = "production" }` is no secret.
    let (real, shown) = match &written.value {
        Value::InlineTable(table) => hand.table(key, table),
        _ => (Map::new(), Map::new()),
    };
    Handed { real, shown, files: hand.files.into_iter().collect() }
}

struct Hand<'a> {
    written: &'a Written,
    sources: &'a Sources,
    folder: PathBuf,
    faults: &'a mut Vec<Fault>,
    files: BTreeSet<PathBuf>,
}

impl Hand<'_> {
    fn table(&mut self, path: &str, table: &InlineTable) -> (Map<String, Json>, Map<String, Json>) {
        let (mut real, mut shown) = (Map::new(), Map::new());
        for (name, value) in table {
            let (its, as_shown) = self.member(&format!("{path}.{name}"), name, value);
            real.insert(name.to_owned(), its);
            shown.insert(name.to_owned(), as_shown);
        }
        (real, shown)
    }

    fn member(&mut self, path: &str, name: &str, value: &Value) -> (Json, Json) {
        match value.as_str() {
            Some(text) if name == "file" || name.ends_with("_file") => {
                let json = self.path(path, text, value);
                (json.clone(), json)
            }
            _ => self.value(path, value),
        }
    }

    fn value(&mut self, path: &str, value: &Value) -> (Json, Json) {
        match value {
            Value::InlineTable(table) => match secret_in(table) {
                Some((source, place)) => (self.secret(path, source, place), "<secret>".into()),
                None => {
                    let (real, shown) = self.table(path, table);
                    (real.into(), shown.into())
                }
            },
            Value::Array(list) => {
                let elements = list.iter().enumerate();
                let (real, shown): (Vec<_>, Vec<_>) = elements
                    .map(|(index, value)| self.value(&format!("{path}[{index}]"), value))
                    .unzip();
                (real.into(), shown.into())
            }
            _ => (to_json(value), to_json(value)),
        }
    }

    fn path(&mut self, path: &str, text: &str, place: &Value) -> Json {
        if text.is_empty() {
            self.fault(path, "is empty; expected a path", place);
            return Json::Null;
        }
        let absolute = self.folder.join(text);
        let Some(text) = absolute.to_str() else {
            self.fault(path, "is in a folder whose name is not UTF-8", place);
            return Json::Null;
        };
        let json = text.into();
        self.files.insert(absolute);
        json
    }

    fn secret(&mut self, path: &str, source: SecretSource, place: &Value) -> Json {
        if let SecretSource::File(InFile { file }) = &source {
            self.files.insert(self.folder.join(file));
        }
        match source.read(Path::new(&self.folder), |name| self.sources.variable(name)) {
            Ok(secret) => secret.expose().into(),
            Err(error) => {
                self.fault(path, error.to_string(), place);
                Json::Null
            }
        }
    }

    fn fault(&mut self, path: &str, problem: impl Into<String>, place: &Value) {
        // In the environment and on the command line there are no places within a value.
        let origin = self.written.layer.at(place.span());
        self.faults.push(Fault::of(path, problem, origin));
    }
}

/// A table that is a secret: with exactly one key, `env` or `secret_file`.
fn secret_in(table: &InlineTable) -> Option<(SecretSource, &Value)> {
    let (name, value) = table.iter().next().filter(|_| table.len() == 1)?;
    let source = match (name, value.as_str()?) {
        ("env", name) => SecretSource::Env(InEnv { env: name.to_owned() }),
        ("secret_file", path) => SecretSource::File(InFile { file: PathBuf::from(path) }),
        _ => return None,
    };
    Some((source, value))
}

/// TOML as JSON; dates and times become texts.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Float(number) => (*number.value()).into(),
        Value::Boolean(flag) => (*flag.value()).into(),
        Value::Datetime(time) => time.value().to_string().into(),
        Value::Array(list) => list.iter().map(to_json).collect(),
        Value::InlineTable(table) => {
            table.iter().map(|(name, value)| (name.to_owned(), to_json(value))).collect()
        }
    }
}
