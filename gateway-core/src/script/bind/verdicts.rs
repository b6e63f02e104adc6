//! Verdicts: the functions that make them, and what a hook's return value means.

use std::collections::BTreeMap;

use conexus_plugin_api::{Answer, DenyCode, Metadata, Point, Set, Verdict};
use conexus_protocol::AgentKey;
use rhai::{Array, Dynamic, EvalAltResult, Map, Position};

use super::{Bindings, Fallible, agents::text_or_unit, time::duration};
use crate::script::fault::BadVerdict;

/// The longest reason of a denial.
const MAX_REASON_BYTES: usize = 1024;
/// What labels or metadata in one verdict may come to.
const MAX_SET_BYTES: usize = 16 << 10;

/// A verdict in a script's hands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VerdictValue(pub(crate) Verdict);

/// What a hook's return value means at its point. Observers decide nothing, so only a verdict is
/// a mistake there.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn answer(point: Point, returned: Dynamic) -> Result<Answer, String> {
    if returned.is_unit() {
        return Ok(Answer::CONTINUE);
    }
    let verdicts = match returned.try_cast_result::<Array>() {
        Ok(several) => several,
        Err(single) => vec![single],
    };
    let mut answer = Answer::CONTINUE;
    for returned in verdicts {
        let kind = returned.type_name();
        if !point.is_verdict() && returned.read_lock::<VerdictValue>().is_none() {
            continue;
        }
        let verdict = returned
            .try_cast::<VerdictValue>()
            .ok_or_else(|| format!("{point} returned {}, which is no verdict", named(kind)))?;
        if !verdict.0.is_allowed_at(point) {
            return Err(format!("{}() means nothing at {point}", verdict.0.name()));
        }
        answer = answer.and(verdict.0);
    }
    Ok(answer)
}

fn named(kind: &str) -> &str {
    match kind {
        "bool" => "true or false",
        "i64" | "f64" => "a number",
        "string" => "a text",
        "map" => "a map",
        // A Rust type of ours: its last part says enough.
        other => other.rsplit("::").next().unwrap_or(other),
    }
}

fn bad(text: impl Into<String>) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(Dynamic::from(BadVerdict(text.into())), Position::NONE).into()
}

fn deny(code: &str, reason: &str) -> Fallible<VerdictValue> {
    let code = DenyCode::from_name(code).ok_or_else(|| {
        let codes: Vec<_> = DenyCode::ALL.iter().map(|code| code.as_str()).collect();
        bad(format!("deny() does not know the code {code:?}: {}", codes.join(", ")))
    })?;
    if reason.len() > MAX_REASON_BYTES {
        return Err(bad(format!("the reason of deny() has at most {MAX_REASON_BYTES} bytes")));
    }
    Ok(VerdictValue(Verdict::Deny { code, reason: reason.to_owned() }))
}

fn did(function: &str, did: &str) -> Fallible<String> {
    match AgentKey::parse_did(did) {
        Ok(_) => Ok(did.to_owned()),
        Err(error) => {
            let end = (0..=100).rev().find(|end| did.is_char_boundary(*end)).unwrap_or(0);
            Err(bad(format!("{function}(): {:?} is no DID: {error}", &did[..end.min(did.len())])))
        }
    }
}

fn set(wanted: &Map) -> Fallible<VerdictValue> {
    let mut set = Set::default();
    for (name, value) in wanted {
        match name.as_str() {
            "labels" => set.labels = texts("labels", value)?,
            "rate_class" if value.is_unit() => {}
            "rate_class" => set.rate_class = Some(text("rate_class", value)?),
            "metadata" => set.metadata = Some(metadata(value)?),
            _ => {
                return Err(bad(format!(
                    "set() does not know {name:?}: labels, rate_class, metadata"
                )));
            }
        }
    }
    let size: usize = set.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    let shown = set.metadata.as_ref().and_then(|metadata| serde_json::to_string(metadata).ok());
    if size + shown.map_or(0, |json| json.len()) > MAX_SET_BYTES {
        return Err(bad(format!("set() takes at most {} KiB", MAX_SET_BYTES >> 10)));
    }
    Ok(VerdictValue(Verdict::Set(set)))
}

fn text(what: &str, value: &Dynamic) -> Fallible<String> {
    let text = value.clone().into_string();
    text.map_err(|kind| bad(format!("set(): {what} is a text, not {}", named(kind))))
}

fn texts(what: &str, value: &Dynamic) -> Fallible<BTreeMap<String, String>> {
    let Some(map) = value.read_lock::<Map>() else {
        return Err(bad(format!("set(): {what} is a map of texts: #{{ region: \"eu\" }}")));
    };
    map.iter().map(|(name, value)| Ok((name.to_string(), text(name, value)?))).collect()
}

