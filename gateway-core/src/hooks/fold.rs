//! Folding: what several hooks answered, in their order, becomes one ruling.
//!
//! A later redirect, hold, extension or label replaces an earlier one; `allow` ends the chain,
//! `deny` ends it and discards what was collected. An answer is taken whole or, if any part of it
//! has no meaning there, not at all.

use std::{collections::BTreeMap, time::Duration};

use conexus_plugin_api::{Answer, DenyCode, MAX_COPIES, Point, Set, Verdict};
use conexus_protocol::{AgentKey, Metadata, RefusalReason};

use super::{
    hook::HookFault,
    judge::{Admission, Denial, Fallback, Passage, Way},
};
use crate::config::{RateClass, Settings};

/// The longest text of a denial, in characters.
const MAX_DENIAL_CHARS: usize = 256;
/// Labels of one agent.
const MAX_LABELS: usize = 64;
/// Bytes of a label's name and value together.
const MAX_LABEL_BYTES: usize = 1024;

/// What a verdict is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    rate_classes: BTreeMap<String, RateClass>,
    metadata_bytes: usize,
}

impl Terms {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            rate_classes: settings.policies.rate_classes.clone(),
            metadata_bytes: settings.limits.metadata_bytes,
        }
    }
}

/// What has been collected so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fold {
    way: Way,
    copies: Vec<AgentKey>,
    lease: Option<Duration>,
    labels: BTreeMap<String, String>,
    rate_class: Option<(String, RateClass)>,
    metadata: Option<Metadata>,
    denied: Option<Denial>,
}

/// Whether the chain goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    End,
}

/// A verdict whose parts were checked.
enum Checked {
    Allow,
    Deny(Denial),
    Way(Way),
    Copy(AgentKey),
    Lease(Duration),
    Set {
        labels: BTreeMap<String, String>,
        rate_class: Option<(String, RateClass)>,
        metadata: Option<Metadata>,
    },
}

impl Fold {
    /// Takes one hook's answer.
    ///
    /// # Errors
    /// [`HookFault::BadReturn`]; then nothing of it was taken.
    pub(crate) fn take(
        &mut self,
        point: Point,
        answer: &Answer,
        terms: &Terms,
    ) -> Result<Flow, HookFault> {
        if answer.is_continue() {
            return Ok(Flow::Next);
        }
        let checked = self.check(point, answer, terms).map_err(HookFault::BadReturn)?;
        for verdict in checked {
            match verdict {
                Checked::Allow => return Ok(Flow::End),
                Checked::Deny(denial) => {
                    self.deny(denial);
                    return Ok(Flow::End);
                }
                Checked::Way(way) => self.way = way,
                Checked::Copy(key) => self.copies.push(key),
                Checked::Lease(lease) => self.lease = Some(lease),
                Checked::Set { labels, rate_class, metadata } => {
                    self.labels.extend(labels);
                    self.rate_class = rate_class.or(self.rate_class.take());
                    self.metadata = metadata.or(self.metadata.take());
                }
            }
        }
        Ok(Flow::Next)
    }

    /// Refuses, and discards what was collected.
    pub(crate) fn deny(&mut self, denial: Denial) {
        *self = Self { denied: Some(denial), ..Self::default() };
    }

    fn check(&self, point: Point, answer: &Answer, terms: &Terms) -> Result<Vec<Checked>, String> {
        let mut checked = Vec::with_capacity(answer.verdicts().len());
        let (mut copies, mut labels) = (self.copies.len(), self.labels.clone());
        for verdict in answer.verdicts() {
            if !verdict.is_allowed_at(point) {
                return Err(format!("{} has no meaning at {point}", verdict.name()));
            }
            checked.push(match verdict {
                Verdict::Allow => Checked::Allow,
                Verdict::Deny { code, reason } => {
                    Checked::Deny(Denial { reason: reason_of(*code), text: readable(reason) })
                }
                Verdict::Redirect(did) => Checked::Way(Way::Redirect(parse(did, "redirect")?)),
                Verdict::Hold(time) => Checked::Way(Way::Hold(*time)),
                Verdict::Copy(did) => {
                    copies += 1;
                    if copies > MAX_COPIES {
                        return Err(format!("more than {MAX_COPIES} copies of one message"));
                    }
                    Checked::Copy(parse(did, "copy")?)
                }
                Verdict::Extend(lease) => Checked::Lease(*lease),
                Verdict::Set(set) => {
                    labels.extend(set.labels.clone());
                    if labels.len() > MAX_LABELS {
                        return Err(format!("more than {MAX_LABELS} labels of one agent"));
                    }
                    check_set(set, terms)?
                }
                _ => return Err(format!("{} is not known here", verdict.name())),
            });
        }
        Ok(checked)
    }

