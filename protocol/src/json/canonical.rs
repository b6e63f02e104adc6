//! Canonical JSON: the one text of a value, over which signatures are made.
//!
//! Written as the text is read. An object whose members were out of order is put in order when
//! it ends, by moving what is already written; nothing else is kept. `envelope` verifies over
//! it, `draft` signs it.

use super::scan::{Key, Scalar, Visitor, scan};
use super::{JsonError, Kind, Limits, number, string};

/// Canonical JSON of any JSON text (protocol, part 1): members sorted by code point, no white
/// space, everything outside U+0020 to U+007E escaped, numbers as Python prints them.
///
/// # Errors
/// [`JsonError`] for what is not JSON, or beyond the protocol's limits.
///
/// ```
/// let canonical = conexus_protocol::canonicalize(r#"{ "b": 1e2, "a": "é" }"#)?;
/// assert_eq!(canonical, r#"{"a":"\u00e9","b":100.0}"#);
/// # Ok::<(), conexus_protocol::JsonError>(())
/// ```
pub fn canonicalize(text: &str) -> Result<String, JsonError> {
    write(text, Limits::Enforced)
}

/// Canonical JSON of a text that our own serializer wrote, without limits.
pub(crate) fn canonicalize_own(text: &str) -> String {
    write(text, Limits::Lifted).expect("serde_json writes JSON")
}

fn write(text: &str, limits: Limits) -> Result<String, JsonError> {
    let mut writer = Writer {
        out: String::with_capacity(text.len()),
        open: vec![],
        members: vec![],
        after_key: false,
    };
    scan(text, limits, &mut writer)?;
    Ok(writer.out)
}

struct Writer {
    out: String,
    open: Vec<Open>,
    /// Where each member of every open object starts in `out`, outermost object first.
    members: Vec<usize>,
    /// Whether a member's name was written last, so that its value needs no comma.
    after_key: bool,
}

struct Open {
    kind: Kind,
    /// Where its members start in `members`.
    first_member: usize,
    empty: bool,
}

impl Writer {
    /// Separates what comes from what was written before it.
    fn separate(&mut self) {
        if std::mem::take(&mut self.after_key) {
            return;
        }
        if let Some(open) = self.open.last_mut()
            && !std::mem::take(&mut open.empty)
        {
            self.out.push(',');
        }
    }

    /// Puts an object's members, the last that were written, in the order of `keys`.
    fn reorder(&mut self, first_member: usize, keys: &[Key<'_>]) {
        let starts = &self.members[first_member..];
        let Some(&base) = starts.first() else { return };
        let written = self.out.split_off(base);
        let end_of = |ordinal: usize| match starts.get(ordinal + 1) {
            Some(next) => next - base - 1, // without the comma
            None => written.len(),
        };
        for (position, key) in keys.iter().enumerate() {
            if position > 0 {
                self.out.push(',');
            }
            self.out.push_str(&written[starts[key.ordinal] - base..end_of(key.ordinal)]);
        }
    }
}

impl<'t> Visitor<'t> for Writer {
    fn open(&mut self, kind: Kind, _: usize) {
        self.separate();
        self.out.push(if kind == Kind::Object { '{' } else { '[' });
        self.open.push(Open { kind, first_member: self.members.len(), empty: true });
    }

    fn key(&mut self, key: &Key<'t>) {
        self.separate();
        self.members.push(self.out.len());
        string::write(&mut self.out, &key.name);
        self.out.push(':');
        self.after_key = true;
    }

    fn scalar(&mut self, scalar: Scalar<'t>) {
        self.separate();
        match scalar.kind {
            _ if scalar.canonical => self.out.push_str(scalar.text),
            Kind::String => string::write(&mut self.out, &string::decode(scalar.text)),
            kind => number::write(&mut self.out, scalar.text, kind),
        }
    }

    fn close(&mut self, _: usize, keys: &[Key<'t>]) {
        let Some(open) = self.open.pop() else { return };
        if keys.iter().enumerate().any(|(position, key)| position != key.ordinal) {
            self.reorder(open.first_member, keys);
        }
        self.members.truncate(open.first_member);
        self.out.push(if open.kind == Kind::Object { '}' } else { ']' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sorted_at_every_level() {
        assert_eq!(
            canonicalize(r#"{"b":[{"d":1,"c":{"z":[],"y":{}}}],"a":{"y":0,"x":null}, "":-0}"#),
            Ok(r#"{"":0,"a":{"x":null,"y":0},"b":[{"c":{"y":{},"z":[]},"d":1}]}"#.to_owned())
        );
    }

    #[test]
    fn members_are_sorted_by_what_their_names_say() {
        assert_eq!(
            canonicalize(r#"{"\ue000":1,"\ud7ff":2,"\ud800\udc00":3,"\u0061":4,"B":5}"#),
            Ok(r#"{"B":5,"a":4,"\ud7ff":2,"\ue000":1,"\ud800\udc00":3}"#.to_owned())
        );
    }

    #[test]
    fn our_own_text_has_no_limits() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        assert!(canonicalize(&deep).is_err());
        assert_eq!(canonicalize_own(&deep), deep);
    }
}