fn metadata(value: &Dynamic) -> Fallible<Metadata> {
    rhai::serde::from_dynamic(value).map_err(|error| {
        let mut error = error;
        error.clear_position();
        bad(format!("set(): metadata has name, capabilities, attributes: {error}"))
    })
}

fn span(function: &str, value: &Dynamic) -> Fallible<std::time::Duration> {
    duration(value).map_err(|error| bad(format!("{function}(): {error}")))
}

pub(super) fn bind(bindings: &mut Bindings) {
    bindings.named::<VerdictValue>("verdict");
    bindings.function("allow", || VerdictValue(Verdict::Allow));
    bindings.function("deny", || deny("denied", ""));
    bindings.function("deny", |code: &str| deny(code, ""));
    bindings.function("deny", deny);
    bindings.function("redirect", |to: &str| -> Fallible<VerdictValue> {
        Ok(VerdictValue(Verdict::Redirect(did("redirect", to)?)))
    });
    bindings.function("copy", |to: &str| -> Fallible<VerdictValue> {
        Ok(VerdictValue(Verdict::Copy(did("copy", to)?)))
    });
    bindings.function("hold", |time: Dynamic| -> Fallible<VerdictValue> {
        Ok(VerdictValue(Verdict::Hold(span("hold", &time)?)))
    });
    bindings.function("extend", |time: Dynamic| -> Fallible<VerdictValue> {
        Ok(VerdictValue(Verdict::Extend(span("extend", &time)?)))
    });
    bindings.function("set", |wanted: Map| set(&wanted));
    inspectors(bindings);
}

/// For policy tests: what a verdict says. What it has nothing of is `()`.
fn inspectors(bindings: &mut Bindings) {
    bindings.field("verdict", |verdict: &mut VerdictValue| verdict.0.name());
    bindings.field("code", |verdict: &mut VerdictValue| match &verdict.0 {
        Verdict::Deny { code, .. } => code.as_str().into(),
        _ => Dynamic::UNIT,
    });
    bindings.field("reason", |verdict: &mut VerdictValue| match &verdict.0 {
        Verdict::Deny { reason, .. } => reason.as_str().into(),
        _ => Dynamic::UNIT,
    });
    bindings.field("did", |verdict: &mut VerdictValue| match &verdict.0 {
        Verdict::Redirect(did) | Verdict::Copy(did) => did.as_str().into(),
        _ => Dynamic::UNIT,
    });
    bindings.field("seconds", |verdict: &mut VerdictValue| match &verdict.0 {
        Verdict::Hold(time) | Verdict::Extend(time) => time.as_secs_f64().into(),
        _ => Dynamic::UNIT,
    });
    bindings.field("labels", |verdict: &mut VerdictValue| match &verdict.0 {
        Verdict::Set(set) => {
            let labels = set.labels.iter();
            Dynamic::from(
                labels.map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect::<Map>(),
            )
        }
        _ => Dynamic::UNIT,
    });
    bindings.field("rate_class", |verdict: &mut VerdictValue| match &verdict.0 {
        Verdict::Set(set) => text_or_unit(set.rate_class.as_deref()),
        _ => Dynamic::UNIT,
    });
    bindings.field("metadata", |verdict: &mut VerdictValue| -> Fallible<Dynamic> {
        match &verdict.0 {
            Verdict::Set(Set { metadata: Some(metadata), .. }) => rhai::serde::to_dynamic(metadata),
            _ => Ok(Dynamic::UNIT),
        }
    });
    bindings.function("==", |one: &mut VerdictValue, other: VerdictValue| *one == other);
    bindings.function("!=", |one: &mut VerdictValue, other: VerdictValue| *one != other);
    bindings.function("to_string", |verdict: &mut VerdictValue| written(&verdict.0));
    bindings.function("to_debug", |verdict: &mut VerdictValue| written(&verdict.0));
}

/// As a script would write it.
fn written(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Deny { code, reason } if reason.is_empty() => format!("deny({:?})", code.as_str()),
        Verdict::Deny { code, reason } => format!("deny({:?}, {reason:?})", code.as_str()),
        Verdict::Redirect(did) | Verdict::Copy(did) => format!("{}({did:?})", verdict.name()),
        Verdict::Hold(time) | Verdict::Extend(time) => {
            format!("{}({})", verdict.name(), time.as_secs_f64())
        }
        Verdict::Set(set) => format!("set({})", serde_json::to_string(set).unwrap_or_default()),
        other => format!("{}()", other.name()),
    }
}
