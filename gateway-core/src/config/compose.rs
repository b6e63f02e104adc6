//! From what was written about hooks, chains, plugins, rate classes and admin tokens to [`Policies`]
//! and [`AdminTokens`], and the rules that tie them together. Each breach is told where it stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use conexus_plugin_api::Point;

use super::{
    fault::{Fault, Origin},
    handed::hand_over,
    load::Sources,
    named::{ChainDraft, Draft, Drafts, Written},
    policies::{
        Chain, ChainEntry, FailMode, HookScope, HookSettings, HookSource, Mode, PluginSettings,
        Policies, RateClass, linked_plugins,
    },
    rules::small_burst,
    settings::Settings,
    tokens::{AdminToken, AdminTokens, Scope, taken_by_nobody},
    units::{format_duration, parse_duration, parse_size},
    walk::nearest,
};

/// What came of the drafts; worth nothing if there were faults.
#[derive(Default)]
pub(super) struct Composed {
    pub(super) policies: Policies,
    pub(super) admin_tokens: AdminTokens,
    pub(super) origins: BTreeMap<String, Origin>,
    pub(super) replaced: BTreeMap<String, Origin>,
    pub(super) warnings: Vec<String>,
}

pub(super) fn compose(
    drafts: &Drafts,
    settings: &Settings,
    sources: &Sources,
    faults: &mut Vec<Fault>,
) -> Composed {
    let mut composer =
        Composer { drafts, settings, sources, faults, composed: Composed::default() };
    for (name, draft) in &drafts.plugins {
        composer.plugin(name, draft);
    }
    for (name, draft) in &drafts.rate_classes {
        composer.rate_class(name, draft);
    }
    for (name, draft) in &drafts.admin_tokens {
        composer.admin_token(name, draft);
    }
    for (name, draft) in &drafts.hooks {
        composer.hook(name, draft);
    }
    for (point, draft) in &drafts.chains {
        composer.chain(*point, draft);
    }
    composer.warn_of_idle_hooks();
    composer.warn_of_equal_namespaces();
    composer.composed
}

struct Composer<'a> {
    drafts: &'a Drafts,
    settings: &'a Settings,
    sources: &'a Sources,
    faults: &'a mut Vec<Fault>,
    composed: Composed,
}

