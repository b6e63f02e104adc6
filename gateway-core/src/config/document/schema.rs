//! The JSON schema of a configuration file, for editors that complete and check it.
//!
//! It refuses nothing that the walk over the files accepts. What it cannot say is left to `conexus
//! check`: how long a duration and how large a size may be, and what ties several keys together. Nothing
//! of the operator's own tables is required, since a later layer may give single keys.

use std::collections::BTreeMap;

use conexus_plugin_api::{Point, PointKind};
use serde_json::{Map, Value, json};

use super::{
    super::{
        handed::to_json,
        kind_told::NAME_PATTERN,
        own_tables::{Default, Field, OWN_TABLES, OwnTable},
        settings::{KEYS, SECTIONS, Settings},
    },
    paragraphs,
};

/// The schema as JSON Schema's draft 2020-12 has it.
pub fn schema() -> String {
    let defaults = Settings::default();
    let sections = SECTIONS.iter().map(|(section, about)| {
        let keys = KEYS.iter().filter(|key| key.section() == *section);
        let keys = keys.map(|key| {
            let default = Some(defaults.value(key)).filter(|value| !value.is_null());
            let about = paragraphs(key.doc).join("\n\n");
            (key.name().to_owned(), described(key.kind.schema(), &about, default))
        });
        let about = paragraphs(about).join("\n\n");
        (*section, described(object(keys.collect()), &about, None))
    });
    let sections = nested(sections);
    let own = OWN_TABLES.iter().map(|table| (table.name.to_owned(), own_table(table)));
    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), "The Conexus gateway's configuration".into());
    let Value::Object(root) = object(sections.into_iter().chain(own).collect()) else {
        return String::new();
    };
    schema.extend(root);
    format!("{:#}\n", sorted(Value::Object(schema)))
}

/// Sections by their names, those within another among its properties.
fn nested(sections: impl Iterator<Item = (&'static str, Value)>) -> Map<String, Value> {
    let mut nested = Map::new();
    for (path, section) in sections {
        match path.split_once('.') {
            // Whatever contains it comes first.
            Some((outer, name)) => nested[outer]["properties"][name] = section,
            None => {
                nested.insert(path.to_owned(), section);
            }
        }
    }
    nested
}

/// In the order of their names, whichever order `serde_json` was built to keep.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.into_iter().collect();
            members.into_iter().map(|(name, value)| (name, sorted(value))).collect()
        }
        Value::Array(elements) => elements.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn own_table(table: &OwnTable) -> Value {
    let fields: Map<_, _> =
        table.fields.iter().map(|field| (field.name.to_owned(), own_field(field))).collect();
    let about = table.about.join("\n\n");
    let named = match table.name {
        "chain" => {
            let mut entry = object(fields);
            // A chain is set whole.
            entry["required"] = required(table);
            let chain = json!({ "type": "array", "items": entry });
            let points = Point::ALL.iter().filter(|point| point.kind() != PointKind::Lifecycle);
            object(points.map(|point| (point.name().to_owned(), chain.clone())).collect())
        }
        _ => json!({
            "type": "object",
            "patternProperties": { NAME_PATTERN: object(fields) },
            "additionalProperties": false,
        }),
    };
    described(named, &about, None)
}

fn own_field(field: &Field) -> Value {
    let default = match field.default {
        Default::Value(text) => default_of(text),
        Default::Required | Default::Unset => None,
    };
    described(field.kind.schema(), field.doc, default)
}

/// A value that was written in TOML.
fn default_of(text: &str) -> Option<Value> {
    text.parse::<toml_edit::Value>().ok().map(|value| to_json(&value))
}

fn required(table: &OwnTable) -> Value {
    let required = table.fields.iter().filter(|field| field.default == Default::Required);
    required.map(|field| field.name).collect()
}

/// An object with these properties, and no others.
fn object(properties: Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn described(schema: Value, about: &str, default: Option<Value>) -> Value {
    let mut described = Map::new();
    described.insert("description".into(), about.into());
    if let Value::Object(members) = schema {
        described.extend(members);
    }
    described.extend(default.map(|default| ("default".to_owned(), default)));
    Value::Object(described)
}
