//! The scanner: the one place that knows JSON's grammar and the protocol's limits.
//!
//! One pass and an explicit stack, so nesting costs no call frames. Member names are kept only
//! while their object is open; they are compared once, when it ends, and sorted only if they
//! were not in order already, so neither order nor number of members makes it quadratic.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::{JsonError, JsonErrorKind, Kind, Limits, MAX_DEPTH, number, string};

/// What is told of a text as it is read, in the text's order.
pub(crate) trait Visitor<'t> {
    /// An object or array begins.
    fn open(&mut self, kind: Kind, at: usize);
    /// A member's name; its value follows.
    fn key(&mut self, key: &Key<'t>);
    /// Any other value.
    fn scalar(&mut self, scalar: Scalar<'t>);
    /// What was opened last ends. `keys` are an object's member names, sorted.
    fn close(&mut self, end: usize, keys: &[Key<'t>]);
}

/// A member's name.
#[derive(Clone)]
pub(crate) struct Key<'t> {
    /// The name, decoded: names are compared as what they say, not as they are written.
    pub(crate) name: Cow<'t, str>,
    /// Where its opening quote is.
    pub(crate) at: usize,
    /// Its place in the object, as written.
    pub(crate) ordinal: usize,
}

/// A value without parts.
#[derive(Clone)]
pub(crate) struct Scalar<'t> {
    pub(crate) kind: Kind,
    pub(crate) span: Range<usize>,
    pub(crate) text: &'t str,
    /// Whether `text` is its own canonical form.
    pub(crate) canonical: bool,
    /// Whether it is a string with escapes to decode.
    pub(crate) escaped: bool,
}

/// Reads the whole text; true where it equals its canonical form.
pub(crate) fn scan<'t, V: Visitor<'t>>(
    text: &'t str,
    limits: Limits,
    visitor: &mut V,
) -> Result<bool, JsonError> {
    let (open, keys) = (SmallVec::new(), SmallVec::new());
    Scanner { text, at: 0, limits, canonical: true, open, keys, visitor }.run()
}

struct Scanner<'t, 'v, V> {
    text: &'t str,
    at: usize,
    limits: Limits,
    canonical: bool,
    open: SmallVec<[Open; 8]>,
    /// The names of every open object's members so far, outermost first.
    keys: SmallVec<[Key<'t>; 16]>,
    visitor: &'v mut V,
}

/// An object or array that has begun.
struct Open {
    kind: Kind,
    /// Where its names start in `keys`.
    first_key: usize,
    /// Whether its names have come in ascending order, and hence without duplicates.
    ascending: bool,
}

impl<'t, V: Visitor<'t>> Scanner<'t, '_, V> {
    fn run(mut self) -> Result<bool, JsonError> {
        loop {
            if self.value_has_parts()? {
                continue;
            }
            loop {
                self.skip_space();
                let Some(open) = self.open.last() else { return self.finish() };
                match (self.peek(), open.kind) {
                    (Some(b','), Kind::Object) => {
                        self.at += 1;
                        self.skip_space();
                        self.key()?;
                        break;
                    }
                    (Some(b','), _) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b'}'), Kind::Object) | (Some(b']'), Kind::Array) => self.close()?,
                    _ => return Err(self.syntax()),
                }
            }
        }
    }

    /// Reads a value. True where it is an object or array with parts, the first of which is due.
    fn value_has_parts(&mut self) -> Result<bool, JsonError> {
        self.skip_space();
        let (kind, end) = match self.peek() {
            Some(b'{') => (Kind::Object, b'}'),
            Some(b'[') => (Kind::Array, b']'),
            _ => return self.scalar().map(|()| false),
        };
        self.open(kind)?;
        self.skip_space();
        if self.peek() == Some(end) {
            return self.close().map(|()| false);
        }
        if kind == Kind::Object {
            self.key()?;
        }
        Ok(true)
    }

    fn open(&mut self, kind: Kind) -> Result<(), JsonError> {
        if self.limits == Limits::Enforced && self.open.len() >= MAX_DEPTH {
            return Err(JsonError::new(JsonErrorKind::TooDeep, self.at));
        }
        self.visitor.open(kind, self.at);
        self.open.push(Open { kind, first_key: self.keys.len(), ascending: true });
        self.at += 1;
        Ok(())
    }

    /// Reads a name and its colon.
    fn key(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        let literal = string::read(self.text, self.at, self.limits)?;
        self.canonical &= literal.canonical;
        let written = &self.text[self.at..literal.end];
        let name = if literal.escaped {
            string::decode(written)
        } else {
            Cow::Borrowed(&written[1..written.len() - 1])
        };
        let Some(open) = self.open.last_mut() else { return Err(self.syntax()) };
        let siblings = &self.keys[open.first_key..];
        if siblings.last().is_some_and(|previous| previous.name >= name) {
            open.ascending = false;
            self.canonical = false;
        }
        let key = Key { name, at: self.at, ordinal: siblings.len() };
        self.visitor.key(&key);
        self.keys.push(key);
        self.at = literal.end;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        Ok(())
    }

    /// Ends what is open, at its closing bracket.
    fn close(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let Some(open) = self.open.pop() else { return Err(self.syntax()) };
        let keys = &mut self.keys[open.first_key..];
        if !open.ascending {
            // UTF-8 sorts as the code points that it encodes do.
            keys.sort_unstable_by(|a, b| (&a.name, a.at).cmp(&(&b.name, b.at)));
            let twice = keys.windows(2).find(|pair| pair[0].name == pair[1].name);
            if let (Limits::Enforced, Some([_, second])) = (self.limits, twice) {
                return Err(JsonError::new(JsonErrorKind::DuplicateMember, second.at));
            }
        }
        self.visitor.close(self.at, keys);
        self.keys.truncate(open.first_key);
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let mut escaped = false;
        let (kind, end, canonical) = match self.peek() {
            Some(b'"') => {
                let literal = string::read(self.text, start, self.limits)?;
                escaped = literal.escaped;
                (Kind::String, literal.end, literal.canonical)
            }
            Some(b'-' | b'0'..=b'9') => {
                let number = number::read(self.text, start, self.limits)?;
                (number.kind, number.end, number.canonical)
            }
            _ => {
                let (word, kind) =
                    [("null", Kind::Null), ("true", Kind::Bool), ("false", Kind::Bool)]
                        .into_iter()
                        .find(|(word, _)| {
                            self.text.as_bytes()[start..].starts_with(word.as_bytes())
                        })
                        .ok_or(self.syntax())?;
                (kind, start + word.len(), true)
            }
        };
        self.canonical &= canonical;
        self.at = end;
        let text = &self.text[start..end];
        self.visitor.scalar(Scalar { kind, span: start..end, text, canonical, escaped });
        Ok(())
    }

    fn finish(self) -> Result<bool, JsonError> {
        if self.at == self.text.len() { Ok(self.canonical) } else { Err(self.syntax()) }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.canonical = false;
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn syntax(&self) -> JsonError {
        JsonError::new(JsonErrorKind::Syntax, self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    struct Nobody;

    impl<'t> Visitor<'t> for Nobody {
        fn open(&mut self, _: Kind, _: usize) {}
        fn key(&mut self, _: &Key<'t>) {}
        fn scalar(&mut self, _: Scalar<'t>) {}
        fn close(&mut self, _: usize, _: &[Key<'t>]) {}
    }

    fn fault(text: &str) -> Option<JsonErrorKind> {
        scan(text, Limits::Enforced, &mut Nobody).err().map(|error| error.kind)
    }

    #[test]
    fn nesting_is_refused_beyond_its_limit_and_not_before() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(fault(&nested(MAX_DEPTH)), None);
        assert_eq!(fault(&nested(MAX_DEPTH + 1)), Some(JsonErrorKind::TooDeep));
        assert_eq!(fault(&"{\"a\":".repeat(1 << 20)), Some(JsonErrorKind::TooDeep));
    }

    #[test]
    fn nesting_without_limits_uses_no_call_stack() {
        let depth = 1 << 20;
        let text = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(scan(&text, Limits::Lifted, &mut Nobody), Ok(true));
    }

    #[test]
    fn duplicate_members_are_found_at_every_level_and_in_every_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":3}"#,
            r#"[{"b":1,"a":{"x":1,"y":{},"x":[]}}]"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(fault(text), Some(JsonErrorKind::DuplicateMember), "{text}");
        }
        assert_eq!(fault(r#"{"a":{"a":1},"b":{"a":1}}"#), None);
    }

    #[test]
    fn a_duplicate_is_reported_where_it_repeats() {
        let error = scan(r#"{"b":1,"a":2,"b":3}"#, Limits::Enforced, &mut Nobody);
        assert_eq!(error, Err(JsonError::new(JsonErrorKind::DuplicateMember, 13)));
    }

    #[test]
    fn a_text_full_of_members_takes_no_quadratic_time() {
        let mut text = String::from("{");
        for number in (0..200_000).rev() {
            text.push_str(&format!("\"{number:06}\":0,"));
        }
        text.push_str("\"x\":0}");
        let started = Instant::now();
        assert_eq!(fault(&text), None);
        // Quadratic would be minutes; this is milliseconds, with room for a loaded machine.
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_is_not_json_is_a_syntax_error() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "[1 2]",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "nul",
            "True",
            "NaN",
            "Infinity",
            "-Infinity",
            "1 2",
            "{}}",
            "[}",
            "{]",
            "01",
            "-",
            "\u{feff}{}",
            "{}\u{0}",
            "[1]\u{a0}",
            "undefined",
            "// x\n1",
            "{\"a\" 1}",
        ] {
            assert_eq!(fault(text), Some(JsonErrorKind::Syntax), "{text:?}");
        }
    }
}
