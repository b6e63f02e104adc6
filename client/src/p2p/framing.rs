//! Messages on a channel, in pieces: what is larger than one SCTP message is split, and joined again.
//!
//! A piece is a byte of flags and what it carries. Channels that keep order and lose nothing are framed, so the
//! pieces of a message stand together. docs/webrtc.md has the format.

use bytes::{BufMut, Bytes, BytesMut};

use super::channel::{ChannelError, ChannelMessage};

const LAST: u8 = 0x01;
const TEXT: u8 = 0x02;

/// A piece with its flags. Every stack takes that much at once.
pub(crate) const MAX_PIECE: usize = 32 * 1024;

/// The pieces of a message, in order.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// Before `LAST`.
    flags: u8,
    rest: Bytes,
    /// Of a piece, without its flags.
    room: usize,
    is_done: bool,
}

impl Pieces {
    /// Each of at most `size` bytes with its flags, or of two if that is less.
    pub(crate) fn of(message: ChannelMessage, size: usize) -> Self {
        let (flags, rest) = match message {
            ChannelMessage::Text(text) => (TEXT, Bytes::from(text)),
            ChannelMessage::Binary(bytes) => (0, bytes),
        };
        Self { flags, rest, room: size.clamp(2, MAX_PIECE) - 1, is_done: false }
    }

    /// Whether there are no more.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_done {
            return None;
        }
        let part = self.rest.split_to(self.room.min(self.rest.len()));
        self.is_done = self.rest.is_empty();
        let mut piece = BytesMut::with_capacity(1 + part.len());
        piece.put_u8(if self.is_done { self.flags | LAST } else { self.flags });
        piece.put(part);
        Some(piece.freeze())
    }
}

/// Puts messages together again.
#[derive(Debug)]
pub(crate) struct Joiner {
    limit: usize,
    parts: BytesMut,
    /// Of the message that is begun.
    is_text: Option<bool>,
}

