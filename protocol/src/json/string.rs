//! JSON strings: reading them, decoding them, writing them canonically.
//!
//! Most strings have no escapes and are borrowed as they stand; only the others are decoded.

use std::borrow::Cow;

use super::{JsonError, JsonErrorKind, Limits};

/// A string literal that was read.
pub(crate) struct Literal {
    /// Just behind the closing quote.
    pub(crate) end: usize,
    /// Whether it is written as the canonical form would.
    pub(crate) canonical: bool,
    /// Whether there are escapes to decode.
    pub(crate) escaped: bool,
}

/// Reads the literal whose opening quote is at `start`.
pub(crate) fn read(text: &str, start: usize, limits: Limits) -> Result<Literal, JsonError> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    let (mut canonical, mut escaped) = (true, false);
    loop {
        at += plain_bytes(&bytes[at.min(bytes.len())..]);
        match bytes.get(at) {
            Some(b'"') => return Ok(Literal { end: at + 1, canonical, escaped }),
            Some(b'\\') => {
                escaped = true;
                // Most escapes are the ends of an SDP's lines.
                if let Some(b'n' | b'r' | b't' | b'b' | b'f' | b'"' | b'\\') = bytes.get(at + 1) {
                    at += 2;
                    continue;
                }
                let escape = unescape(bytes, at, limits)?;
                canonical &= escape.is_canonical(&bytes[at..at + escape.length]);
                at += escape.length;
            }
            Some(0x20..=0x7e) => at += 1,
            Some(0x7f..) => {
                canonical = false;
                at += 1;
            }
            Some(..0x20) | None => return Err(JsonError::new(JsonErrorKind::Syntax, at)),
        }
    }
}

/// How many bytes at the start, at least, are printable ASCII without quotes and backslashes: whole
/// groups of eight, and those of the group in which another byte stands.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word;
    let mut plain = 0;
    for group in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*group);
        // The high bit of a byte is set where it is one of these; bytes above the first such one
        // may be taken for others, which is why only the first counts.
        let control = word.wrapping_sub(ONES * 0x20);
        let quote = zero_byte(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_byte(word ^ (ONES * u64::from(b'\\')));
        let beyond = word | word.wrapping_add(ONES);
        let other = (control | quote | backslash | beyond) & HIGHS;
        if other != 0 {
            return plain + (other.trailing_zeros() / 8) as usize;
        }
        plain += 8;
    }
    plain
}

/// The value of a literal, quotes included, that [`read`] accepted.
pub(crate) fn decode(literal: &str) -> Cow<'_, str> {
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    let Some(mut escape_at) = inner.find('\\') else { return Cow::Borrowed(inner) };
    let mut value = String::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        value.push_str(&rest[..escape_at]);
        // An escape that `read` refused never gets here; a text that ends in one just ends.
        let Ok(escape) = unescape(rest.as_bytes(), escape_at, Limits::Lifted) else { break };
        value.push(escape.value);
        rest = &rest[escape_at + escape.length..];
        let Some(next) = rest.find('\\') else { break };
        escape_at = next;
    }
    value.push_str(rest);
    Cow::Owned(value)
}

