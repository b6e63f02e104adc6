//! How the search for a way came out: the one thing that operators can learn of it, and only where an
//! application wants them to.

use std::time::Duration;

use super::CandidateKind;

/// The end of one search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IceOutcome {
    /// Our candidate and theirs; none where no way was found.
    pub(crate) kinds: Option<(CandidateKind, CandidateKind)>,
    /// From the first attempt on.
    pub(crate) took: Duration,
    /// Whether the connection was ours; of two that report the same, one is.
    pub(crate) is_initiator: bool,
}
