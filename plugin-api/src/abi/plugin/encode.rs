//! Answers and errors, as they cross.

use crate::{Answer, DenyCode, Metadata, Verdict, abi::types as raw};

/// Lends a view of the verdicts.
pub(super) fn with_raw<T>(answer: &Answer, lend: impl FnOnce(raw::List<raw::Verdict>) -> T) -> T {
    let sets: Vec<_> = answer.verdicts().iter().filter_map(set_parts).collect();
    let metadata: Vec<_> = sets.iter().map(SetParts::metadata).collect();
    let sets: Vec<_> =
        sets.iter().zip(&metadata).map(|(parts, metadata)| parts.view(metadata.as_ref())).collect();
    let mut next_set = sets.iter();
    let view = |verdict| view(verdict, &mut next_set);
    // The most frequent answer is one verdict: it takes no memory.
    if let [verdict] = answer.verdicts() {
        let mut view = view;
        return lend(raw::List::of(&[view(verdict)]));
    }
    let verdicts: Vec<_> = answer.verdicts().iter().map(view).collect();
    lend(raw::List::of(&verdicts))
}

fn view<'a>(verdict: &Verdict, sets: &mut impl Iterator<Item = &'a raw::Set>) -> raw::Verdict {
    let plain = raw::Verdict {
        kind: raw::VERDICT_ALLOW,
        code: 0,
        text: raw::Slice::NONE,
        nanos: 0,
        set: std::ptr::null(),
    };
    let did = |kind, did: &str| raw::Verdict { kind, text: slice(did), ..plain };
    let timed = |kind, time| raw::Verdict { kind, nanos: raw::nanos(time), ..plain };
    match verdict {
        Verdict::Allow => plain,
        Verdict::Deny { code, reason } => raw::Verdict {
            kind: raw::VERDICT_DENY,
            code: deny_code(*code),
            text: slice(reason),
            ..plain
        },
        Verdict::Redirect(to) => did(raw::VERDICT_REDIRECT, to),
        Verdict::Copy(to) => did(raw::VERDICT_COPY, to),
        Verdict::Hold(time) => timed(raw::VERDICT_HOLD, *time),
        Verdict::Extend(time) => timed(raw::VERDICT_EXTEND, *time),
        Verdict::Set(_) => {
            let set = sets.next().map_or(std::ptr::null(), std::ptr::from_ref);
            raw::Verdict { kind: raw::VERDICT_SET, set, ..plain }
        }
    }
}

fn deny_code(code: DenyCode) -> u32 {
    let index = DenyCode::ALL.iter().position(|known| *known == code).unwrap_or_default();
    u32::try_from(index).unwrap_or_default()
}

/// What a `set` points to, kept while it is lent.
struct SetParts<'a> {
    labels: Vec<raw::Pair>,
    rate_class: Option<&'a str>,
    shown: Option<(&'a Metadata, Vec<raw::Slice>, Vec<raw::Pair>)>,
}

fn set_parts(verdict: &Verdict) -> Option<SetParts<'_>> {
    let Verdict::Set(set) = verdict else { return None };
    Some(SetParts {
        labels: pairs(&set.labels),
        rate_class: set.rate_class.as_deref(),
        shown: set.metadata.as_ref().map(|metadata| {
            let capabilities = metadata.capabilities.iter().map(|name| slice(name)).collect();
            (metadata, capabilities, pairs(&metadata.attributes))
        }),
    })
}

impl SetParts<'_> {
    fn metadata(&self) -> Option<raw::Metadata> {
        let (metadata, capabilities, attributes) = self.shown.as_ref()?;
        Some(raw::Metadata {
            name: raw::Slice::maybe(metadata.name.as_deref()),
            capabilities: raw::List::of(capabilities),
            attributes: raw::List::of(attributes),
        })
    }

    fn view(&self, metadata: Option<&raw::Metadata>) -> raw::Set {
        raw::Set {
            labels: raw::List::of(&self.labels),
            rate_class: raw::Slice::maybe(self.rate_class),
            metadata: metadata.map_or(std::ptr::null(), std::ptr::from_ref),
        }
    }
}

fn pairs<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<raw::Pair> {
    let pair =
        |(name, value): (&String, &String)| raw::Pair { name: slice(name), value: slice(value) };
    map.into_iter().map(pair).collect()
}

const fn slice(text: &str) -> raw::Slice {
    raw::Slice::of(text.as_bytes())
}

/// An error with what caused it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // A cycle of causes is no reason to hang.
    for _ in 0..16 {
        let Some(error) = cause else { break };
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
