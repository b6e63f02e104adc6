//! The walk over the tables whose names are the operator's own: `[hook.NAME]`, `[[chain.on_POINT]]`,
//! `[plugins.NAME]`, `[rate_class.NAME]`, `[admin_token.NAME]`.
//!
//! Each value is checked by itself where it is written, and kept with its place; later layers replace
//! single keys, but chains whole. What ties the tables together is judged in `compose`, when all
//! layers are known.

use std::{collections::BTreeMap, rc::Rc};

use conexus_plugin_api::{Point, PointKind};
use toml_edit::{Item, TableLike, Value};

use super::{
    fault::{Fault, Origin},
    kind::{Kind, NAME_FORM, is_name},
    own_tables::{Field, OwnTable},
    walk::{Findings, Layer, Span, nearest, read_value},
};

const CHAIN_FORM: &str = r#"a list of tables such as [{ hook = "NAME" }]"#;

/// A valid value as it was written last.
pub(super) struct Written {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// Where the parts of the value stand.
    pub(super) layer: Rc<Layer>,
}

/// One table, of one layer or of several laid over one another.
pub(super) struct Draft {
    /// Where it was last opened.
    pub(super) origin: Origin,
    pub(super) fields: BTreeMap<&'static str, Written>,
}

impl Draft {
    fn at(origin: Origin) -> Self {
        Self { origin, fields: BTreeMap::new() }
    }
}

/// A chain, of the one layer that set it last.
pub(super) struct ChainDraft {
    pub(super) origin: Origin,
    /// The chain of an earlier layer that counts no more.
    pub(super) replaced: Option<Origin>,
    pub(super) entries: Vec<Draft>,
}

/// All that was written under such names.
#[derive(Default)]
pub(super) struct Drafts {
    pub(super) hooks: BTreeMap<String, Draft>,
    pub(super) plugins: BTreeMap<String, Draft>,
    pub(super) rate_classes: BTreeMap<String, Draft>,
    pub(super) admin_tokens: BTreeMap<String, Draft>,
    pub(super) chains: BTreeMap<Point, ChainDraft>,
}

impl Drafts {
    /// The draft of a name, made if there is none. Bad names are kept: they have had their fault,
    /// and whoever refers to them shall not get another.
    fn open(&mut self, table: &str, name: &str, origin: &Origin) -> &mut Draft {
        let drafts = match table {
            "hook" => &mut self.hooks,
            "plugins" => &mut self.plugins,
            "rate_class" => &mut self.rate_classes,
            _ => &mut self.admin_tokens,
        };
        let draft = drafts.entry(name.to_owned()).or_insert_with(|| Draft::at(origin.clone()));
        draft.origin = origin.clone();
        draft
    }
}

impl Findings {
    pub(super) fn walk_named(
        &mut self,
        table: &'static OwnTable,
        tables: &dyn TableLike,
        layer: &Rc<Layer>,
    ) {
        for (name, item) in tables.iter() {
            let path = format!("{}.{name}", table.name);
            let origin = layer.at(tables.key(name).and_then(toml_edit::Key::span));
            if table.name == "chain" {
                self.walk_chain(table, (&path, name), item, origin, layer);
                continue;
            }
            self.check_name(&path, name, &origin);
            let fields = match item.as_table_like() {
                Some(fields) => self.walk_fields(&path, table.fields, fields, layer),
                None => {
                    self.fault(&path, format!("is a table; expected [{path}]"), origin.clone());
                    BTreeMap::new()
                }
            };
            self.drafts.open(table.name, name, &origin).fields.extend(fields);
        }
    }

    /// Takes `hook.NAME.key` and the like, or a whole `chain.on_POINT`.
    pub(super) fn assign_named(
        &mut self,
        table: &'static OwnTable,
        path: &str,
        raw: &str,
        layer: &Rc<Layer>,
    ) {
        let origin = layer.at(None);
        let parts: Vec<_> = path.splitn(3, '.').collect();
        match parts[1..] {
            [name] if table.name == "chain" => match read_value(&Kind::Table, raw) {
                Ok(list) => {
                    self.walk_chain(table, (path, name), &Item::Value(list), origin, layer);
                }
                Err(problem) => self.fault(path, problem, origin),
            },
            [name, key] if table.name != "chain" => {
                let base = format!("{}.{name}", table.name);
                let Some(field) = table.fields.iter().find(|field| field.name == key) else {
                    return self.unknown_field(&base, key, table.fields, origin);
                };
                self.check_name(&base, name, &origin);
                let written = match read_value(&field.kind, raw) {
                    Ok(value) => self.check_field(path, field, value, |_| layer.at(None), layer),
                    Err(problem) => {
                        self.fault(path, problem, origin.clone());
                        None
                    }
                };
                let draft = self.drafts.open(table.name, name, &origin);
                draft.fields.extend(written.map(|written| (field.name, written)));
            }
            _ if table.name == "chain" => {
                self.fault(
                    path,
                    format!("a chain is set whole: chain.on_POINT = {CHAIN_FORM}"),
                    origin,
                );
            }
            _ => self.fault(path, format!("expected {}.NAME.key", table.name), origin),
        }
    }

