//! What the value of one key may be, checked where it is written.

use std::{net::SocketAddr, ops::Range, path::PathBuf, time::Duration};

use conexus_protocol::MessageType;
use toml_edit::{InlineTable, Value};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use url::Url;

use super::{
    origins::{AllowedOrigin, ORIGIN_FORM},
    policies::HookSource,
    proxy_networks::{NETWORK_FORM, ProxyNetwork},
    secret::{InEnv, InFile, SecretSource},
    units::{self, DURATION_FORM, SIZE_FORM},
};

/// Beyond this, adding to a clock may overflow; nobody means it anyway.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// What travels between agents. The rest of v1 and all that v1.1 adds is between an agent and
/// its gateway.
pub(super) const RELAYABLE: [MessageType; 7] = [
    MessageType::Offer,
    MessageType::Answer,
    MessageType::IceCandidate,
    MessageType::Intent,
    MessageType::ExecRequest,
    MessageType::ExecResponse,
    MessageType::Error,
];

pub(super) const NAME_FORM: &str = r#"1 to 64 of a-z, 0-9, "_" and "-""#;
/// Of a name that begins keys of Redis: none of Redis' own marks, so that a pattern of an access list is plain.
const PREFIX_FORM: &str = r#"1 to 64 of A-Z, a-z, 0-9, ".", "_", ":" and "-""#;
const SECRET_FORM: &str = r#"a text, { file = "…" } or { env = "…" }"#;
const ICE_SERVER_FORM: &str = r#"{ urls = ["turn:turn.example:3478"], secret = "…" }"#;
pub(super) const ICE_SCHEMES: [&str; 4] = ["stun:", "stuns:", "turn:", "turns:"];

/// What the value of a key may be.
#[derive(Debug)]
pub(super) enum Kind {
    Flag,
    Count {
        min: usize,
        max: usize,
    },
    Duration {
        min: Duration,
    },
    Size {
        min: usize,
        max: usize,
    },
    Choice(&'static [&'static str]),
    Address,
    Path,
    Text,
    LogLevel,
    PublicUrls,
    Origins,
    Networks,
    HttpUrl,
    RedisUrl,
    HostsAndPorts,
    /// What the names of keys in Redis begin with.
    KeyPrefix,
    Relay,
    /// Names of labels, as GET /agents takes them.
    Labels,
    Secret,
    IceServers,
    Name,
    HookUse,
    Sha256,
    Table,
}

/// What is wrong with a value, and where within the file if it has a place there. The text
/// quotes the value unless it may contain a secret.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) span: Option<Range<usize>>,
    pub(super) problem: String,
}

impl Wrong {
    fn at(value: &Value, problem: impl Into<String>) -> Self {
        Self { span: value.span(), problem: problem.into() }
    }
}

type Checked = Result<(), String>;

impl Kind {
    pub(super) const fn count(min: usize, max: usize) -> Self {
        Self::Count { min, max }
    }

    pub(super) const fn duration(min: Duration) -> Self {
        Self::Duration { min }
    }

    pub(super) const fn size(min: usize, max: usize) -> Self {
        Self::Size { min, max }
    }

    /// Whether nothing that is a text would be refused.
    pub(super) fn takes_any_text(&self) -> bool {
        matches!(self, Self::Path | Self::Text | Self::Secret | Self::Table)
    }

