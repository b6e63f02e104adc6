//! What a hook may answer.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Metadata, Point};

/// The wire reason of a denial: `details.reason` of the ERROR that the agent gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DenyCode {
    /// A policy said no. HTTP 403 at `on_connect`.
    #[default]
    Denied,
    /// Over a rate. HTTP 429 at `on_connect`.
    RateLimited,
    /// As if there were no such agent.
    UnknownAgent,
    /// As if this type of message were not routed.
    NotRelayed,
}

impl DenyCode {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Denied, Self::RateLimited, Self::UnknownAgent, Self::NotRelayed];

    /// As on the wire: `rate_limited`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
            Self::UnknownAgent => "unknown_agent",
            Self::NotRelayed => "not_relayed",
        }
    }

    /// The code of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for DenyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One verdict. A hook answers with any number of them: an [`Answer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Ends the chain; nothing later runs, what was collected so far counts.
    Allow,
    /// Ends the chain and discards every effect collected so far.
    Deny {
        /// What the agent is told as the reason.
        code: DenyCode,
        /// For people: in the log, and as the text of the ERROR. Empty for the usual one.
        reason: String,
    },
    /// The same bytes to another agent, which is not judged again. At on_route and
    /// on_undeliverable.
    Redirect(String),
    /// The same bytes to another agent as well, beside delivery; at most [`MAX_COPIES`]. At
    /// on_route.
    Copy(String),
    /// Into the target's mailbox for this long; a target that is present gets it at once. At
    /// on_route and on_undeliverable.
    Hold(Duration),
    /// At on_register the first lease, at on_expire a new one, of this length, capped by
    /// `presence.max_extension`.
    Extend(Duration),
    /// What the gateway knows and shows about the agent. At on_register.
    Set(Set),
}

/// How many copies one message may have.
pub const MAX_COPIES: usize = 8;

impl Verdict {
    /// Whether it has a meaning at this point.
    #[must_use]
    pub const fn is_allowed_at(&self, point: Point) -> bool {
        match self {
            Self::Allow | Self::Deny { .. } => point.is_verdict(),
            Self::Redirect(_) | Self::Hold(_) => {
                matches!(point, Point::Route | Point::Undeliverable)
            }
            Self::Copy(_) => matches!(point, Point::Route),
            Self::Extend(_) => matches!(point, Point::Register | Point::Expire),
            Self::Set(_) => matches!(point, Point::Register),
        }
    }

    /// Its name in configuration, scripts, logs and metrics: `redirect`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny { .. } => "deny",
            Self::Redirect(_) => "redirect",
            Self::Copy(_) => "copy",
            Self::Hold(_) => "hold",
            Self::Extend(_) => "extend",
            Self::Set(_) => "set",
        }
    }
}

/// What on_register may set: only what the agent did not sign.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Set {
    /// Added to the agent's labels; a later value of a name replaces an earlier one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The class of rate limits that the agent belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_class: Option<String>,
    /// Shown in place of what the agent published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

impl Set {
    /// With a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// With a class of rate limits.
    #[must_use]
    pub fn rate_class(mut self, class: impl Into<String>) -> Self {
        self.rate_class = Some(class.into());
        self
    }

    /// With other metadata to show.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }
}

/// `continue`: the next hook decides.
pub const CONTINUE: Answer = Answer::CONTINUE;

/// Ends the chain: nothing later runs, what was collected so far counts.
#[must_use]
pub fn allow() -> Answer {
    Verdict::Allow.into()
}

/// Ends the chain and discards every effect collected so far. The reason is for people; an empty
/// one stands for the usual words.
#[must_use]
pub fn deny(code: DenyCode, reason: impl Into<String>) -> Answer {
    Verdict::Deny { code, reason: reason.into() }.into()
}

/// The same bytes to another agent instead. At on_route and on_undeliverable.
#[must_use]
pub fn redirect(did: impl Into<String>) -> Answer {
    Verdict::Redirect(did.into()).into()
}

/// The same bytes to another agent as well; at most [`MAX_COPIES`]. At on_route.
#[must_use]
pub fn copy(did: impl Into<String>) -> Answer {
    Verdict::Copy(did.into()).into()
}

/// Into the target's mailbox for this long. At on_route and on_undeliverable.
#[must_use]
pub fn hold(time: Duration) -> Answer {
    Verdict::Hold(time).into()
}

/// A lease of this length. At on_register and on_expire.
#[must_use]
pub fn extend(time: Duration) -> Answer {
    Verdict::Extend(time).into()
}

/// Begins what on_register may set: `set().label("tier", "gold").into()`.
#[must_use]
pub fn set() -> Set {
    Set::default()
}

/// What a hook answered: nothing at all means `continue`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answer(Vec<Verdict>);

impl Answer {
    /// The next hook, if there is one.
    pub const CONTINUE: Self = Self(Vec::new());

    /// With more verdicts, behind the ones that are there.
    #[must_use]
    pub fn and(mut self, more: impl Into<Self>) -> Self {
        self.0.append(&mut more.into().0);
        self
    }

    /// The verdicts in order.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.0
    }

    /// The verdicts in order.
    #[must_use]
    pub fn into_verdicts(self) -> Vec<Verdict> {
        self.0
    }

    /// Whether it says nothing but `continue`.
    #[must_use]
    pub const fn is_continue(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self(vec![verdict])
    }
}

impl From<Set> for Answer {
    fn from(set: Set) -> Self {
        Verdict::Set(set).into()
    }
}

impl From<Vec<Verdict>> for Answer {
    fn from(verdicts: Vec<Verdict>) -> Self {
        Self(verdicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_allowed_where_the_design_says() {
        let deny = Verdict::Deny { code: DenyCode::Denied, reason: String::new() };
        for point in Point::ALL.iter().copied() {
            let at = |points: &[Point]| points.contains(&point);
            assert_eq!(Verdict::Allow.is_allowed_at(point), point.is_verdict());
            assert_eq!(deny.is_allowed_at(point), point.is_verdict());
            let routed = at(&[Point::Route, Point::Undeliverable]);
            assert_eq!(Verdict::Redirect("x".into()).is_allowed_at(point), routed);
            assert_eq!(Verdict::Hold(Duration::ZERO).is_allowed_at(point), routed);
            assert_eq!(Verdict::Copy("x".into()).is_allowed_at(point), at(&[Point::Route]));
            let leased = at(&[Point::Register, Point::Expire]);
            assert_eq!(Verdict::Extend(Duration::ZERO).is_allowed_at(point), leased);
            let set = Verdict::Set(Set::default());
            assert_eq!(set.is_allowed_at(point), at(&[Point::Register]));
        }
    }

    #[test]
    fn an_answer_survives_json() {
        let answer = Answer::CONTINUE
            .and(Verdict::Extend(Duration::from_millis(1500)))
            .and(Verdict::Deny { code: DenyCode::RateLimited, reason: "slow down".into() });
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
    }
}
