//! What a plugin hands in, checked and copied.

use std::{collections::BTreeMap, time::Duration};

use crate::{Answer, DenyCode, Metadata, Set, Verdict, abi::types as raw};

/// The verdicts of a list. `Err` says what is wrong with them.
///
/// # Safety
/// Pointers that are neither null nor misaligned lead to what they say.
pub(super) unsafe fn answer(verdicts: raw::List<raw::Verdict>) -> Result<Answer, String> {
    // SAFETY: the caller's promise.
    let verdicts = unsafe { verdicts.items() }.ok_or("the list of verdicts is not valid")?;
    // SAFETY: the caller's promise.
    let verdict = |verdict| unsafe { self::verdict(verdict) };
    verdicts.iter().map(verdict).collect::<Result<Vec<_>, _>>().map(Answer::from)
}

unsafe fn verdict(verdict: &raw::Verdict) -> Result<Verdict, String> {
    // SAFETY: the caller's promise.
    let text = |what| unsafe { text(verdict.text, what) };
    let time = Duration::from_nanos(verdict.nanos);
    Ok(match verdict.kind {
        raw::VERDICT_ALLOW => Verdict::Allow,
        raw::VERDICT_DENY => {
            let code = usize::try_from(verdict.code).ok();
            let code = code.and_then(|code| DenyCode::ALL.get(code).copied());
            let code =
                code.ok_or_else(|| format!("there is no denial of code {}", verdict.code))?;
            Verdict::Deny { code, reason: text("reason of a denial")? }
        }
        raw::VERDICT_REDIRECT => Verdict::Redirect(text("target of a redirect")?),
        raw::VERDICT_COPY => Verdict::Copy(text("target of a copy")?),
        raw::VERDICT_HOLD => Verdict::Hold(time),
        raw::VERDICT_EXTEND => Verdict::Extend(time),
        // SAFETY: the caller's promise.
        raw::VERDICT_SET => Verdict::Set(unsafe { set(verdict.set) }?),
        kind => return Err(format!("there is no verdict of kind {kind}")),
    })
}

unsafe fn set(set: *const raw::Set) -> Result<Set, String> {
    // SAFETY: the caller's promise.
    let set = unsafe { checked(set) }.ok_or("a set points to nothing")?;
    // SAFETY: the caller's promise.
    unsafe {
        Ok(Set {
            labels: pairs(set.labels, "labels")?,
            rate_class: maybe_text(set.rate_class, "rate class")?,
            metadata: match set.metadata.is_null() {
                true => None,
                false => Some(metadata(set.metadata)?),
            },
        })
    }
}

unsafe fn metadata(metadata: *const raw::Metadata) -> Result<Metadata, String> {
    // SAFETY: the caller's promise.
    unsafe {
        let metadata = checked(metadata).ok_or("metadata is misaligned")?;
        let capabilities = metadata.capabilities.items().ok_or("capabilities are not valid")?;
        let capability = |slice: &raw::Slice| text(*slice, "capability");
        Ok(Metadata {
            name: maybe_text(metadata.name, "name")?,
            capabilities: capabilities.iter().map(capability).collect::<Result<_, _>>()?,
            attributes: pairs(metadata.attributes, "attributes")?,
        })
    }
}

unsafe fn pairs(
    list: raw::List<raw::Pair>,
    what: &str,
) -> Result<BTreeMap<String, String>, String> {
    // SAFETY: the caller's promise.
    let pairs =
        unsafe { list.items() }.ok_or_else(|| format!("the list of {what} is not valid"))?;
    // SAFETY: the caller's promise.
    let pair = |pair: &raw::Pair| unsafe { Ok((text(pair.name, what)?, text(pair.value, what)?)) };
    pairs.iter().map(pair).collect()
}

/// What a pointer leads to, unless it is null or misaligned.
pub(super) unsafe fn checked<'a, T>(pointer: *const T) -> Option<&'a T> {
    if !pointer.is_aligned() {
        return None;
    }
    // SAFETY: aligned; null gives none; the rest is the caller's promise.
    unsafe { pointer.as_ref() }
}

unsafe fn text(slice: raw::Slice, what: &str) -> Result<String, String> {
    // SAFETY: the caller's promise.
    let text = unsafe { slice.text() };
    text.map(String::from).ok_or_else(|| format!("the {what} is no text"))
}

unsafe fn maybe_text(slice: raw::Slice, what: &str) -> Result<Option<String>, String> {
    // SAFETY: the caller's promise.
    if slice.data.is_null() { Ok(None) } else { unsafe { text(slice, what) }.map(Some) }
}

/// A message of a failing plugin: something is said in any case, and no more than is read.
///
/// # Safety
/// As for [`raw::Slice::bytes`].
pub(super) unsafe fn message(slice: raw::Slice) -> String {
    const LONGEST: usize = 4096;
    // SAFETY: the caller's promise.
    let Some(bytes) = (unsafe { slice.bytes() }) else { return "it says nothing".into() };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]);
    if bytes.len() > LONGEST { format!("{text}…") } else { text.into_owned() }
}