    /// What is accepted, for error texts.
    pub(super) fn form(&self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Count { .. } => "a whole number".into(),
            Self::Duration { .. } => DURATION_FORM.into(),
            Self::Size { .. } => SIZE_FORM.into(),
            Self::Choice(words) => words_form(words),
            Self::Address => r#"an IP address and a port such as "127.0.0.1:8000""#.into(),
            Self::Path => "a path".into(),
            Self::Text => "a text in quotes".into(),
            Self::LogLevel => {
                r#"a level such as "info" or a list such as "info,conexus_gateway::session=debug""#
                    .into()
            }
            Self::HttpUrl => r#"a URL such as "http://127.0.0.1:4318""#.into(),
            Self::RedisUrl => r#"a URL such as "redis://127.0.0.1:6379""#.into(),
            Self::HostsAndPorts => r#"a list such as ["redis-2.example:6379"]"#.into(),
            Self::KeyPrefix => PREFIX_FORM.into(),
            Self::Origins => format!("a list of which each is {ORIGIN_FORM}"),
            Self::Networks => format!("a list of which each is {NETWORK_FORM}"),
            Self::PublicUrls => r#"a list of URLs such as ["wss://gateway.example/ws"]"#.into(),
            Self::Relay => r#"a list of message types such as ["OFFER", "ANSWER"]"#.into(),
            Self::Labels => r#"a list of names of labels such as ["team", "region"]"#.into(),
            Self::Secret => SECRET_FORM.into(),
            Self::IceServers => format!("a list of {ICE_SERVER_FORM}"),
            Self::Name => NAME_FORM.into(),
            Self::HookUse => r#""script:NAME" or "plugin:NAME""#.into(),
            Self::Sha256 => "64 hexadecimal digits".into(),
            Self::Table => "a table such as { key = \"value\" }".into(),
        }
    }

    /// All that is wrong with a value.
    pub(super) fn check(&self, value: &Value) -> Vec<Wrong> {
        let each = |check: fn(&str) -> Checked| self.check_each(value, check);
        match self {
            Self::PublicUrls => each(check_public_url),
            Self::Relay => each(check_relayed),
            Self::Labels => each(check_label),
            Self::HostsAndPorts => each(check_host_and_port),
            Self::Origins => each(|text| AllowedOrigin::try_from(text.to_owned()).map(drop)),
            Self::Networks => each(|text| ProxyNetwork::try_from(text.to_owned()).map(drop)),
            Self::IceServers => self.check_ice_servers(value),
            Self::Secret => self.check_secret(value),
            Self::Table => match value {
                Value::InlineTable(_) => check_numbers(value),
                _ => vec![self.wrong_type(value)],
            },
            _ => self.check_scalar(value).err().into_iter().collect(),
        }
    }

    fn check_scalar(&self, value: &Value) -> Result<(), Wrong> {
        let checked = match (self, value) {
            (Self::Flag, Value::Boolean(_)) => Ok(()),
            (Self::Count { min, max }, Value::Integer(number)) => {
                check_count(*number.value(), *min, *max)
            }
            (Self::Flag | Self::Count { .. }, _) => return Err(self.wrong_type(value)),
            (_, Value::String(text)) => self.check_text(text.value()),
            (Self::Duration { .. } | Self::Size { .. }, Value::Integer(number)) => {
                Err(format!("{} has no unit; expected {}", number.value(), self.form()))
            }
            _ => return Err(self.wrong_type(value)),
        };
        checked.map_err(|problem| Wrong::at(value, problem))
    }

    fn check_text(&self, text: &str) -> Checked {
        let valid = match self {
            Self::Duration { min } => return self.check_duration(text, *min),
            Self::Size { min, max } => return self.check_size(text, *min, *max),
            Self::Choice(words) => words.contains(&text),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::HttpUrl => return check_http_url(text),
            Self::RedisUrl => return check_redis_url(text),
            Self::KeyPrefix => is_key_prefix(text),
            Self::LogLevel => is_log_level(text),
            Self::Path => !text.is_empty(),
            Self::Name => is_name(text),
            Self::HookUse => HookSource::try_from(text.to_owned()).is_ok(),
            Self::Sha256 => text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            _ => true,
        };
        match valid {
            true => Ok(()),
            // Not quoted: a token in the place of its hash is a secret.
            false if matches!(self, Self::Sha256) => Err(format!("expected {}", self.form())),
            false => Err(format!("{text:?} is not accepted; expected {}", self.form())),
        }
    }

    fn check_duration(&self, text: &str, min: Duration) -> Checked {
        let duration = units::parse_duration(text)
            .map_err(|error| format!("{error}; expected {}", self.form()))?;
        if duration < min {
            let least = units::format_duration(min);
            return Err(format!("{text:?} is too short; expected at least {least:?}"));
        }
        if duration > MAX_DURATION {
            return Err(format!("{text:?} is too long; expected at most \"8760h\""));
        }
        Ok(())
    }

    fn check_size(&self, text: &str, min: usize, max: usize) -> Checked {
        let bytes = units::parse_size(text)
            .map_err(|error| format!("{error}; expected {}", self.form()))?;
        let (least, most) = (units::format_size(min), units::format_size(max));
        if (min..=max).contains(&bytes) {
            Ok(())
        } else {
            Err(format!("{text:?} is out of bounds; expected {least:?} to {most:?}"))
        }
    }

    fn check_each(&self, value: &Value, check: fn(&str) -> Checked) -> Vec<Wrong> {
        let Some(list) = value.as_array() else { return vec![self.wrong_type(value)] };
        let wrong = list.iter().filter_map(|element| match element.as_str() {
            Some(text) => check(text).map_err(|problem| Wrong::at(element, problem)).err(),
            None => Some(self.wrong_type(element)),
        });
        wrong.collect()
    }

    fn check_secret(&self, value: &Value) -> Vec<Wrong> {
        match secret_source(value) {
            Some(_) => Vec::new(),
            None => vec![Wrong::at(value, format!("expected {SECRET_FORM}"))],
        }
    }

    fn check_ice_servers(&self, value: &Value) -> Vec<Wrong> {
        let Some(list) = value.as_array() else { return vec![self.wrong_type(value)] };
        let wrong = list.iter().flat_map(|server| match server.as_inline_table() {
            Some(table) => check_ice_server(server, table),
            None => vec![Wrong::at(server, format!("expected {ICE_SERVER_FORM}"))],
        });
        wrong.collect()
    }

    fn wrong_type(&self, value: &Value) -> Wrong {
        let found = match value {
            Value::String(_) => "a text",
            Value::Integer(_) => "a number",
            Value::Float(_) => "a fraction",
            Value::Boolean(_) => "true or false",
            Value::Datetime(_) => "a date or time",
            Value::Array(_) => "a list",
            Value::InlineTable(_) => "a table",
        };
        Wrong::at(value, format!("expected {}, found {found}", self.form()))
    }
}

