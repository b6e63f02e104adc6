//! The tables whose names are the operator's own: hooks, chains, plugins, rate classes.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use conexus_plugin_api::Point;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::kind::is_name;

/// The plugins that are linked into this binary, which need no `[plugins.NAME]`.
pub(crate) const fn linked_plugins() -> &'static [&'static str] {
    crate::plugin_host::linked::NAMES
}

/// `hook.*`, `chain.*`, `plugins.*` and `rate_class.*`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policies {
    /// `[hook.NAME]`: named, configured instances.
    pub hooks: BTreeMap<String, HookSettings>,
    /// `[[chain.on_POINT]]`: which instances are asked where, in order.
    pub chains: BTreeMap<Chain, Vec<ChainEntry>>,
    /// `[plugins.NAME]`: where native plugins lie.
    pub plugins: BTreeMap<String, PluginSettings>,
    /// `[rate_class.NAME]`: rates that on_register may give an agent.
    pub rate_classes: BTreeMap<String, RateClass>,
}

/// A point as a key of `chain.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Chain(pub Point);

impl TryFrom<String> for Chain {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Point::from_name(&name).map(Self).ok_or_else(|| format!("no such point: {name}"))
    }
}

impl From<Chain> for String {
    fn from(chain: Chain) -> Self {
        chain.0.name().to_owned()
    }
}

/// Where a hook's code is: `script:NAME` or `plugin:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HookSource {
    /// `scripts.path`/NAME.rhai.
    Script(String),
    /// `[plugins.NAME]`, or a plugin that is linked in.
    Plugin(String),
}

impl TryFrom<String> for HookSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("script", name)) if is_name(name) => Ok(Self::Script(name.to_owned())),
            Some(("plugin", name)) if is_name(name) => Ok(Self::Plugin(name.to_owned())),
            _ => Err(r#"must be "script:NAME" or "plugin:NAME""#.to_owned()),
        }
    }
}

impl From<HookSource> for String {
    fn from(source: HookSource) -> Self {
        match source {
            HookSource::Script(name) => format!("script:{name}"),
            HookSource::Plugin(name) => format!("plugin:{name}"),
        }
    }
}

/// `[hook.NAME]`. `Debug` leaves the config out, which may hold secrets.
#[derive(Clone, PartialEq)]
pub struct HookSettings {
    /// Where its code is.
    pub source: HookSource,
    /// Handed to it. A text at a key `file` or `…_file`, at any depth, is a path: relative to the
    /// folder of the file that sets it, made absolute here, and watched. `{ env = "…" }` and
    /// `{ secret_file = "…" }` below the top are secrets, which stand here in plain. Never print it.
    pub config: Map<String, Value>,
    /// The config as it may be shown: with secrets as `<secret>`.
    pub shown_config: Map<String, Value>,
    /// All files that the config names, those of secrets among them; absolute.
    pub files: Vec<PathBuf>,
    /// Whether it is called on the pool of blocking threads.
    pub blocking: bool,
    /// How often `on_tick` is called.
    pub tick: Option<Duration>,
    /// The name of its state, where it shares it with others; its own name otherwise.
    pub namespace: Option<String>,
    /// Whose its state is, and which agents it finds.
    pub scope: HookScope,
}

/// How far what a hook keeps and looks up reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookScope {
    /// This node's.
    #[default]
    Local,
    /// The whole cluster's.
    Cluster,
}

impl HookScope {
    /// The words, as the configuration has them.
    pub const WORDS: &'static [&'static str] = &["local", "cluster"];
}

impl HookSettings {
    /// An instance with nothing but its code set.
    #[must_use]
    pub fn new(source: HookSource) -> Self {
        Self {
            source,
            config: Map::new(),
            shown_config: Map::new(),
            files: Vec::new(),
            blocking: false,
            tick: None,
            namespace: None,
            scope: HookScope::default(),
        }
    }
}

impl fmt::Debug for HookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookSettings")
            .field("source", &self.source)
            .field("files", &self.files)
            .field("blocking", &self.blocking)
            .field("tick", &self.tick)
            .field("namespace", &self.namespace)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// One entry of `[[chain.on_POINT]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChainEntry {
    /// The instance.
    pub hook: String,
    /// Whether it is obeyed.
    pub mode: Mode,
    /// What a failure means. Unset: closed at verdict points.
    pub on_error: Option<FailMode>,
    /// How long one call may take. Unset: `policy.budget`.
    pub budget: Option<Duration>,
    /// A call that takes longer is warned about. Unset: half of its budget.
    pub warn: Option<Duration>,
}

impl ChainEntry {
    /// What a failure means at that point: as set, else closed where hooks decide.
    #[must_use]
    pub fn fail_mode(&self, point: Point) -> FailMode {
        let default = if point.is_verdict() { FailMode::Closed } else { FailMode::Open };
        self.on_error.unwrap_or(default)
    }
}

/// Whether a hook's verdicts are obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are.
    #[default]
    Enforce,
    /// They are recorded and counted, and have no effect.
    Shadow,
    /// It is not asked.
    Off,
}

impl Mode {
    /// The words, as the configuration has them.
    pub const WORDS: &'static [&'static str] = &["enforce", "shadow", "off"];
}

/// What it means that a hook failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailMode {
    /// As if it had denied, with `policy_error`.
    #[default]
    Closed,
    /// As if it had said nothing.
    Open,
}

impl FailMode {
    /// The words, as the configuration has them.
    pub const WORDS: &'static [&'static str] = &["closed", "open"];
}

/// `[plugins.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PluginSettings {
    /// The library, or a folder that has it; absolute.
    pub path: PathBuf,
    /// What its content must hash to, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// The name of its crate, where the file's name does not give it.
    #[serde(rename = "crate")]
    pub crate_name: Option<String>,
}

/// `[rate_class.NAME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateClass {
    /// As `limits.messages_per_second`; 0 means no limit.
    pub messages_per_second: u32,
    /// As `limits.message_burst`.
    pub message_burst: u32,
    /// As `limits.bytes_per_second`; 0 means no limit.
    pub bytes_per_second: usize,
    /// As `limits.bytes_burst`.
    pub bytes_burst: usize,
}
