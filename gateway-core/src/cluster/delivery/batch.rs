//! Batches as bytes: what is published at once.
//!
//! Frames are written one behind the other as they come up. Whose batch it is, and by which link it goes,
//! is written in front of them when it goes out, into room that was left for it: nothing is copied twice.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::Serialize;

use crate::cluster::frame::{Frame, Head};

/// As long as a [`Head`] can be: a byte, and three numbers of at most ten.
const HEAD_ROOM: usize = 32;

/// Above this size a batch takes no further frames.
pub(super) const FULL: usize = 64 * 1024;

/// A batch as far as it was written.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// The number of its first message.
    pub(super) first: Option<u64>,
}

impl Batch {
    /// An empty one, with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_ROOM + room);
        bytes.resize(HEAD_ROOM, 0);
        Self { bytes, first: None }
    }

    /// How many bytes its frames have.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - HEAD_ROOM
    }

    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        write(frame, &mut self.bytes);
    }

    /// What goes out.
    pub(super) fn finish(mut self, head: &Head) -> Bytes {
        let mut start = Vec::with_capacity(HEAD_ROOM);
        write(head, &mut start);
        let from = HEAD_ROOM.saturating_sub(start.len());
        self.bytes[from..HEAD_ROOM].copy_from_slice(&start);
        Bytes::from(self.bytes).slice(from..)
    }
}

/// What comes in: who speaks, and the rest.
pub(super) fn open(batch: &[u8]) -> Option<(Head, Frames<'_>)> {
    let (head, rest) = postcard::take_from_bytes(batch).ok()?;
    Some((head, Frames { rest }))
}

/// The frames of a batch, in order.
pub(super) struct Frames<'a> {
    rest: &'a [u8],
}

/// The rest of a batch makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(self.rest) {
            Ok((frame, rest)) => {
                self.rest = rest;
                Some(Ok(frame))
            }
            Err(_) => {
                self.rest = &[];
                Some(Err(Malformed))
            }
        }
    }
}

/// Appends, many bytes at a time; postcard's own way takes them one by one.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn write(value: &impl Serialize, to: &mut Vec<u8>) {
    // Neither memory nor what is derived of these types can fail.
    let written = postcard::serialize_with_flavor(value, Append(to));
    debug_assert!(written.is_ok(), "{written:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{
        frame::{End, VERSION},
        ids::{Epoch, MemberId},
    };

    #[test]
    fn what_was_written_is_read() {
        for id in [MemberId(0), MemberId(u64::MAX)] {
            let head = Head { version: VERSION, from: id, to: MemberId(7), link: id.0 };
            let mut batch = Batch::new(0);
            let text = "x".repeat(1000);
            let message =
                Frame::Message { number: 3, to: [9; 32], epoch: Epoch(u64::MAX), text: &text };
            batch.push(&message);
            batch.push(&Frame::Ends(vec![(1, End::Gone), (u64::MAX, End::Full)]));
            let bytes = batch.finish(&head);
            let (read, mut frames) = open(&bytes).unwrap();
            assert_eq!(read, head);
            let Some(Ok(Frame::Message { number: 3, text: same, .. })) = frames.next() else {
                panic!("no message");
            };
            assert_eq!(same, text);
            let Some(Ok(Frame::Ends(ends))) = frames.next() else { panic!("no ends") };
            assert_eq!(ends, [(1, End::Gone), (u64::MAX, End::Full)]);
            assert!(frames.next().is_none());
        }
    }

    #[test]
    fn what_makes_no_sense_ends_a_batch() {
        let head = Head { version: VERSION, from: MemberId(1), to: MemberId(2), link: 1 };
        let mut batch = Batch::new(0);
        batch.push(&Frame::Ends(Vec::new()));
        let mut bytes = batch.finish(&head).to_vec();
        bytes.push(0xff);
        let frames: Vec<_> = open(&bytes).unwrap().1.collect();
        assert!(matches!(frames[..], [Ok(Frame::Ends(_)), Err(Malformed)]), "{frames:?}");
        assert!(open(&bytes[..2]).is_none());
    }
}