    fn walk_chain(
        &mut self,
        table: &'static OwnTable,
        (path, name): (&str, &str),
        item: &Item,
        origin: Origin,
        layer: &Rc<Layer>,
    ) {
        let Some(point) = self.chain_point(path, name, &origin) else { return };
        let tables: Vec<(&dyn TableLike, Option<Span>)> = match item {
            Item::ArrayOfTables(list) => {
                list.iter().map(|table| (table as &dyn TableLike, table.span())).collect()
            }
            Item::Value(Value::Array(list)) if list.iter().all(Value::is_inline_table) => list
                .iter()
                .filter_map(|value| {
                    value.as_inline_table().map(|table| (table as &dyn TableLike, value.span()))
                })
                .collect(),
            _ => {
                let problem = format!("expected [[{path}]] or {CHAIN_FORM}");
                return self.fault(path, problem, layer.at(item.span()));
            }
        };
        let entries = tables.into_iter().enumerate().map(|(index, (entry, span))| {
            let path = format!("{path}[{index}]");
            let fields = self.walk_fields(&path, table.fields, entry, layer);
            Draft { origin: layer.at(span), fields }
        });
        let entries = entries.collect();
        let replaced = self.drafts.chains.remove(&point).map(|chain| chain.origin);
        self.drafts.chains.insert(point, ChainDraft { origin, replaced, entries });
    }

    fn chain_point(&mut self, path: &str, name: &str, origin: &Origin) -> Option<Point> {
        match Point::from_name(name) {
            Some(point) if point.kind() == PointKind::Lifecycle => {
                let problem = "is called at every hook that has it, and has no chain";
                self.fault(path, problem, origin.clone());
                None
            }
            Some(point) => Some(point),
            None => {
                let chained = Point::ALL
                    .iter()
                    .filter(|point| point.kind() != PointKind::Lifecycle)
                    .map(|point| point.name());
                let near = nearest(name, name.len(), chained).map(|near| format!("chain.{near}"));
                self.faults.push(Fault::of(path, "no such point", origin.clone()).near(near));
                None
            }
        }
    }

    fn check_name(&mut self, path: &str, name: &str, origin: &Origin) {
        if !is_name(name) {
            self.fault(path, format!("{name:?} is no name; expected {NAME_FORM}"), origin.clone());
        }
    }

    fn walk_fields(
        &mut self,
        path: &str,
        fields: &'static [Field],
        table: &dyn TableLike,
        layer: &Rc<Layer>,
    ) -> BTreeMap<&'static str, Written> {
        let mut found = BTreeMap::new();
        for (name, item) in table.iter() {
            let key_span = table.key(name).and_then(toml_edit::Key::span);
            let Some(field) = fields.iter().find(|field| field.name == name) else {
                self.unknown_field(path, name, fields, layer.at(key_span));
                continue;
            };
            let item_span = item.span();
            let place = |span: Option<Span>| {
                layer.at(span.or_else(|| item_span.clone()).or_else(|| key_span.clone()))
            };
            // A table is the same value in a longer spelling.
            if let Ok(value) = Item::into_value(item.clone()) {
                let path = format!("{path}.{name}");
                let written = self.check_field(&path, field, value, place, layer);
                found.extend(written.map(|written| (field.name, written)));
            }
        }
        found
    }

    fn check_field(
        &mut self,
        path: &str,
        field: &Field,
        value: Value,
        place: impl Fn(Option<Span>) -> Origin,
        layer: &Rc<Layer>,
    ) -> Option<Written> {
        let wrong = field.kind.check(&value);
        let valid = wrong.is_empty();
        for wrong in wrong {
            self.fault(path, wrong.problem, place(wrong.span));
        }
        let origin = place(value.span());
        valid.then(|| Written { value, origin, layer: Rc::clone(layer) })
    }

    fn unknown_field(&mut self, path: &str, name: &str, fields: &[Field], origin: Origin) {
        let near = nearest(name, name.len(), fields.iter().map(|field| field.name));
        let near = near.map(|near| format!("{path}.{near}"));
        self.faults.push(Fault::of(format!("{path}.{name}"), "unknown key", origin).near(near));
    }
}
