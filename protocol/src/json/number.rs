//! JSON numbers, and how Python prints them.
//!
//! Integers keep their digits, however many; floats become the double that they name, written
//! with the fewest digits that name it (`repr`). The reference signs what Python prints.

use std::fmt::Write as _;

use super::{JsonError, JsonErrorKind, Kind, Limits, MAX_INTEGER_DIGITS};

/// A number that was read.
pub(crate) struct Number {
    /// Just behind the last digit.
    pub(crate) end: usize,
    /// [`Kind::Integer`], or [`Kind::Float`] where there is a point or an exponent.
    pub(crate) kind: Kind,
    /// Whether it is written as the canonical form would.
    pub(crate) canonical: bool,
}

/// Reads the number that starts at `start`.
pub(crate) fn read(text: &str, start: usize, limits: Limits) -> Result<Number, JsonError> {
    let bytes = text.as_bytes();
    let digits_at = start + usize::from(bytes.get(start) == Some(&b'-'));
    let mut end = digits(bytes, digits_at)?;
    if bytes[digits_at] == b'0' {
        // No digit follows a leading zero.
        end = digits_at + 1;
    }
    let integer_end = end;
    if bytes.get(end) == Some(&b'.') {
        end = digits(bytes, end + 1)?;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = digits(bytes, end)?;
    }

    let number = &text[start..end];
    let enforced = limits == Limits::Enforced;
    if end == integer_end {
        if enforced && end - digits_at > MAX_INTEGER_DIGITS {
            return Err(JsonError::new(JsonErrorKind::IntegerTooLong, start));
        }
        return Ok(Number { end, kind: Kind::Integer, canonical: number != "-0" });
    }
    let value = parse_float(number);
    if enforced && !value.is_finite() {
        return Err(JsonError::new(JsonErrorKind::NumberRange, start));
    }
    let mut canonical = String::new();
    write_float(&mut canonical, value);
    Ok(Number { end, kind: Kind::Float, canonical: canonical == number })
}

/// The end of the digits that start at `at`, of which there must be one.
fn digits(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 { Err(JsonError::new(JsonErrorKind::Syntax, at)) } else { Ok(at + count) }
}

/// Rust takes every JSON number and rounds as Python does: to nearest, ties to even.
fn parse_float(number: &str) -> f64 {
    number.parse().unwrap_or(f64::NAN)
}

/// Writes a number that [`read`] accepted, canonically.
pub(crate) fn write(out: &mut String, number: &str, kind: Kind) {
    match kind {
        Kind::Float => write_float(out, parse_float(number)),
        _ if number == "-0" => out.push('0'),
        _ => out.push_str(number),
    }
}

/// Python's `repr`: fixed notation for exponents from -4 to 15, else `d.ddde±XX`.
fn write_float(out: &mut String, value: f64) {
    if value.is_sign_negative() {
        out.push('-');
    }
    // `{:e}` has the shortest digits that round-trip: `d[.ddd]e[-]x`.
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a String cannot fail.
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
        return;
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    match usize::try_from(exponent) {
        Ok(exponent) => {
            let point = exponent + 1;
            let whole = digits.get(..point).unwrap_or(&digits);
            let fraction = digits.get(point..).unwrap_or_default();
            let fraction = if fraction.is_empty() { "0" } else { fraction };
            let _ = write!(out, "{whole:0<point$}.{fraction}");
        }
        Err(_) => {
            let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
            let _ = write!(out, "0.{:0<zeros$}{digits}", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let number = read(text, 0, Limits::Enforced).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(number.end, text.len());
        let mut out = String::new();
        write(&mut out, text, number.kind);
        assert_eq!(number.canonical, out == text, "{text}");
        out
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (text, expected) in [
            ("1e0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("12345678901234567.0", "1.2345678901234568e+16"),
            ("1234567890123456.7", "1234567890123456.8"),
            ("1e-4", "0.0001"),
            ("0.00012345", "0.00012345"),
            ("1e-5", "1e-05"),
            ("5e-324", "5e-324"),
            ("1e-400", "0.0"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("123456.789", "123456.789"),
        ] {
            assert_eq!(canonical(text), expected);
        }
    }

    #[test]
    fn integers_keep_their_digits_but_zero_has_no_sign() {
        assert_eq!(canonical("-0"), "0");
        let long = "9".repeat(MAX_INTEGER_DIGITS);
        assert_eq!(canonical(&long), long);
        assert_eq!(canonical(&format!("-{long}")), format!("-{long}"));
    }

    #[test]
    fn numbers_beyond_the_limits_are_refused_unless_these_are_lifted() {
        let too_long = "1".repeat(MAX_INTEGER_DIGITS + 1);
        for (text, kind) in [
            (too_long.as_str(), JsonErrorKind::IntegerTooLong),
            ("1e400", JsonErrorKind::NumberRange),
            ("-1e400", JsonErrorKind::NumberRange),
            ("1.7976931348623159e308", JsonErrorKind::NumberRange),
        ] {
            assert_eq!(read(text, 0, Limits::Enforced).err().map(|error| error.kind), Some(kind));
            assert!(read(text, 0, Limits::Lifted).is_ok());
        }
    }

    #[test]
    fn what_is_no_number_is_a_syntax_error() {
        for text in ["", "-", "+1", "1.", "1e", "1e+", "--1", ".5", "-.5", "e5"] {
            let kind = read(text, 0, Limits::Enforced).err().map(|error| error.kind);
            assert_eq!(kind, Some(JsonErrorKind::Syntax), "{text}");
        }
        // What follows a leading zero is not part of the number.
        assert_eq!(read("01", 0, Limits::Enforced).map(|number| number.end), Ok(1));
    }
}
