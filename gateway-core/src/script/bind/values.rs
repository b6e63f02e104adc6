//! Between Rhai's values, JSON, and the values of the key-value state.

use std::sync::Arc;

use conexus_plugin_api::host::{StateError, Value};
use rhai::{Dynamic, EvalAltResult, Map};
use serde_json::Value as Json;

use super::Fallible;

/// A configuration or payload as a script sees it.
pub(crate) fn from_json(json: &Json) -> Dynamic {
    match json {
        Json::Null => Dynamic::UNIT,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(from_json).collect::<Vec<_>>().into(),
        Json::Object(members) => members
            .iter()
            .map(|(name, value)| (name.as_str().into(), from_json(value)))
            .collect::<Map>()
            .into(),
    }
}

/// A script's value as JSON; what has no place in JSON is refused.
pub(crate) fn to_json(value: &Dynamic) -> Fallible<String> {
    let plain = value.is_unit()
        || value.is_bool()
        || value.is_int()
        || value.is_float()
        || value.is_string()
        || value.is_char()
        || value.is_array()
        || value.is_map();
    if !plain {
        return Err(format!("{} has no place in JSON", value.type_name()).into());
    }
    serde_json::to_string(value).map_err(|error| error.to_string().into())
}

/// What the state keeps for a script's value.
pub(super) fn to_state(value: &Dynamic) -> Fallible<Value> {
    if let Ok(number) = value.as_int() {
        Ok(Value::Int(number))
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        Ok(Value::Text(Arc::from(text.as_str())))
    } else if let Some(blob) = value.read_lock::<rhai::Blob>() {
        Ok(Value::Bytes(Arc::from(blob.as_slice())))
    } else if value.is_unit() {
        Err("() is what kv_get() gives where nothing is kept; to remove a value, use kv_delete()"
            .into())
    } else {
        to_json(value).map(|json| Value::Json(json.into()))
    }
}

/// What a script gets for a value of the state.
pub(super) fn from_state(value: Option<Value>) -> Fallible<Dynamic> {
    match value {
        None => Ok(Dynamic::UNIT),
        Some(Value::Int(number)) => Ok(number.into()),
        Some(Value::Text(text)) => Ok((&*text).into()),
        Some(Value::Bytes(bytes)) => Ok(Dynamic::from_blob(bytes.to_vec())),
        Some(Value::Json(json)) => parse_json(&json),
    }
}

pub(crate) fn parse_json(text: &str) -> Fallible<Dynamic> {
    let json: Json = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    Ok(from_json(&json))
}

pub(super) fn state_error(error: StateError) -> Box<EvalAltResult> {
    error.to_string().into()
}
