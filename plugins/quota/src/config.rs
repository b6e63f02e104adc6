//! The configuration, and the limits that it makes.

use std::collections::{BTreeMap, BTreeSet};

use bytesize::ByteSize;
use serde::Deserialize;

use crate::limit::{Limit, Unit, Window};

/// See the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub(crate) default: Limits,
    #[serde(default)]
    pub(crate) classes: BTreeMap<String, Limits>,
    pub(crate) class_label: Option<String>,
    pub(crate) types: Option<BTreeSet<String>>,
    pub(crate) warn_at: Option<f64>,
}

/// The limits of one class.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    messages_per_minute: Option<u64>,
    messages_per_hour: Option<u64>,
    messages_per_day: Option<u64>,
    bytes_per_minute: Option<ByteSize>,
    bytes_per_hour: Option<ByteSize>,
    bytes_per_day: Option<ByteSize>,
}

impl Config {
    /// What is wrong beyond what types can say.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(share) = self.warn_at
            && !(share > 0.0 && share < 1.0)
        {
            return Err(format!("`warn_at` is {share}, not above 0 and below 1"));
        }
        if self.types.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err("`types` is empty: nothing would count".into());
        }
        if self.class_label.as_ref().is_some_and(String::is_empty) {
            return Err("`class_label` is empty".into());
        }
        Ok(())
    }
}

impl Limits {
    /// Those that are set, the shortest window first.
    pub(crate) fn list(&self, warn_at: Option<f64>) -> Vec<Limit> {
        let bytes = |size: Option<ByteSize>| size.map(|size| size.as_u64());
        let limits = [
            (Unit::Messages, Window::Minute, self.messages_per_minute),
            (Unit::Bytes, Window::Minute, bytes(self.bytes_per_minute)),
            (Unit::Messages, Window::Hour, self.messages_per_hour),
            (Unit::Bytes, Window::Hour, bytes(self.bytes_per_hour)),
            (Unit::Messages, Window::Day, self.messages_per_day),
            (Unit::Bytes, Window::Day, bytes(self.bytes_per_day)),
        ];
        let set = limits.into_iter().filter_map(|(unit, window, max)| Some((unit, window, max?)));
        set.map(|(unit, window, max)| Limit::new(unit, window, max, warn_at)).collect()
    }
}
