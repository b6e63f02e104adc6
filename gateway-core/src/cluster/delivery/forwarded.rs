//! A message of another node's, in the outbox of its target.

use std::sync::Arc;

use super::peer::Peer;
use crate::cluster::{frame::End, ids::MemberId};

/// A message whose sender is on another node, which is told how it ended: as delivered; or, whichever way
/// it is dropped, as one that is still to be seen to. Nothing else is decided or counted of it here.
#[derive(Debug)]
pub(crate) struct Forwarded {
    text: Arc<str>,
    from: Arc<Peer>,
    number: u64,
    /// Who this node was when it came.
    to: MemberId,
    ended: bool,
}

impl Forwarded {
    /// A message that came from there with this number.
    pub(super) fn new(text: &str, from: &Arc<Peer>, number: u64, to: MemberId) -> Self {
        from.arrived(number);
        Self { text: text.into(), from: Arc::clone(from), number, to, ended: false }
    }

    /// Whether its target may still get it here: the others count this node as there, and as who it was when the
    /// message came. If they do not, its sender was told otherwise, and the target may be elsewhere by now.
    pub(crate) fn is_timely(&self) -> bool {
        self.from.is_heard_as(self.to)
    }

    pub(crate) const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The kernel has its last byte.
    pub(crate) fn delivered(self) {
        self.end(End::Delivered);
    }

    /// There is no room for it.
    pub(crate) fn full(self) {
        self.end(End::Full);
    }

    fn end(mut self, end: End) {
        self.ended = true;
        self.from.ended(self.number, end);
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if !self.ended {
            self.from.ended(self.number, End::Gone);
        }
    }
}
