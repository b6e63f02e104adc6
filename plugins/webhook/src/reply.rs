//! What the service answered, as verdicts.

use std::{collections::BTreeMap, time::Duration};

use conexus_plugin_api::{Answer, DenyCode, Metadata, Point, Set, Verdict};
use serde::Deserialize;

/// The JSON of an answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    verdict: Kind,
    code: Option<DenyCode>,
    reason: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    rate_class: Option<String>,
    metadata: Option<Metadata>,
    extend_ms: Option<u64>,
    redirect: Option<String>,
    #[serde(default)]
    copy: Vec<String>,
    hold_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Continue,
    Allow,
    Deny,
}

/// Reads an answer; all of it must have a meaning at this point.
pub(crate) fn read(body: &[u8], point: Point) -> Result<Answer, String> {
    let reply: Reply = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let (kind, denial) = (reply.verdict, reply.code.is_some() || reply.reason.is_some());
    if denial && kind != Kind::Deny {
        return Err("`code` and `reason` go with `deny` alone".into());
    }
    let Reply { code, reason, .. } = &reply;
    let (code, reason) = (code.unwrap_or_default(), reason.clone().unwrap_or_default());
    let mut verdicts = reply.effects();
    match kind {
        Kind::Continue => {}
        Kind::Allow => verdicts.push(Verdict::Allow),
        Kind::Deny if verdicts.is_empty() => verdicts.push(Verdict::Deny { code, reason }),
        Kind::Deny => return Err("a denial has no effects".into()),
    }
    if let Some(verdict) = verdicts.iter().find(|verdict| !verdict.is_allowed_at(point)) {
        return Err(format!("{} has no meaning at {point}", verdict.name()));
    }
    Ok(verdicts.into())
}

impl Reply {
    fn effects(self) -> Vec<Verdict> {
        let Self { labels, rate_class, metadata, .. } = self;
        let set = Set { labels, rate_class, metadata };
        let set = (set != Set::default()).then_some(Verdict::Set(set));
        let extend = self.extend_ms.map(Duration::from_millis).map(Verdict::Extend);
        let redirect = self.redirect.map(Verdict::Redirect);
        let hold = self.hold_ms.map(Duration::from_millis).map(Verdict::Hold);
        let copies = self.copy.into_iter().map(Verdict::Copy);
        set.into_iter().chain(extend).chain(redirect).chain(hold).chain(copies).collect()
    }
}

#[cfg(test)]
mod tests {
    use conexus_plugin_api::{CONTINUE, allow, copy, deny, extend, hold, redirect, set};

    use super::*;

    #[test]
    fn answers_become_verdicts() {
        let second = Duration::from_secs(1);
        for (point, body, expected) in [
            (Point::Route, r#"{"verdict":"continue"}"#, CONTINUE),
            (Point::Register, r#"{"verdict":"allow"}"#, allow()),
            (Point::Route, r#"{"verdict":"deny"}"#, deny(DenyCode::Denied, "")),
            (
                Point::Route,
                r#"{"verdict":"deny","code":"rate_limited","reason":"slow down"}"#,
                deny(DenyCode::RateLimited, "slow down"),
            ),
            (
                Point::Register,
                r#"{"verdict":"allow","labels":{"a":"b"},"rate_class":"c","extend_ms":1000}"#,
                Answer::from(set().label("a", "b").rate_class("c"))
                    .and(extend(second))
                    .and(allow()),
            ),
            (
                Point::Route,
                r#"{"verdict":"continue","redirect":"did:a","copy":["did:b"],"hold_ms":1000}"#,
                redirect("did:a").and(hold(second)).and(copy("did:b")),
            ),
        ] {
            assert_eq!(read(body.as_bytes(), point), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_has_no_meaning_is_a_failure() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "allow",
            r#""allow""#,
            r#"{"verdict":"maybe"}"#,
            r#"{"verdict":"Allow"}"#,
            r#"{"verdict":"allow","reason":"x"}"#,
            r#"{"verdict":"deny","code":"policy_error"}"#,
            r#"{"verdict":"deny","redirect":"did:a"}"#,
            r#"{"verdict":"allow","label":{}}"#,
            r#"{"verdict":"allow","labels":{"a":1}}"#,
            r#"{"verdict":"allow","labels":{"a":"b"}}"#,
            r#"{"verdict":"allow","extend_ms":1}"#,
            r#"{"verdict":"allow","hold_ms":-1}"#,
            r#"{"verdict":"allow"} x"#,
        ] {
            assert!(read(body.as_bytes(), Point::Route).is_err(), "{body}");
        }
        assert!(read(br#"{"verdict":"allow","redirect":"did:a"}"#, Point::Register).is_err());
    }
}