/// Writes `value` as a canonical literal, quotes included.
pub(crate) fn write(out: &mut String, value: &str) {
    out.push('"');
    let mut rest = value;
    while let Some(at) = rest.find(needs_escape) {
        out.push_str(&rest[..at]);
        let mut chars = rest[at..].chars();
        if let Some(c) = chars.next() {
            write_escape(out, c);
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

fn needs_escape(c: char) -> bool {
    !matches!(c, ' '..='~') || c == '"' || c == '\\'
}

fn write_escape(out: &mut String, c: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if let Some(short) = short_escape(c) {
        out.push('\\');
        out.push(char::from(short));
        return;
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str("\\u");
        for shift in [12, 8, 4, 0] {
            out.push(char::from(HEX[usize::from(*unit >> shift & 0xf)]));
        }
    }
}

/// The letter after the backslash, for characters that the canonical form escapes in two.
const fn short_escape(c: char) -> Option<u8> {
    match c {
        '"' => Some(b'"'),
        '\\' => Some(b'\\'),
        '\u{8}' => Some(b'b'),
        '\u{c}' => Some(b'f'),
        '\n' => Some(b'n'),
        '\r' => Some(b'r'),
        '\t' => Some(b't'),
        _ => None,
    }
}

struct Escape {
    value: char,
    length: usize,
}

impl Escape {
    /// Whether `written`, which decoded to this, is what the canonical form would write.
    fn is_canonical(&self, written: &[u8]) -> bool {
        match short_escape(self.value) {
            Some(short) => written == [b'\\', short],
            None => needs_escape(self.value) && !written.iter().any(u8::is_ascii_uppercase),
        }
    }
}

/// Decodes the escape whose backslash is at `at`.
fn unescape(bytes: &[u8], at: usize, limits: Limits) -> Result<Escape, JsonError> {
    let syntax = JsonError::new(JsonErrorKind::Syntax, at);
    let value = match bytes.get(at + 1).ok_or(syntax)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescape_unicode(bytes, at, limits),
        _ => return Err(syntax),
    };
    Ok(Escape { value, length: 2 })
}

/// Decodes `\uXXXX`, or two of them that are a surrogate pair.
fn unescape_unicode(bytes: &[u8], at: usize, limits: Limits) -> Result<Escape, JsonError> {
    let unit = code_unit(bytes, at).ok_or(JsonError::new(JsonErrorKind::Syntax, at))?;
    let next = code_unit(bytes, at + 6).filter(|_| (0xd800..0xdc00).contains(&unit));
    let units = [unit, next.unwrap_or_default()];
    let decoded = char::decode_utf16(units).next().and_then(Result::ok);
    match decoded {
        Some(value) => Ok(Escape { value, length: if value.len_utf16() == 2 { 12 } else { 6 } }),
        None if limits == Limits::Lifted => {
            Ok(Escape { value: char::REPLACEMENT_CHARACTER, length: 6 })
        }
        None => Err(JsonError::new(JsonErrorKind::LoneSurrogate, at)),
    }
}

/// The UTF-16 code unit of `\uXXXX` at `at`, where there is one.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let [b'\\', b'u', hex @ ..] = bytes.get(at..at + 6)? else { return None };
    hex.iter().try_fold(0, |unit, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Result<Literal, JsonErrorKind> {
        read(text, 0, Limits::Enforced).map_err(|error| error.kind)
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        assert!(matches!(decode(r#""plain é""#), Cow::Borrowed("plain é")));
    }

    #[test]
    fn every_byte_ends_what_is_plain_or_does_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let is_plain = matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\';
            for at in 0..16 {
                for around in [b' ', b'~', b'a'] {
                    let mut bytes = [around; 16];
                    bytes[at] = byte;
                    let expected = if is_plain { 16 } else { at };
                    assert_eq!(plain_bytes(&bytes), expected, "{byte:#x} at {at}");
                }
            }
        }
        assert_eq!(plain_bytes(b"abc"), 0, "less than a group is left to others");
    }

    #[test]
    fn escapes_decode_and_come_back_canonical() {
        let literal = r#""\u0041\/\u000a\ud83d\ude00é\u007F""#;
        assert_eq!(read_all(literal).ok().map(|read| read.end), Some(literal.len()));
        let value = decode(literal);
        assert_eq!(value, "A/\n\u{1f600}é\u{7f}");
        let mut out = String::new();
        write(&mut out, &value);
        assert_eq!(out, r#""A/\n\ud83d\ude00\u00e9\u007f""#);
        assert!(read_all(&out).is_ok_and(|read| read.canonical));
    }

    #[test]
    fn a_literal_is_canonical_only_in_the_one_spelling() {
        for literal in
            [r#""é""#, r#""\/""#, r#""\u000a""#, r#""\u00E9""#, r#""\u0041""#, "\"\u{7f}\""]
        {
            assert!(read_all(literal).is_ok_and(|read| !read.canonical), "{literal}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        for literal in [r#""\ud800""#, r#""\udc00x""#, r#""\ud800\u0041""#, r#""\ud800\ud800""#] {
            assert_eq!(read_all(literal).err(), Some(JsonErrorKind::LoneSurrogate), "{literal}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_a_replacement_character_once_limits_are_lifted() {
        assert!(read(r#""\ud800x""#, 0, Limits::Lifted).is_ok());
        assert_eq!(decode(r#""\ud800x""#), "\u{fffd}x");
        assert_eq!(decode(r#""\ud800\u0041""#), "\u{fffd}A");
    }

    #[test]
    fn broken_literals_are_syntax_errors() {
        for literal in
            ["\"", "\"\t\"", r#""\x""#, r#""\u12g4""#, r#""\u+123""#, r#""\u12"#, r#""\"#]
        {
            assert_eq!(read_all(literal).err(), Some(JsonErrorKind::Syntax), "{literal}");
        }
    }
}
