//! How far a graceful stop has come. The gateway moves on, every session follows.

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Business as usual.
    Running,
    /// A stop was asked for. Still business as usual, but `/ready` says no, so that whoever sends
    /// agents here may know before they are refused.
    Unready,
    /// New sessions are refused, and agents are told to go, one after the other; the others are served
    /// as ever.
    Departing,
    /// No session reads any more, so that no new message comes up; what is queued is written.
    Quiescing,
    /// What could not be written by now is refused, while the senders are still here to be told.
    Settling,
    /// Sessions write what is left and close with 1012.
    Closing,
}
