//! JSON as the protocol wants it: strict to read, canonical to sign.
//!
//! One pass over the text, and no tree: [`scan`] knows the grammar and the limits and tells a
//! [`scan::Visitor`] what it meets. [`index`] remembers where an envelope's members are,
//! [`canonical`] writes the canonical form. `envelope` and `draft` call both.

pub(crate) mod canonical;
pub(crate) mod index;
pub(crate) mod number;
pub(crate) mod scan;
pub(crate) mod string;

pub use canonical::canonicalize;

/// How many objects and arrays may be open at once.
pub const MAX_DEPTH: usize = 128;

/// How many digits an integer may have: the reference's own limit (Python's
/// `sys.get_int_max_str_digits`).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// Why a text is not JSON that the protocol takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// Where, in bytes from the start of the text.
    pub offset: usize,
    /// What is wrong there.
    pub kind: JsonErrorKind,
}

impl JsonError {
    pub(crate) const fn new(kind: JsonErrorKind, offset: usize) -> Self {
        Self { offset, kind }
    }
}

/// What is wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// Not the grammar of RFC 8259.
    #[error("syntax error")]
    Syntax,
    /// Two members of one object have the same name.
    #[error("duplicate member")]
    DuplicateMember,
    /// A `\u` escape of half a surrogate pair.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// A number beyond the range of a double.
    #[error("number out of range")]
    NumberRange,
    /// An integer of more than [`MAX_INTEGER_DIGITS`] digits.
    #[error("integer too long")]
    IntegerTooLong,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested too deep")]
    TooDeep,
}

/// What a JSON value is; integers and floats are kept apart, as the reference keeps them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Null,
    Bool,
    Integer,
    Float,
    String,
    Array,
    Object,
}

/// Whether the protocol's limits beyond the grammar hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limits {
    Enforced,
    /// Only the grammar does: for our own text, and to find out the `id` of a message that is
    /// refused anyway. Lone surrogates count as U+FFFD.
    Lifted,
}