/// The name of a label is anything; but in a query a colon ends it.
fn check_label(text: &str) -> Checked {
    match text.is_empty() || text.contains(':') {
        true => Err(format!("{text:?} is no label to search by: it is empty or has a colon in it")),
        false => Ok(()),
    }
}

/// Whether hooks, plugins and the like may be called so.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// A brace would change which part of a key Redis Cluster places it by.
fn is_key_prefix(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// JSON, which the table becomes, has no infinity.
fn check_numbers(value: &Value) -> Vec<Wrong> {
    match value {
        Value::Float(number) if !number.value().is_finite() => {
            vec![Wrong::at(value, "is no number that JSON can hold")]
        }
        Value::Array(list) => list.iter().flat_map(check_numbers).collect(),
        Value::InlineTable(table) => {
            table.iter().flat_map(|(_, value)| check_numbers(value)).collect()
        }
        _ => Vec::new(),
    }
}

fn words_form(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn check_count(number: i64, min: usize, max: usize) -> Checked {
    match usize::try_from(number) {
        Ok(count) if (min..=max).contains(&count) => Ok(()),
        _ => Err(format!("{number} is out of bounds; expected {min} to {max}")),
    }
}

/// `EnvFilter` takes any word for the name of a module, so that "inof" would silence the log.
pub(crate) fn is_log_level(text: &str) -> bool {
    let plausible = |directive: &str| {
        let directive = directive.trim();
        directive.contains('=') || !directive.is_empty() && directive.parse::<LevelFilter>().is_ok()
    };
    // A directive for a span would go before the one that silences a library within that span.
    let names_a_span = text.contains('[');
    !names_a_span && text.split(',').all(plausible) && EnvFilter::try_new(text).is_ok()
}

fn check_public_url(text: &str) -> Checked {
    let url = Url::parse(text)
        .map_err(|error| format!("not a URL ({error}); expected \"wss://gateway.example/ws\""))?;
    // Not quoted: it contains a password.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with user info; agents dial it without".into());
    }
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(format!("{text:?} has the scheme {:?}; expected ws or wss", url.scheme()));
    }
    if url.fragment().is_some() || url.query().is_some() {
        return Err(format!(
            "{text:?} has a query or fragment; expected scheme, host and path only"
        ));
    }
    Ok(())
}

fn check_http_url(text: &str) -> Checked {
    let url = Url::parse(text)
        .map_err(|error| format!("not a URL ({error}); expected \"http://127.0.0.1:4318\""))?;
    // Not quoted: it contains a password.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with user info, which everybody would see".into());
    }
    match url.scheme() {
        "http" | "https" if url.fragment().is_none() => Ok(()),
        "http" | "https" => Err(format!("{text:?} has a fragment")),
        other => Err(format!("{text:?} has the scheme {other:?}; expected http or https")),
    }
}

