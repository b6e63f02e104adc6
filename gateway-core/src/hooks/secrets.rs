//! What the words of a hook that failed must not repeat: the secrets in its configuration, and what a
//! connection brings along for policy alone.
//!
//! An error often quotes what it could not read: `invalid type: string "hunter2"`. Such words go to
//! the log, to operators and to other hooks. They are few, so that all the work is done when there
//! are some.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};
use conexus_plugin_api::host::Event;
use serde_json::{Map, Value};

use super::{
    hook::HookFault,
    record::{PUBLIC_HEADERS, REDACTED},
};
use crate::config::HookSettings;

/// What is shorter is a word like others: to leave it out would garble the text and hide nothing.
const SHORTEST: usize = 4;

/// What a hook says when it fails is for people: no more of it than this, in bytes.
const LONGEST: usize = 4 * 1024;

/// The secrets in one hook's configuration. `Debug` would show them, so there is none.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Those of a hook: wherever its configuration may not be shown as it is.
    pub(crate) fn of(hook: &HookSettings) -> Self {
        let mut secrets = Self::default();
        secrets.compare_tables(&hook.config, &hook.shown_config);
        secrets
    }

    fn compare_tables(&mut self, real: &Map<String, Value>, shown: &Map<String, Value>) {
        for (name, value) in real {
            // A hook that was configured otherwise than by a file is shown nothing of.
            if let Some(shown) = shown.get(name) {
                self.compare(value, shown);
            }
        }
    }

    fn compare(&mut self, real: &Value, shown: &Value) {
        match (real, shown) {
            (Value::Object(real), Value::Object(shown)) => self.compare_tables(real, shown),
            (Value::Array(real), Value::Array(shown)) => {
                real.iter().zip(shown).for_each(|(real, shown)| self.compare(real, shown));
            }
            (Value::String(real), shown) if shown.as_str() != Some(real) => {
                self.0.push(real.clone());
            }
            _ => {}
        }
    }

    /// The text without any of them, nor of what `event` has for policy alone.
    ///
    /// In one pass over what the hook said: a peer chooses what it confides, and what was put in the
    /// place of one secret must not be taken for another.
    pub(crate) fn hide(&self, mut text: String, event: Option<&Event>) -> String {
        let fits = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=LONGEST.min(text.len())).rev().find(fits).unwrap_or(0);
        text.truncate(end);
        let own = self.0.iter().map(|secret| Cow::Borrowed(secret.as_str()));
        let mut secrets: Vec<_> = own.chain(event.into_iter().flat_map(confided)).collect();
        // Quoted, as errors do it, some characters look otherwise.
        let quoted: Vec<_> = secrets
            .iter()
            .map(|secret| secret.escape_debug().to_string())
            .map(Cow::Owned)
            .collect();
        secrets.extend(quoted);
        secrets.retain(|secret| secret.len() >= SHORTEST);
        secrets.sort_unstable();
        secrets.dedup();
        // One may be part of another.
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(secrets.iter().map(|secret| secret.as_bytes()));
        match search {
            Ok(search) => search.replace_all(&text, &vec![REDACTED; secrets.len()]),
            // There are too many of them to look for.
            Err(_) => REDACTED.to_owned(),
        }
    }

    /// The fault without them.
    pub(crate) fn hide_in(&self, fault: HookFault, event: Option<&Event>) -> HookFault {
        match fault {
            HookFault::Failed(text) => HookFault::Failed(self.hide(text, event)),
            HookFault::Panicked(text) => HookFault::Panicked(self.hide(text, event)),
            HookFault::BadReturn(text) => HookFault::BadReturn(self.hide(text, event)),
            other => other,
        }
    }
}

/// What the decision log leaves out of an event, whole and in its parts.
fn confided(event: &Event) -> Vec<Cow<'_, str>> {
    match event {
        Event::Register(event) => event.credentials.iter().map(Cow::from).collect(),
        Event::Connect(event) => {
            let parameters = url::form_urlencoded::parse(event.query.as_bytes());
            let secret = |name: &str| !PUBLIC_HEADERS.contains(&name);
            let headers = event.headers.iter().filter(|(name, _)| secret(name));
            let values = headers.flat_map(|(_, value)| {
                // A scheme and a token; cookies; a list.
                let parts = value.split([' ', ',', ';', '=']).filter(|part| part.len() > SHORTEST);
                parts.chain([value.as_str()]).map(Cow::from)
            });
            let query = Cow::from(event.query.as_str());
            parameters.map(|(_, value)| value).chain(values).chain([query]).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conexus_plugin_api::host::Connect;
    use serde_json::json;

    use super::*;
    use crate::config::HookSource;

    fn table(value: Value) -> Map<String, Value> {
        let Value::Object(table) = value else { panic!("no table") };
        table
    }

    #[test]
    fn the_secrets_of_a_configuration_are_hidden_at_any_depth_and_nothing_else_is() {
        let mut hook = HookSettings::new(HookSource::Script("x".into()));
        hook.config = table(json!({
            "key": "hunter2", "deep": [{ "key": "two\n\"lines\"" }], "url": "https://a.example", "n": 7
        }));
        hook.shown_config = table(json!({
            "key": "<secret>", "deep": [{ "key": "<secret>" }], "url": "https://a.example", "n": 7
        }));
        let secrets = Secrets::of(&hook);
        let said = r#"no number: "hunter2", "two\n\"lines\"" at https://a.example"#;
        assert_eq!(
            secrets.hide(said.into(), None),
            r#"no number: "<redacted>", "<redacted>" at https://a.example"#
        );
    }

    #[test]
    fn what_stands_in_place_of_a_secret_is_not_taken_for_one() {
        let query = format!("a=line{}", "&a=reda&a=cted&a=acte".repeat(100));
        let event = Event::Connect(Arc::new(Connect {
            address: ([127, 0, 0, 1], 1).into(),
            path: "/ws".into(),
            query,
            headers: Vec::new(),
            tls: None,
            connection: None,
        }));
        let hidden = Secrets::default().hide("line 7, line 9".into(), Some(&event));
        assert_eq!(hidden, "<redacted> 7, <redacted> 9");
        let long = Secrets::default().hide("line".repeat(1 << 20), Some(&event));
        assert!(long.len() <= LONGEST / "line".len() * REDACTED.len(), "{}", long.len());
    }

    #[test]
    fn what_a_connection_brings_for_policy_is_hidden_whole_and_in_parts() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let event = Event::Connect(Arc::new(Connect {
            address: ([127, 0, 0, 1], 1).into(),
            path: "/ws".into(),
            query: "token=open%20sesame".into(),
            headers: vec![
                pair("authorization", "Bearer hunter2"),
                pair("cookie", "sid=crumbs; a=b"),
                pair("host", "gateway.example"),
            ],
            tls: None,
            connection: None,
        }));
        for (said, left) in [
            ("hunter2 at gateway.example", "<redacted> at gateway.example"),
            ("Bearer hunter2", "<redacted>"),
            ("crumbs", "<redacted>"),
            ("open sesame", "<redacted>"),
            ("open%20sesame", "open%20sesame"),
            ("token=open%20sesame", "<redacted>"),
            ("a or b", "a or b"),
        ] {
            assert_eq!(Secrets::default().hide(said.into(), Some(&event)), left);
        }
    }
}