    pub(crate) fn into_admission(self) -> Result<Admission, Denial> {
        match self.denied {
            Some(denial) => Err(denial),
            None => Ok(Admission {
                labels: self.labels,
                lease: self.lease,
                rate_class: self.rate_class,
                metadata: self.metadata,
            }),
        }
    }

    pub(crate) fn into_passage(self) -> Result<Passage, Denial> {
        match self.denied {
            Some(denial) => Err(denial),
            None => Ok(Passage { way: self.way, copies: self.copies }),
        }
    }

    pub(crate) fn into_fallback(self) -> Result<Fallback, Denial> {
        match self.denied {
            Some(denial) => Err(denial),
            None => Ok(match self.way {
                Way::Straight => Fallback::Configured,
                Way::Hold(time) => Fallback::Hold(time),
                Way::Redirect(key) => Fallback::Redirect(key),
            }),
        }
    }

    pub(crate) fn into_permission(self) -> Result<(), Denial> {
        self.denied.map_or(Ok(()), Err)
    }

    /// Whether nothing was decided that is not the protocol's own way.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn into_lease(self) -> Option<Duration> {
        self.lease
    }

    /// In few words, for the decision log: two folds that say the same mean the same.
    pub(crate) fn summary(&self, point: Point) -> String {
        if let Some(Denial { reason, text }) = &self.denied {
            let text = if text.is_empty() { String::new() } else { format!(" {text:?}") };
            return format!("deny {}{text}", reason.as_str());
        }
        let mut parts = Vec::new();
        match self.way {
            Way::Straight => {}
            Way::Redirect(key) => parts.push(format!("redirect {}", key.did())),
            Way::Hold(time) => parts.push(format!("hold {time:?}")),
        }
        parts.extend(self.copies.iter().map(|key| format!("copy {}", key.did())));
        if let Some(lease) = self.lease {
            parts.push(format!("extend {lease:?}"));
        }
        parts.extend(self.labels.iter().map(|(name, value)| format!("label {name}={value:?}")));
        parts.extend(self.rate_class.iter().map(|(class, _)| format!("rate_class {class}")));
        if let Some(metadata) = &self.metadata {
            parts.push(format!("metadata {}", serde_json::json!(metadata)));
        }
        match (parts.is_empty(), point) {
            (false, _) => parts.join(", "),
            (true, Point::Expire) => "let go".into(),
            (true, _) => "pass".into(),
        }
    }
}

const fn reason_of(code: DenyCode) -> RefusalReason {
    match code {
        DenyCode::RateLimited => RefusalReason::RateLimited,
        DenyCode::UnknownAgent => RefusalReason::UnknownAgent,
        DenyCode::NotRelayed => RefusalReason::NotRelayed,
        _ => RefusalReason::Denied,
    }
}

/// Hooks may put anything in there; it goes into logs and to people.
fn readable(text: &str) -> Box<str> {
    text.chars().filter(|c| !c.is_control()).take(MAX_DENIAL_CHARS).collect::<String>().into()
}

fn parse(did: &str, verdict: &str) -> Result<AgentKey, String> {
    AgentKey::parse_did(did).map_err(|error| {
        let shown: String = did.chars().take(64).collect();
        format!("{verdict} to {shown:?}: {error}")
    })
}