fn check_redis_url(text: &str) -> Checked {
    const EXPECTED: &str = "expected \"redis://HOST:PORT\" or \"rediss://HOST:PORT\"";
    let url = Url::parse(text).map_err(|error| format!("not a URL ({error}); {EXPECTED}"))?;
    // Not quoted: it contains a password.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with user info, which everybody would see; \
                    cluster.redis.username and cluster.redis.password are for that"
            .into());
    }
    let database = url.path().trim_start_matches('/');
    match url.scheme() {
        "redis" | "rediss" if url.host_str().is_none() => {
            Err(format!("{text:?} names no host; {EXPECTED}"))
        }
        "redis" | "rediss" if url.query().is_some() || url.fragment().is_some() => {
            Err(format!("{text:?} has a query or a fragment; {EXPECTED}"))
        }
        "redis" | "rediss" if database.is_empty() || database.parse::<u32>().is_ok() => Ok(()),
        "redis" | "rediss" => Err(format!("{text:?}: {database:?} is no number of a database")),
        other => Err(format!("{text:?} has the scheme {other:?}; {EXPECTED}")),
    }
}

fn check_host_and_port(text: &str) -> Checked {
    // As a URL without all that a URL may have beside them.
    let url = Url::parse(&format!("redis://{text}")).ok();
    let plain = !text.contains(['/', '?', '#', '@']);
    match url.filter(|url| plain && url.host_str().is_some() && url.port().is_some()) {
        Some(_) => Ok(()),
        None => Err(format!("{text:?} is no host with a port; expected \"redis-2.example:6379\"")),
    }
}

fn check_relayed(text: &str) -> Checked {
    let expected = || words_form(&RELAYABLE.map(MessageType::as_str));
    match MessageType::parse(text) {
        Some(kind) if RELAYABLE.contains(&kind) => Ok(()),
        Some(_) => Err(format!("{text} cannot be relayed; expected {}", expected())),
        None => Err(format!("{text:?} is no message type; expected {}", expected())),
    }
}

fn check_ice_server(server: &Value, table: &InlineTable) -> Vec<Wrong> {
    let mut wrong: Vec<_> = table
        .iter()
        .filter_map(|(name, value)| {
            check_ice_member(name, value).err().map(|problem| Wrong::at(value, problem))
        })
        .collect();
    if !table.contains_key("urls") {
        wrong.push(Wrong::at(server, format!("urls is missing; expected {ICE_SERVER_FORM}")));
    }
    // What ties its members together is only of interest where each is right in itself.
    if wrong.is_empty()
        && let Err(problem) = check_ice_access(table)
    {
        wrong.push(Wrong::at(server, problem));
    }
    wrong
}

/// A TURN server is told a credential, and there is one way to come by it.
fn check_ice_access(table: &InlineTable) -> Checked {
    let urls = table.get("urls").and_then(Value::as_array).into_iter().flatten();
    let turn = urls.filter_map(Value::as_str).find(|url| url.starts_with("turn"));
    let has = |name| table.contains_key(name);
    match (turn, has("secret")) {
        (Some(_), true) if has("username") || has("credential") => {
            Err("secret makes a credential for each agent, so there is neither a username nor a \
             credential beside it"
                .to_owned())
        }
        (Some(url), false) if !(has("username") && has("credential")) => Err(format!(
            "{url} needs a secret, or a username and a credential: WebRTC refuses it without"
        )),
        (None, true) => Err("secret is for turn: and turns: servers".to_owned()),
        _ => Ok(()),
    }
}

fn check_ice_member(name: &str, value: &Value) -> Checked {
    let valid = match name {
        "urls" => value.as_array().is_some_and(|urls| {
            let valid = |url: &str| {
                ICE_SCHEMES.iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme))
            };
            !urls.is_empty() && urls.iter().all(|url| url.as_str().is_some_and(valid))
        }),
        "username" => value.is_str(),
        "credential" | "secret" => secret_source(value).is_some(),
        _ => return Err(format!("{name} is unknown; expected {ICE_SERVER_FORM}")),
    };
    let expected = match name {
        "urls" => "a list of stun:, stuns:, turn: or turns: URLs",
        "username" => "a text",
        _ => SECRET_FORM,
    };
    if valid { Ok(()) } else { Err(format!("{name}: expected {expected}")) }
}

/// A secret as written.
pub(super) fn secret_source(value: &Value) -> Option<SecretSource> {
    if let Some(text) = value.as_str() {
        return Some(SecretSource::Text(text.to_owned()));
    }
    let table = value.as_inline_table().filter(|table| table.len() == 1)?;
    let (name, value) = table.iter().next()?;
    match (name, value.as_str()?) {
        ("file", path) => Some(SecretSource::File(InFile { file: PathBuf::from(path) })),
        ("env", name) => Some(SecretSource::Env(InEnv { env: name.to_owned() })),
        _ => None,
    }
}
