//! Where bytes are read to and laid out for writing: one buffer a thread.
//!
//! A session needs a buffer only while it is at work, and a thread works for one session at a time,
//! so idle sessions have none. [`frames`](super::frames) and [`outgoing`](super::outgoing) borrow it.

use std::cell::Cell;

/// As much as is read or written at once: a burst of messages takes one call of the system.
const SIZE: usize = 64 * 1024;

thread_local! {
    static IDLE: Cell<Vec<Box<[u8]>>> = const { Cell::new(Vec::new()) };
}

/// A buffer of the thread's, for as long as it is not given back by being dropped. Within it, what
/// was read and not taken yet.
pub(super) struct Scratch {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Scratch {
    /// One that nobody uses; a thread makes another one only while all it has are borrowed.
    pub(super) fn borrow() -> Self {
        let mut idle = IDLE.take();
        let buffer = idle.pop().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
        IDLE.set(idle);
        Self { buffer, start: 0, end: 0 }
    }

    pub(super) fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// So much was read to its beginning.
    pub(super) fn fill(&mut self, size: usize) {
        (self.start, self.end) = (0, size);
    }

    /// What was read and not taken.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    pub(super) fn take(&mut self, size: usize) {
        self.start += size;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut idle = IDLE.take();
        idle.push(std::mem::take(&mut self.buffer));
        IDLE.set(idle);
    }
}