impl Joiner {
    /// None larger than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, parts: BytesMut::new(), is_text: None }
    }

    /// The message that this piece completes, if it does. After an error the channel is of no use.
    pub(crate) fn take(
        &mut self,
        mut piece: Bytes,
    ) -> Result<Option<ChannelMessage>, ChannelError> {
        let Some(flags) = piece.first().copied() else {
            return Err(ChannelError::Framing("a piece without flags"));
        };
        if flags & !(LAST | TEXT) != 0 {
            return Err(ChannelError::Framing("unknown flags"));
        }
        let (is_last, is_text) = (flags & LAST != 0, flags & TEXT != 0);
        let part = piece.split_off(1);
        if self.is_text.is_some_and(|begun| begun != is_text) {
            return Err(ChannelError::Framing("pieces of two messages are mixed"));
        }
        if part.is_empty() && !is_last {
            return Err(ChannelError::Framing("a piece without anything in it"));
        }
        if self.parts.len() + part.len() > self.limit {
            return Err(ChannelError::Oversized { limit: self.limit });
        }
        if !is_last {
            self.is_text = Some(is_text);
            self.parts.extend_from_slice(&part);
            return Ok(None);
        }
        let whole = match self.is_text.take() {
            // As it came.
            None => part,
            Some(_) => {
                self.parts.extend_from_slice(&part);
                self.parts.split().freeze()
            }
        };
        if !is_text {
            return Ok(Some(ChannelMessage::Binary(whole)));
        }
        let text = String::from_utf8(whole.into());
        let text = text.map_err(|_| ChannelError::Framing("a text that is not utf-8"))?;
        Ok(Some(ChannelMessage::Text(text)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(joiner: &mut Joiner, pieces: impl IntoIterator<Item = Bytes>) -> Vec<ChannelMessage> {
        pieces.into_iter().filter_map(|piece| joiner.take(piece).unwrap()).collect()
    }

    fn split(message: impl Into<ChannelMessage>, size: usize) -> Vec<Vec<u8>> {
        Pieces::of(message.into(), size).map(|piece| piece.to_vec()).collect()
    }

    fn error(limit: usize, pieces: &[&'static [u8]]) -> ChannelError {
        let mut joiner = Joiner::new(limit);
        let taken = pieces.iter().map(|piece| joiner.take(Bytes::from_static(piece)));
        taken.filter_map(Result::err).next().expect("an error")
    }

    #[test]
    fn pieces_are_as_documented() {
        assert_eq!(split("", 16), [[0x03]]);
        assert_eq!(split(Bytes::new(), 16), [[0x01]]);
        assert_eq!(split("abc", 3), [&[0x02, b'a', b'b'][..], &[0x03, b'c']]);
        assert_eq!(split(vec![1, 2, 3, 4], 3), [[0x00, 1, 2], [0x01, 3, 4]]);
    }

    #[test]
    fn a_piece_is_as_large_as_both_sides_take() {
        let sizes =
            |size| -> Vec<_> { split(vec![7; 70_000], size).iter().map(Vec::len).collect() };
        assert_eq!(sizes(usize::MAX), [MAX_PIECE, MAX_PIECE, 70_003 - 2 * MAX_PIECE]);
        assert_eq!(sizes(50_000), sizes(MAX_PIECE));
        assert_eq!(split(vec![7; 3], 0).len(), 3, "and carries something in any case");
    }

    #[test]
    fn what_breaks_the_rules_is_told() {
        let broken: [(&[&'static [u8]], &str); 7] = [
            (&[b""], "a piece without flags"),
            (&[b"\x04a"], "unknown flags"),
            (&[b"\x80a"], "unknown flags"),
            (&[b"\x00"], "a piece without anything in it"),
            (&[b"\x00a", b"\x03b"], "pieces of two messages are mixed"),
            (&[b"\x02a", b"\x01b"], "pieces of two messages are mixed"),
            (&[b"\x02\xc3", b"\x03\x28"], "a text that is not utf-8"),
        ];
        for (pieces, expected) in broken {
            match error(100, pieces) {
                ChannelError::Framing(what) => assert_eq!(what, expected),
                other => panic!("{other:?} of {pieces:?}"),
            }
        }
    }

    #[test]
    fn a_message_is_joined_to_its_bound_and_no_further() {
        let mut joiner = Joiner::new(4);
        let whole = join(&mut joiner, [Bytes::from_static(b"\0abc"), Bytes::from_static(b"\x01d")]);
        assert_eq!(whole, [ChannelMessage::from(b"abcd".to_vec())]);
        for pieces in [&[b"\x01abcde" as &[u8]][..], &[b"\0abc", b"\0de"]] {
            assert!(matches!(error(4, pieces), ChannelError::Oversized { limit: 4 }), "{pieces:?}");
        }
    }

    #[test]
    fn a_character_may_be_in_two_pieces() {
        let pieces = [Bytes::from_static(b"\x02\xc3"), Bytes::from_static(b"\x03\xa4")];
        assert_eq!(join(&mut Joiner::new(2), pieces), [ChannelMessage::from("ä")]);
    }

    fn message() -> impl Strategy<Value = ChannelMessage> {
        let bytes = prop::collection::vec(any::<u8>(), 0..300).prop_map(ChannelMessage::from);
        prop_oneof![bytes, ".{0,100}".prop_map(ChannelMessage::from)]
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(message(), 0..8),
            size in 0_usize..400,
        ) {
            let pieces: Vec<_> =
                messages.iter().flat_map(|message| Pieces::of(message.clone(), size)).collect();
            for piece in &pieces {
                prop_assert!(piece.len() <= size.max(2));
            }
            prop_assert_eq!(join(&mut Joiner::new(1000), pieces), messages);
        }

        #[test]
        fn whatever_arrives_is_joined_within_the_bound_or_refused(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..40),
        ) {
            let mut joiner = Joiner::new(64);
            for mut piece in pieces {
                // Else hardly any would pass.
                if let Some(flags) = piece.first_mut() {
                    *flags &= 0x07;
                }
                match joiner.take(piece.into()) {
                    Ok(Some(message)) => prop_assert!(message.len() <= 64),
                    Ok(None) => prop_assert!(joiner.parts.len() <= 64),
                    Err(_) => break,
                }
            }
        }
    }
}