fn check_set(set: &Set, terms: &Terms) -> Result<Checked, String> {
    for (name, value) in &set.labels {
        if name.is_empty() || name.len() + value.len() > MAX_LABEL_BYTES {
            return Err(format!("a label needs a name and at most {MAX_LABEL_BYTES} bytes"));
        }
    }
    let rate_class = match &set.rate_class {
        None => None,
        Some(class) => match terms.rate_classes.get(class) {
            Some(rates) => Some((class.clone(), *rates)),
            None => return Err(format!("there is no rate_class.{class}")),
        },
    };
    let metadata = set.metadata.as_ref().map(|metadata| Metadata {
        name: metadata.name.clone(),
        capabilities: metadata.capabilities.clone(),
        attributes: metadata.attributes.clone(),
    });
    if metadata.as_ref().is_some_and(|metadata| metadata.json_len() > terms.metadata_bytes) {
        return Err("metadata is over limits.metadata_bytes".into());
    }
    Ok(Checked::Set { labels: set.labels.clone(), rate_class, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms { rate_classes: [("gold".into(), RateClass::default())].into(), metadata_bytes: 64 }
    }

    fn did(byte: u8) -> String {
        AgentKey::from_bytes([byte; 32]).did()
    }

    fn key(byte: u8) -> AgentKey {
        AgentKey::from_bytes([byte; 32])
    }

    fn fold(point: Point, answers: &[Answer]) -> Result<Fold, HookFault> {
        let mut fold = Fold::default();
        for answer in answers {
            if fold.take(point, answer, &terms())? == Flow::End {
                break;
            }
        }
        Ok(fold)
    }

    fn deny() -> Verdict {
        Verdict::Deny { code: DenyCode::RateLimited, reason: "too\nfast".into() }
    }

    #[test]
    fn a_later_way_replaces_an_earlier_one_and_copies_add_up() {
        let answers = [
            Answer::from(Verdict::Redirect(did(1))).and(Verdict::Copy(did(8))),
            Answer::from(Verdict::Copy(did(9))),
            Answer::from(Verdict::Hold(Duration::from_secs(3))),
        ];
        let passage = fold(Point::Route, &answers).unwrap().into_passage().unwrap();
        assert_eq!(passage.way, Way::Hold(Duration::from_secs(3)));
        assert_eq!(passage.copies, [key(8), key(9)]);
    }

    #[test]
    fn a_denial_ends_the_chain_and_discards_what_was_collected() {
        let answers =
            [Answer::from(Verdict::Redirect(did(1))), deny().into(), Verdict::Allow.into()];
        let denial = fold(Point::Route, &answers).unwrap().into_passage().unwrap_err();
        assert_eq!(denial.reason, RefusalReason::RateLimited);
        assert_eq!(&*denial.text, "toofast");
    }

    #[test]
    fn allow_ends_the_chain_and_keeps_what_was_collected() {
        let answers =
            [Answer::from(Verdict::Redirect(did(1))).and(Verdict::Allow), Answer::from(deny())];
        let passage = fold(Point::Route, &answers).unwrap().into_passage().unwrap();
        assert_eq!(passage.way, Way::Redirect(key(1)));
    }

    #[test]
    fn labels_of_several_hooks_are_merged() {
        let set = |name: &str, value: &str, class: Option<&str>| {
            Answer::from(Verdict::Set(Set {
                labels: [(name.to_owned(), value.to_owned())].into(),
                rate_class: class.map(str::to_owned),
                metadata: None,
            }))
        };
        let answers = [
            set("region", "eu", Some("gold")),
            set("region", "us", None),
            set("team", "a", None).and(Verdict::Extend(Duration::from_secs(9))),
        ];
        let admission = fold(Point::Register, &answers).unwrap().into_admission().unwrap();
        let expected = [("region", "us"), ("team", "a")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(admission.labels, BTreeMap::from(expected));
        assert_eq!(admission.rate_class, Some(("gold".into(), RateClass::default())));
        assert_eq!(admission.lease, Some(Duration::from_secs(9)));
    }

    #[test]
    fn a_bad_part_spoils_the_whole_answer_and_nothing_of_it_is_taken() {
        let class = Set { rate_class: Some("silver".into()), ..Set::default() };
        let large = conexus_plugin_api::Metadata {
            name: Some("x".repeat(100)),
            ..conexus_plugin_api::Metadata::default()
        };
        let large = Set { metadata: Some(large), ..Set::default() };
        let copies = (0..9).map(|n| Verdict::Copy(did(n))).collect::<Vec<_>>();
        for (point, answer, fault) in [
            (
                Point::Route,
                Answer::from(Verdict::Set(Set::default())),
                "set has no meaning at on_route",
            ),
            (
                Point::Route,
                Verdict::Redirect("did:web:x".into()).into(),
                "redirect to \"did:web:x\"",
            ),
            (Point::Route, copies.into(), "more than 8 copies"),
            (Point::Register, Verdict::Set(class).into(), "there is no rate_class.silver"),
            (Point::Register, Verdict::Set(large).into(), "metadata is over"),
            (Point::Tick, Verdict::Allow.into(), "allow has no meaning at on_tick"),
        ] {
            let mut fold = Fold::default();
            let Err(HookFault::BadReturn(said)) = fold.take(point, &answer, &terms()) else {
                panic!("taken: {answer:?}");
            };
            assert!(said.starts_with(fault), "{said}");
            assert_eq!(fold, Fold::default());
        }
    }
}
