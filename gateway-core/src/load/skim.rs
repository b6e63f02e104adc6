//! Skimming: from bytes as they arrive to frames, of which only the start is looked at.
//!
//! A frame that lies whole in the bytes at hand is handed over as a slice of them. Only of one that
//! is cut is anything kept: its header, and no more of its payload than somebody will look at.

use super::frame::{Broken, Header, Opcode};

/// A frame that has arrived. `start` is its payload, or as much of it as is kept.
pub(super) struct Skimmed<'a> {
    pub(super) opcode: Opcode,
    pub(super) start: &'a [u8],
}

/// What is known of a frame that has not arrived whole.
pub(super) struct Skimmer {
    /// So much of a cut frame's payload is kept.
    keep: usize,
    header: Vec<u8>,
    body: Option<Body>,
    kept: Vec<u8>,
}

struct Body {
    opcode: Opcode,
    left: u64,
}

impl Skimmer {
    pub(super) fn keeping(keep: usize) -> Self {
        Self { keep, header: Vec::new(), body: None, kept: Vec::new() }
    }

    /// From now on keeps less, and gives memory back that this frees.
    pub(super) fn keep_only(&mut self, keep: usize) {
        self.keep = keep;
        self.kept.truncate(keep);
        self.kept.shrink_to(keep);
    }

    /// Takes what arrived, and hands over each frame that is complete with it.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Skimmed<'_>),
    ) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.whole(bytes)? {
                Some((skimmed, size)) => {
                    each(skimmed);
                    bytes = &bytes[size..];
                }
                None => bytes = self.cut(bytes, &mut each)?,
            }
        }
        Ok(())
    }

    /// A frame of which all is here, and its size.
    fn whole<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Skimmed<'a>, usize)>, Broken> {
        if self.body.is_some() || !self.header.is_empty() {
            return Ok(None);
        }
        let Some((header, at)) = Header::read(bytes)? else { return Ok(None) };
        let payload = &bytes[at..];
        if (payload.len() as u64) < header.length {
            return Ok(None);
        }
        // It fits what is in memory.
        let length = header.length as usize;
        Ok(Some((Skimmed { opcode: header.opcode, start: &payload[..length] }, at + length)))
    }

    /// Takes of a cut frame what is here, and returns what lies behind it.
    fn cut<'a>(
        &mut self,
        mut bytes: &'a [u8],
        each: &mut impl FnMut(Skimmed<'_>),
    ) -> Result<&'a [u8], Broken> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => loop {
                let Some((byte, rest)) = bytes.split_first() else { return Ok(bytes) };
                self.header.push(*byte);
                bytes = rest;
                if let Some((header, _)) = Header::read(&self.header)? {
                    self.header.clear();
                    break Body { opcode: header.opcode, left: header.length };
                }
            },
        };
        let here = usize::try_from(body.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (payload, rest) = bytes.split_at(here);
        let room = self.keep.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&payload[..room.min(here)]);
        body.left -= here as u64;
        if body.left > 0 {
            self.body = Some(body);
        } else {
            each(Skimmed { opcode: body.opcode, start: &self.kept });
            self.kept.clear();
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::frame::tests::unmasked;

    /// What comes out when the bytes arrive in pieces of these sizes, in turn.
    fn skim(keep: usize, bytes: &[u8], sizes: &[usize]) -> Vec<(Opcode, Vec<u8>)> {
        let mut skimmer = Skimmer::keeping(keep);
        let mut found = Vec::new();
        let mut rest = bytes;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            skimmer.feed(piece, |frame| found.push((frame.opcode, frame.start.to_vec()))).unwrap();
            rest = behind;
        }
        found
    }

    fn frames() -> impl Strategy<Value = Vec<(Opcode, Vec<u8>)>> {
        let control = prop_oneof![Just(Opcode::Close), Just(Opcode::Ping), Just(Opcode::Pong)];
        let data = prop_oneof![Just(Opcode::Text), Just(Opcode::Binary)];
        let frame = prop_oneof![
            (control, prop::collection::vec(any::<u8>(), 0..=125)),
            (data, prop::collection::vec(any::<u8>(), 0..400)),
        ];
        prop::collection::vec(frame, 0..12)
    }

    proptest! {
        #[test]
        fn where_reads_end_makes_no_difference(
            frames in frames(),
            sizes in prop::collection::vec(1_usize..700, 1..8),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(opcode, payload)| unmasked(*opcode, payload)).collect();
            prop_assert_eq!(skim(400, &bytes, &sizes), frames);
        }

        #[test]
        fn of_a_cut_frame_no_more_is_kept_than_asked_for(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            keep in 0_usize..300,
        ) {
            let bytes = unmasked(Opcode::Text, &payload);
            let start = payload[..keep.min(payload.len())].to_vec();
            prop_assert_eq!(skim(keep, &bytes, &[1]), [(Opcode::Text, start)]);
        }
    }

    #[test]
    fn a_long_frame_comes_byte_by_byte() {
        let payload = vec![b'x'; 70_000];
        let bytes = unmasked(Opcode::Text, &payload);
        assert_eq!(skim(8, &bytes, &[1]), [(Opcode::Text, vec![b'x'; 8])]);
        assert_eq!(skim(8, &bytes, &[bytes.len()]), [(Opcode::Text, payload)]);
    }

    #[test]
    fn a_broken_frame_is_an_error_wherever_it_is_cut() {
        let mut bytes = unmasked(Opcode::Text, b"fine");
        bytes.extend([0x01, 0x00]);
        for at in 1..bytes.len() {
            let mut skimmer = Skimmer::keeping(100);
            let (head, tail) = bytes.split_at(at);
            let fed = skimmer.feed(head, |_| {}).and_then(|()| skimmer.feed(tail, |_| {}));
            assert_eq!(fed, Err(Broken::Fragmented), "{at}");
        }
    }
}
