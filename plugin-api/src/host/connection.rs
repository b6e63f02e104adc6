//! Values that hooks keep for the length of one connection.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::{StateError, Value};

/// The most values of one connection, over all hooks.
pub const MAX_CONNECTION_VALUES: usize = 64;

/// The most bytes of keys and values of one connection, over all hooks.
pub const MAX_CONNECTION_BYTES: usize = 16 * 1024;

/// One connection's own state: made at the upgrade, gone with the socket. Each hook has its own
/// namespace in it.
#[derive(Debug, Default)]
pub struct Connection {
    values: Mutex<Values>,
}

#[derive(Debug, Default)]
struct Values {
    entries: BTreeMap<(Box<str>, Box<str>), Value>,
    bytes: usize,
}

impl Connection {
    /// The value of a key in a hook's namespace.
    #[must_use]
    pub fn get(&self, namespace: &str, key: &str) -> Option<Value> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.entries.get(&(namespace.into(), key.into())).cloned()
    }

    /// Sets a value; `None` removes it.
    ///
    /// # Errors
    /// [`StateError::Full`] at the bounds of a connection; what was there stays.
    pub fn set(&self, namespace: &str, key: &str, value: Option<Value>) -> Result<(), StateError> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (Box::from(namespace), Box::from(key));
        let size = |value: &Value| namespace.len() + key.len() + value.size();
        let old = values.entries.get(&name).map(&size);
        let bytes = values.bytes - old.unwrap_or(0) + value.as_ref().map_or(0, size);
        if value.is_some()
            && (bytes > MAX_CONNECTION_BYTES
                || (old.is_none() && values.entries.len() >= MAX_CONNECTION_VALUES))
        {
            return Err(StateError::Full);
        }
        values.bytes = bytes;
        match value {
            Some(value) => values.entries.insert(name, value),
            None => values.entries.remove(&name),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_do_not_see_each_others_values() {
        let connection = Connection::default();
        connection.set("a", "x", Some(Value::Int(1))).unwrap();
        assert_eq!(connection.get("a", "x"), Some(Value::Int(1)));
        assert_eq!(connection.get("b", "x"), None);
        connection.set("a", "x", None).unwrap();
        assert_eq!(connection.get("a", "x"), None);
    }

    #[test]
    fn a_connection_holds_only_so_much_and_keeps_what_it_has() {
        let connection = Connection::default();
        for n in 0..MAX_CONNECTION_VALUES {
            connection.set("a", &n.to_string(), Some(Value::Int(0))).unwrap();
        }
        assert_eq!(connection.set("a", "more", Some(Value::Int(0))), Err(StateError::Full));
        let long = Value::Text("x".repeat(MAX_CONNECTION_BYTES).into());
        assert_eq!(connection.set("a", "0", Some(long)), Err(StateError::Full));
        assert_eq!(connection.get("a", "0"), Some(Value::Int(0)));
    }
}
