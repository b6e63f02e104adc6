//! Where the members of an envelope and of its payload are.
//!
//! Two levels are all that the schema looks at; deeper values are the business of whoever reads
//! the payload. `envelope` runs this over every message.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::Kind;
use super::scan::{Key, Scalar, Visitor};
use super::string;

/// The member of the envelope whose own members are remembered.
const PAYLOAD: &str = "payload";

/// A member of an object.
pub(crate) struct Member<'t> {
    /// Its name, decoded.
    pub(crate) name: Cow<'t, str>,
    /// From the opening quote of its name to the end of its value.
    pub(crate) span: Range<usize>,
    /// Its value.
    pub(crate) value: Range<usize>,
    /// What its value is.
    pub(crate) kind: Kind,
    /// Whether it is a string with escapes to decode.
    escaped: bool,
}

impl Member<'_> {
    /// Whether its value has not been read to its end: no value is empty.
    fn is_open(&self) -> bool {
        self.value.is_empty()
    }

    /// The value, decoded, where it is a string. `text` is what was indexed.
    pub(crate) fn string<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        let literal = &text[self.value.clone()];
        match (self.kind, self.escaped) {
            (Kind::String, true) => Some(string::decode(literal)),
            (Kind::String, false) => Some(Cow::Borrowed(&literal[1..literal.len() - 1])),
            _ => None,
        }
    }
}

/// What [`super::scan`] found.
#[derive(Default)]
pub(crate) struct Index<'t> {
    /// What the whole text is; none until something was read.
    pub(crate) root: Option<Kind>,
    /// The members of the text, where it is an object.
    pub(crate) members: SmallVec<[Member<'t>; 12]>,
    /// The members of its `payload`, where that is an object.
    pub(crate) payload: SmallVec<[Member<'t>; 4]>,
    depth: usize,
}

impl<'t> Index<'t> {
    /// The path of the member at which reading stopped: `to`, `payload.sdp`; none outside of them.
    pub(crate) fn stopped_in(&self) -> Option<String> {
        let member = self.members.last().filter(|member| self.depth > 0 && member.is_open())?;
        match self.payload.last() {
            Some(inner) if self.in_payload() && self.depth > 1 && inner.is_open() => {
                Some(format!("{PAYLOAD}.{}", inner.name))
            }
            _ => Some(member.name.clone().into_owned()),
        }
    }

    /// The path of a member of the object that reading stopped in, as far as paths go.
    pub(crate) fn path_of(&self, name: &str) -> Option<String> {
        match self.depth {
            1 => Some(name.to_owned()),
            2 if self.in_payload() => Some(format!("{PAYLOAD}.{name}")),
            _ => self.stopped_in(),
        }
    }

    fn in_payload(&self) -> bool {
        self.members.last().is_some_and(|m| m.name == PAYLOAD && m.kind == Kind::Object)
    }

    /// Remembers a member of an object at the current depth, if it is one of the two.
    fn push(&mut self, member: Member<'t>) {
        match self.depth {
            1 => self.members.push(member),
            2 if self.in_payload() => self.payload.push(member),
            _ => {}
        }
    }

    /// The member whose value is being read, if such members are remembered.
    fn current(&mut self) -> Option<&mut Member<'t>> {
        match self.depth {
            1 => self.members.last_mut(),
            2 if self.in_payload() => self.payload.last_mut(),
            _ => None,
        }
    }

    fn begin(&mut self, kind: Kind, at: usize, escaped: bool) {
        if self.depth == 0 {
            self.root = Some(kind);
        }
        if let Some(member) = self.current() {
            member.kind = kind;
            member.value = at..at;
            member.escaped = escaped;
        }
    }

    fn end(&mut self, at: usize) {
        if let Some(member) = self.current() {
            member.value.end = at;
            member.span.end = at;
        }
    }
}

impl<'t> Visitor<'t> for Index<'t> {
    fn open(&mut self, kind: Kind, at: usize) {
        self.begin(kind, at, false);
        self.depth += 1;
    }

    fn key(&mut self, key: &Key<'t>) {
        let (at, name) = (key.at, key.name.clone());
        let kind = Kind::Null;
        self.push(Member { name, span: at..at, value: at..at, kind, escaped: false });
    }

    fn scalar(&mut self, scalar: Scalar<'t>) {
        self.begin(scalar.kind, scalar.span.start, scalar.escaped);
        self.end(scalar.span.end);
    }

    fn close(&mut self, end: usize, _: &[Key<'t>]) {
        self.depth = self.depth.saturating_sub(1);
        self.end(end);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{JsonErrorKind, Limits, scan::scan};
    use super::*;

    fn index(text: &str) -> Index<'_> {
        let mut index = Index::default();
        scan(text, Limits::Enforced, &mut index).unwrap();
        index
    }

    #[test]
    fn members_of_envelope_and_payload_are_found_and_no_others() {
        let text =
            r#"{"a":{"x":1}, "payload" : {"sdp":"s\n","l":[{"y":2}]} ,"b":[{"z":3}],"c":0.5}"#;
        let index = index(text);
        let spans = |members: &[Member<'_>]| -> Vec<String> {
            members.iter().map(|m| text[m.span.clone()].to_owned()).collect()
        };
        assert_eq!(
            spans(&index.members),
            [
                r#""a":{"x":1}"#,
                r#""payload" : {"sdp":"s\n","l":[{"y":2}]}"#,
                r#""b":[{"z":3}]"#,
                r#""c":0.5"#,
            ]
        );
        assert_eq!(spans(&index.payload), [r#""sdp":"s\n""#, r#""l":[{"y":2}]"#]);
        assert_eq!(index.payload[0].string(text).as_deref(), Some("s\n"));
        assert_eq!(index.members[3].kind, Kind::Float);
        assert_eq!(index.root, Some(Kind::Object));
    }

    #[test]
    fn a_payload_that_is_no_object_has_no_members() {
        assert!(index(r#"{"payload":[{"sdp":1}]}"#).payload.is_empty());
        assert!(index(r#"[{"payload":{"sdp":1}}]"#).payload.is_empty());
        assert!(index(r#"{"x":{"payload":{"sdp":1}}}"#).payload.is_empty());
    }

    #[test]
    fn a_fault_is_placed_in_the_member_that_holds_it() {
        for (text, path) in [
            (r#"{"id":"x","timestamp":1e999}"#, Some("timestamp")),
            (r#"{"id":"x","payload":{"a":1,"args":{"b":[1e999]}}}"#, Some("payload.args")),
            (r#"{"payload":{"a":1},"z":[1e999]}"#, Some("z")),
            ("[1e999]", None),
        ] {
            let mut index = Index::default();
            let error = scan(text, Limits::Enforced, &mut index).unwrap_err();
            assert_eq!(error.kind, JsonErrorKind::NumberRange);
            assert_eq!(index.stopped_in().as_deref(), path, "{text}");
        }
    }
}
