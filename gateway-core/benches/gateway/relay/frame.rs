//! Members of a message, found without parsing it.
//!
//! The load generator writes canonical JSON: no white space, the members in order. What is found
//! from the end lies behind the payload, which is most of the message and can thus say what it
//! likes.

/// The value of `from`, which comes before the payload.
pub(crate) fn from(text: &str) -> Option<&str> {
    string_at(text, position(text, br#""from":""#)?)
}

/// The value of `to`.
pub(crate) fn to(text: &str) -> Option<&str> {
    string_at(text, position_from_end(text, br#""to":""#)?)
}

/// The value of `id`, which comes before the payload.
pub(crate) fn id(text: &str) -> Option<&str> {
    string_at(text, position(text, br#""id":""#)?)
}

/// What was signed, as the two parts around the signature, and the signature.
pub(crate) fn signed(text: &str) -> Option<([&str; 2], &str)> {
    const MEMBER: &[u8; 13] = br#""signature":""#;
    let value = position_from_end(text, MEMBER)?;
    let signature = string_at(text, value)?;
    // Neither the first member nor the last: a comma follows it.
    let rest = value + signature.len() + "\",".len();
    Some(([&text[..value - MEMBER.len()], text.get(rest..)?], signature))
}

fn string_at(text: &str, start: usize) -> Option<&str> {
    let value = &text[start..];
    let length = value.bytes().position(|byte| byte == b'"')?;
    Some(&value[..length])
}

/// Where the value begins.
fn position<const N: usize>(text: &str, member: &[u8; N]) -> Option<usize> {
    text.as_bytes().windows(N).position(|window| window == member).map(|at| at + N)
}

fn position_from_end<const N: usize>(text: &str, member: &[u8; N]) -> Option<usize> {
    text.as_bytes().windows(N).rposition(|window| window == member).map(|at| at + N)
}
