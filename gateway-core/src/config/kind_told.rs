//! What the value of a key may be, told to people and as a JSON schema.

use serde_json::{Value, json};

use super::{
    kind::{ICE_SCHEMES, Kind, RELAYABLE},
    units::{format_duration, format_size},
};

/// What [`is_name`](super::is_name) accepts.
pub(super) const NAME_PATTERN: &str = "^[a-z0-9_-]{1,64}$";

const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl Kind {
    /// What is accepted, with bounds.
    pub(super) fn accepted(&self) -> String {
        match self {
            Self::Count { min, max } => format!("a whole number, {min} to {max}"),
            Self::Duration { min } if min.is_zero() => "a duration".to_owned(),
            Self::Duration { min } => {
                format!("a duration of at least {:?}", format_duration(*min))
            }
            Self::Size { min, max } => {
                format!("a size, {:?} to {:?}", format_size(*min), format_size(*max))
            }
            _ => self.form(),
        }
    }

    /// A schema that accepts what [`Kind::check`] accepts, and little else.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Flag => json!({ "type": "boolean" }),
            Self::Count { min, max } => {
                json!({ "type": "integer", "minimum": min, "maximum": max })
            }
            Self::Duration { min } => quantity(!min.is_zero(), "ms|s|m|h"),
            Self::Size { min, .. } => quantity(*min > 0, "B|KiB|MiB|GiB"),
            Self::Choice(words) => json!({ "enum": words }),
            Self::Address => text(r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+(%\d+)?\]):\d{1,5}$"),
            Self::Path => json!({ "type": "string", "minLength": 1 }),
            Self::Text => json!({ "type": "string" }),
            Self::LogLevel => json!({
                "anyOf": [
                    { "enum": LOG_LEVELS },
                    text(&log_filter()),
                ]
            }),
            Self::PublicUrls => list(&text(r"^\s*[Ww][Ss][Ss]?:[^?#@]+$")),
            Self::Origins => list(&text(r"^[A-Za-z][A-Za-z0-9+.-]*://(\*\.)?[^/?#@*]+/?$")),
            Self::Networks => list(&text(r"^[0-9A-Fa-f:.]+(/\d{1,3})?$")),
            Self::HttpUrl => text(r"^\s*[Hh][Tt][Tt][Pp][Ss]?:[^#]+$"),
            Self::RedisUrl => text(r"^\s*[Rr][Ee][Dd][Ii][Ss][Ss]?://[^?#@]+$"),
            Self::KeyPrefix => text("^[A-Za-z0-9._:-]{1,64}$"),
            Self::Relay => list(&json!({ "enum": RELAYABLE.map(|kind| kind.as_str()) })),
            Self::HostsAndPorts => list(&text("^[^/?#@]+:[0-9]+$")),
            Self::Labels => list(&text("^[^:]+$")),
            Self::Secret => secret(),
            Self::IceServers => list(&ice_server()),
            Self::Name => text(NAME_PATTERN),
            Self::HookUse => text("^(script|plugin):[a-z0-9_-]{1,64}$"),
            Self::Sha256 => text("^[0-9A-Fa-f]{64}$"),
            Self::Table => json!({ "type": "object" }),
        }
    }
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// Levels in any case, also for single modules; none with a span.
fn log_filter() -> String {
    let letter = |c: char| format!("[{}{c}]", c.to_ascii_uppercase());
    let words = LOG_LEVELS.map(|word| word.chars().map(letter).collect::<String>());
    let level = format!("({}|[0-5])", words.join("|"));
    let directive = format!(r"\s*({level}|[^,=\[]*={level}?)\s*");
    format!("^{directive}(,{directive})*$")
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn quantity(positive: bool, units: &str) -> Value {
    let number = if positive { "0*[1-9][0-9]*" } else { "[0-9]+" };
    text(&format!(r"^{number}\s*({units})$"))
}

fn secret() -> Value {
    let from = |place: &str| {
        json!({
            "type": "object",
            "properties": { place: { "type": "string" } },
            "required": [place],
            "additionalProperties": false,
        })
    };
    json!({ "anyOf": [{ "type": "string", "minLength": 1 }, from("file"), from("env")] })
}

fn ice_server() -> Value {
    let schemes = ICE_SCHEMES.map(|scheme| scheme.trim_end_matches(':')).join("|");
    json!({
        "type": "object",
        "properties": {
            "urls": {
                "type": "array",
                "items": text(&format!("^({schemes}):.")),
                "minItems": 1,
            },
            "username": { "type": "string" },
            "credential": secret(),
            "secret": secret(),
        },
        "required": ["urls"],
        "dependentSchemas": {
            "secret": { "properties": { "username": false, "credential": false } },
        },
        "additionalProperties": false,
    })
}