impl Composer<'_> {
    fn plugin(&mut self, name: &str, draft: &Draft) {
        let key = format!("plugins.{name}");
        self.note_origins(&key, draft);
        let Some(path) = self.required(&key, draft, "path", "the library, or a folder with it")
        else {
            return;
        };
        let path = self.sources.folder_of(&path.origin).join(text(path));
        let plugin = PluginSettings {
            path,
            sha256: draft.fields.get("sha256").map(|pin| text(pin).to_ascii_lowercase()),
            crate_name: draft.fields.get("crate").map(|name| text(name).to_owned()),
        };
        self.composed.policies.plugins.insert(name.to_owned(), plugin);
    }

    fn rate_class(&mut self, name: &str, draft: &Draft) {
        let key = format!("rate_class.{name}");
        self.note_origins(&key, draft);
        let class = RateClass {
            messages_per_second: count(draft.fields.get("messages_per_second")),
            message_burst: count(draft.fields.get("message_burst")),
            bytes_per_second: size(draft.fields.get("bytes_per_second")),
            bytes_burst: size(draft.fields.get("bytes_burst")),
        };
        if let Some(problem) =
            small_burst(("bytes_burst", class.bytes_burst), self.settings.limits.message_bytes)
        {
            let origin = draft.fields.get("bytes_burst").map_or(&draft.origin, |set| &set.origin);
            self.faults.push(Fault::of(format!("{key}.bytes_burst"), problem, origin.clone()));
        }
        if class.bytes_burst != 0 && class.bytes_per_second == 0 {
            let oddity = "bytes_burst has no effect while bytes_per_second is \"0B\"";
            self.warn(&draft.origin, &key, oddity);
        }
        if class.message_burst != 0 && class.messages_per_second == 0 {
            self.warn(
                &draft.origin,
                &key,
                "message_burst has no effect while messages_per_second is 0",
            );
        }
        self.composed.policies.rate_classes.insert(name.to_owned(), class);
    }

    fn admin_token(&mut self, name: &str, draft: &Draft) {
        let key = format!("admin_token.{name}");
        self.note_origins(&key, draft);
        if let Some(problem) = taken_by_nobody(name) {
            let problem = format!("{name:?} {problem}");
            self.faults.push(Fault::of(key.clone(), problem, draft.origin.clone()));
        }
        let expected = "64 hexadecimal digits; `conexus token` makes a token";
        let Some(hash) = self.required(&key, draft, "sha256", expected) else { return };
        let scope = match draft.fields.get("scope").map(text) {
            Some("operate") => Scope::Operate,
            _ => Scope::Read,
        };
        let token = AdminToken::from_hash(text(hash), scope);
        self.composed.admin_tokens.extend(token.map(|token| (name.to_owned(), token)));
    }

    fn hook(&mut self, name: &str, draft: &Draft) {
        let key = format!("hook.{name}");
        self.note_origins(&key, draft);
        let expected = r#""script:NAME" or "plugin:NAME""#;
        let Some(written) = self.required(&key, draft, "use", expected) else { return };
        let Ok(source) = HookSource::try_from(text(written).to_owned()) else { return };
        self.check_plugin(&key, &source, &written.origin);
        let mut hook = HookSettings::new(source);
        if let Some(config) = draft.fields.get("config") {
            let handed = hand_over(&format!("{key}.config"), config, self.sources, self.faults);
            hook.config = handed.real;
            hook.shown_config = handed.shown;
            hook.files = handed.files;
        }
        hook.blocking =
            draft.fields.get("blocking").and_then(|flag| flag.value.as_bool()).unwrap_or(false);
        hook.tick = draft.fields.get("tick").and_then(duration);
        hook.namespace = draft.fields.get("namespace").map(|name| text(name).to_owned());
        if let Some(written) = draft.fields.get("scope").filter(|word| text(word) == "cluster") {
            hook.scope = HookScope::Cluster;
            self.check_cluster(&key, &written.origin);
        }
        self.composed.policies.hooks.insert(name.to_owned(), hook);
    }

    fn check_plugin(&mut self, key: &str, source: &HookSource, origin: &Origin) {
        let HookSource::Plugin(name) = source else { return };
        let linked = linked_plugins().iter().copied();
        let known = || self.drafts.plugins.keys().map(String::as_str).chain(linked.clone());
        if known().any(|known| known == name) {
            return;
        }
        let near = nearest(name, name.len(), known()).map(|near| format!("plugin:{near}"));
        let problem =
            format!("there is no [plugins.{name}], and no plugin of that name is built in");
        self.faults.push(Fault::of(format!("{key}.use"), problem, origin.clone()).near(near));
    }

    /// Without a cluster each of its calls would fail.
    fn check_cluster(&mut self, key: &str, origin: &Origin) {
        if self.settings.cluster_redis.url.is_none() && !self.is_faulty("cluster.redis.url") {
            let problem = "\"cluster\" needs cluster.redis.url: this gateway is alone, so the hook's \
                           state cannot be shared, and each of its calls would fail";
            self.faults.push(Fault::of(format!("{key}.scope"), problem, origin.clone()));
        }
    }

    /// Equal names in both scopes are two states, which may not be what was meant.
    fn warn_of_equal_namespaces(&mut self) {
        let mut seen = BTreeMap::new();
        let mut apart = Vec::new();
        for (name, hook) in &self.composed.policies.hooks {
            let namespace = hook.namespace.as_deref().unwrap_or(name);
            let (first, scope) = seen.entry(namespace).or_insert((name, hook.scope));
            if *scope != hook.scope {
                apart.push((
                    name.clone(),
                    format!(
                        "shares nothing with hook.{first}, although both have the namespace \
                     {namespace:?}: one's state is this node's, the other's the cluster's"
                    ),
                ));
            }
        }
        for (name, oddity) in apart {
            let Some(draft) = self.drafts.hooks.get(&name) else { continue };
            self.warn(&draft.origin, &format!("hook.{name}"), &oddity);
        }
    }

    fn chain(&mut self, point: Point, draft: &ChainDraft) {
        let key = format!("chain.{point}");
        self.composed.origins.insert(key.clone(), draft.origin.clone());
        if let Some(replaced) = &draft.replaced {
            self.composed.replaced.insert(key.clone(), replaced.clone());
        }
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        for (index, entry) in draft.entries.iter().enumerate() {
            let key = format!("{key}[{index}]");
            let Some(entry) = self.entry(&key, point, entry, &mut seen) else { continue };
            entries.push(entry);
        }
        self.composed.policies.chains.insert(Chain(point), entries);
    }

    fn entry<'d>(
        &mut self,
        key: &str,
        point: Point,
        draft: &'d Draft,
        seen: &mut BTreeSet<&'d str>,
    ) -> Option<ChainEntry> {
        self.note_origins(key, draft);
        let written = self.required(key, draft, "hook", "the NAME of a [hook.NAME]")?;
        let hook = text(written);
        let hook_key = format!("{key}.hook");
        if !self.drafts.hooks.contains_key(hook) {
            let near = nearest(hook, hook.len(), self.drafts.hooks.keys().map(String::as_str));
            let problem = format!("there is no [hook.{hook}]");
            self.faults.push(Fault::of(hook_key, problem, written.origin.clone()).near(near));
        } else if !seen.insert(hook) {
            let problem = format!("{hook:?} is in this chain already");
            self.faults.push(Fault::of(hook_key, problem, written.origin.clone()));
        }
        let entry = ChainEntry {
            hook: hook.to_owned(),
            mode: match draft.fields.get("mode").map(text) {
                Some("shadow") => Mode::Shadow,
                Some("off") => Mode::Off,
                _ => Mode::Enforce,
            },
            on_error: draft.fields.get("on_error").map(|word| match text(word) {
                "open" => FailMode::Open,
                _ => FailMode::Closed,
            }),
            budget: draft.fields.get("budget").and_then(duration),
            warn: draft.fields.get("warn").and_then(duration),
        };
        self.check_entry(key, point, &entry, draft);
        Some(entry)
    }

    fn check_entry(&mut self, key: &str, point: Point, entry: &ChainEntry, draft: &Draft) {
        let budget = entry.budget.unwrap_or(self.settings.policy.budget);
        let budget_key = format!("{key}.budget");
        if let (Some(warn), Some(written)) = (entry.warn, draft.fields.get("warn"))
            && warn > budget
            && !self.is_faulty(&budget_key)
            && !(entry.budget.is_none() && self.is_faulty("policy.budget"))
        {
            let problem = format!(
                "warn ({}) must be at most the budget ({})",
                format_duration(warn),
                format_duration(budget)
            );
            self.faults.push(Fault::of(format!("{key}.warn"), problem, written.origin.clone()));
        }
        if let (Some(FailMode::Closed), Some(written)) =
            (entry.on_error, draft.fields.get("on_error"))
            && !point.is_verdict()
        {
            let key = format!("{key}.on_error");
            self.warn(
                &written.origin,
                &key,
                "has no effect, since nothing is decided at this point",
            );
        }
    }

    fn warn_of_idle_hooks(&mut self) {
        let chains = self.drafts.chains.values();
        let named: BTreeSet<&str> = chains
            .flat_map(|chain| &chain.entries)
            .filter_map(|entry| entry.fields.get("hook").map(text))
            .collect();
        for (name, draft) in &self.drafts.hooks {
            if !named.contains(name.as_str()) {
                self.warn(
                    &draft.origin,
                    &format!("hook.{name}"),
                    "no chain names it, so it only starts, ticks and stops",
                );
            }
        }
    }

    /// A value that a table cannot be without. A faulty one is not missing.
    fn required<'d>(
        &mut self,
        key: &str,
        draft: &'d Draft,
        name: &str,
        expected: &str,
    ) -> Option<&'d Written> {
        let found = draft.fields.get(name);
        let told = self.is_faulty(key) || self.is_faulty(&format!("{key}.{name}"));
        if found.is_none() && !told {
            let problem = format!("{name} is missing; expected {expected}");
            self.faults.push(Fault::of(key, problem, draft.origin.clone()));
        }
        found
    }

    fn is_faulty(&self, key: &str) -> bool {
        self.faults.iter().any(|fault| fault.key.as_deref() == Some(key))
    }

    fn note_origins(&mut self, key: &str, draft: &Draft) {
        self.composed.origins.extend(
            draft
                .fields
                .iter()
                .map(|(name, written)| (format!("{key}.{name}"), written.origin.clone())),
        );
    }

    fn warn(&mut self, origin: &Origin, key: &str, oddity: &str) {
        self.composed.warnings.push(format!("{origin}: {key}: {oddity}"));
    }
}

/// What the walk has checked: a text.
fn text(written: &Written) -> &str {
    written.value.as_str().unwrap_or_default()
}

/// What the walk has checked: a duration.
fn duration(written: &Written) -> Option<Duration> {
    parse_duration(text(written)).ok()
}

/// What the walk has checked: a size; absent is 0.
fn size(written: Option<&Written>) -> usize {
    written.and_then(|written| parse_size(text(written)).ok()).unwrap_or(0)
}

/// What the walk has checked: a whole number of 32 bits; absent is 0.
fn count(written: Option<&Written>) -> u32 {
    let number = written.and_then(|written| written.value.as_integer());
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}
