//! What a token claims, as texts.

use serde_json::{Map, Value};

/// A claim by its name, or by a JSON pointer where the name begins with a slash.
pub(crate) fn find<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    let found = if name.starts_with('/') {
        claims.pointer(name)
    } else {
        claims.as_object().and_then(|claims: &Map<_, _>| claims.get(name))
    };
    found.filter(|value| !value.is_null())
}

/// A claim as a label: texts, numbers, booleans, and lists of these.
pub(crate) fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Array(items) => {
            let plain = |item: &Value| if item.is_array() { None } else { text(item) };
            let items: Option<Vec<_>> = items.iter().map(plain).collect();
            items.map(|items| items.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// A NumericDate (RFC 7519, section 2: seconds, perhaps with a fraction) in milliseconds.
pub(crate) fn millis(claim: &Value) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "saturates, as dates that far should")]
    claim.as_f64().map(|seconds| (seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_and_by_pointer() {
        let claims = json!({"a": "x", "b": {"c": [1]}, "https://x/y": 2, "n": null});
        assert_eq!(find(&claims, "a"), Some(&json!("x")));
        assert_eq!(find(&claims, "/b/c/0"), Some(&json!(1)));
        assert_eq!(find(&claims, "https://x/y"), Some(&json!(2)));
        assert_eq!(find(&claims, "n"), None);
        assert_eq!(find(&claims, "b/c"), None);
    }

    #[test]
    fn only_what_has_a_plain_text_becomes_one() {
        for (claim, expected) in [
            (json!("x"), Some("x")),
            (json!(7), Some("7")),
            (json!(true), Some("true")),
            (json!(["a", "b", 1]), Some("a,b,1")),
            (json!([]), Some("")),
            (json!({"a": 1}), None),
            (json!(["a", {"b": 1}]), None),
            (json!(null), None),
        ] {
            assert_eq!(text(&claim).as_deref(), expected, "{claim}");
        }
    }

    #[test]
    fn dates_beyond_all_measure_saturate() {
        assert_eq!(millis(&json!(1.5)), Some(1500));
        assert_eq!(millis(&json!(1e300)), Some(i64::MAX));
        assert_eq!(millis(&json!(-1e300)), Some(i64::MIN));
        assert_eq!(millis(&json!("1")), None);
    }
}
