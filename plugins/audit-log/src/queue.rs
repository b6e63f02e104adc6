//! Lines on their way to the writer: bounded in number and in bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    mpsc::{Receiver, SyncSender, sync_channel},
};

/// What hooks put in.
#[derive(Debug)]
pub(crate) struct Queue {
    lines: SyncSender<String>,
    state: Arc<State>,
    max_bytes: usize,
}

/// What the writer takes out.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: Receiver<String>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

pub(crate) fn queue(max_lines: usize, max_bytes: usize) -> (Queue, Lines) {
    let (sender, receiver) = sync_channel(max_lines);
    let state = Arc::<State>::default();
    let lines = Lines { lines: receiver, state: Arc::clone(&state) };
    (Queue { lines: sender, state, max_bytes }, lines)
}

impl Queue {
    /// Puts a line in; false where it was dropped.
    pub(crate) fn push(&self, line: String) -> bool {
        let size = line.len();
        let before = self.state.bytes.fetch_add(size, Relaxed);
        let fits = before.saturating_add(size) <= self.max_bytes;
        if fits && self.lines.try_send(line).is_ok() {
            return true;
        }
        self.state.bytes.fetch_sub(size, Relaxed);
        self.state.dropped.fetch_add(1, Relaxed);
        false
    }
}

impl Lines {
    /// Waits for lines and puts them into the buffer, ended, until it has this many bytes or there
    /// are no more. How many; 0 at the end of all.
    pub(crate) fn take(&self, buffer: &mut Vec<u8>, enough: usize) -> u64 {
        let mut next = self.lines.recv().ok();
        let mut count = 0;
        while let Some(line) = next.take() {
            self.state.bytes.fetch_sub(line.len(), Relaxed);
            buffer.extend_from_slice(line.as_bytes());
            buffer.push(b'\n');
            count += 1;
            if buffer.len() < enough {
                next = self.lines.try_recv().ok();
            }
        }
        count
    }

    /// How many were dropped since the last time it was asked.
    pub(crate) fn dropped(&self) -> u64 {
        self.state.dropped.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let (queue, lines) = queue(3, 10);
        let pushed: Vec<_> =
            ["1234", "12345", "12", "1", "1"].map(|line| queue.push(line.into())).into();
        assert_eq!(pushed, [true, true, false, true, false]);
        assert_eq!((lines.dropped(), lines.dropped()), (2, 0));
        let mut buffer = Vec::new();
        assert_eq!(lines.take(&mut buffer, 100), 3);
        assert_eq!(buffer, b"1234\n12345\n1\n");
        assert!(queue.push("0123456789".into()));
    }

    #[test]
    fn a_batch_ends_when_it_is_large_enough() {
        let (queue, lines) = queue(3, 10);
        for line in ["1", "2", "3"] {
            queue.push(line.into());
        }
        let mut buffer = Vec::new();
        assert_eq!(lines.take(&mut buffer, 4), 2);
        drop(queue);
        assert_eq!(lines.take(&mut buffer, 4), 1);
        assert_eq!(lines.take(&mut buffer, 4), 0);
    }
}
