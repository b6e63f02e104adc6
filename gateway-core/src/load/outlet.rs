//! One frame, written again and again.
//!
//! Ids are opaque to a gateway and may repeat, so the masked frame of a sender is built once. What
//! is owed is a number of bytes; several messages go into one write.

use super::frame::{Opcode, masked};

/// Frames are laid side by side up to so many bytes, for one write to carry several.
const BATCH_BYTES: usize = 32 * 1024;

/// What one sender has to write.
pub(super) struct Outlet {
    /// The frame, once or several times in a row.
    frames: Box<[u8]>,
    frame: usize,
    /// Where in a frame the next byte is.
    at: usize,
    owed: usize,
}

impl Outlet {
    /// For messages of this text, of which up to `window` are written at once.
    pub(super) fn new(text: &str, window: usize) -> Self {
        let frame = masked(Opcode::Text, text.as_bytes());
        let copies = window.min(BATCH_BYTES / frame.len()).max(1);
        Self { frame: frame.len(), frames: frame.repeat(copies).into(), at: 0, owed: 0 }
    }

    pub(super) fn owe(&mut self, messages: usize) {
        self.owed += messages * self.frame;
    }

    /// Whether a frame is begun and not finished.
    pub(super) const fn is_within_a_frame(&self) -> bool {
        self.at > 0
    }

    /// What to write next: to the end of the frame that was begun, or as much as there is.
    pub(super) fn chunk(&self, only_this_frame: bool) -> &[u8] {
        let room = if only_this_frame { self.frame } else { self.frames.len() };
        &self.frames[self.at..room.min(self.at + self.owed)]
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        self.owed -= bytes;
        self.at = (self.at + bytes) % self.frame;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn partial_writes_add_up_to_whole_frames(
            window in 1_usize..8,
            messages in 1_usize..20,
            sizes in prop::collection::vec(1_usize..100, 1..6),
        ) {
            let mut outlet = Outlet::new("a message", window);
            let frame = outlet.frames[..outlet.frame].to_vec();
            outlet.owe(messages);
            let mut written = Vec::new();
            for (n, size) in sizes.iter().cycle().enumerate() {
                let chunk = outlet.chunk(n % 3 == 0);
                if chunk.is_empty() {
                    break;
                }
                let taken = &chunk[..chunk.len().min(*size)];
                written.extend_from_slice(taken);
                let taken = taken.len();
                outlet.wrote(taken);
            }
            prop_assert_eq!(written, frame.repeat(messages));
            prop_assert!(!outlet.is_within_a_frame());
        }
    }

    #[test]
    fn a_window_is_one_write_as_far_as_it_is_sensible() {
        let mut small = Outlet::new(&"x".repeat(100), 16);
        small.owe(16);
        assert_eq!(small.chunk(false).len(), 16 * small.frame);
        assert_eq!(small.chunk(true).len(), small.frame);
        let large = Outlet::new(&"x".repeat(60_000), 16);
        assert_eq!(large.frames.len(), large.frame);
    }
}
