//! WebSocket frames as agents send them (RFC 6455, section 5): from bytes received to messages.
//!
//! Headers are parsed and formatted by the WebSocket library; what is ours is the buffering. The
//! library keeps a buffer for each connection, copies what it reads into it and grows it again for
//! every message. Here bytes are read into the [`Scratch`], a message gets memory of exactly its
//! size, and a connection on which nothing is half arrived holds nothing. Used by
//! [`Wire`](super::wire::Wire) alone.

use std::{
    io::{self, Cursor},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::{
    Error,
    protocol::{
        CloseFrame,
        frame::{
            FrameHeader,
            coding::{CloseCode, Control, Data, OpCode},
        },
    },
};
use tokio_util::io::poll_read_buf;

use super::{scratch::Scratch, wire::SocketFault};

/// Of a large frame this much is made room for at a time: a length that is only claimed costs
/// nothing.
const STEP: usize = 16 * 1024;

/// Room for a header whose rest is missing.
const HEADER_ROOM: usize = 256;

/// The most that a control frame may carry (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 125;

/// A message or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Text(Arc<str>),
    Binary,
    /// To be answered with the same bytes.
    Ping(Bytes),
    Pong,
    Close(Option<CloseFrame>),
}

/// What of one connection's messages has come in.
#[derive(Debug)]
pub(super) struct Frames {
    decoder: Decoder,
    /// What was received and not taken yet. While there is any, the scratch is empty.
    kept: BytesMut,
}

#[derive(Debug)]
struct Decoder {
    max_message: usize,
    fragments: Option<Box<Fragments>>,
}

/// A message whose last frame has not come.
#[derive(Debug)]
struct Fragments {
    is_text: bool,
    payload: Vec<u8>,
}

/// What stands at the beginning of some bytes.
enum Parsed {
    /// A frame whose rest is missing.
    Part,
    /// A frame of this many bytes, and the message that it completes.
    Whole(usize, Option<Incoming>),
}

impl Frames {
    /// `early` is what came right behind the handshake.
    pub(super) fn new(max_message: usize, early: &[u8]) -> Self {
        Self { decoder: Decoder { max_message, fragments: None }, kept: early.into() }
    }

    /// The next message of what was received.
    pub(super) fn take(&mut self, scratch: &mut Scratch) -> Result<Option<Incoming>, SocketFault> {
        loop {
            let bytes =
                if self.kept.is_empty() { scratch.unread_mut() } else { &mut self.kept[..] };
            if bytes.is_empty() {
                return Ok(None);
            }
            let Parsed::Whole(size, message) = self.decoder.parse(bytes)? else { return Ok(None) };
            if self.kept.is_empty() {
                scratch.take(size);
            } else {
                self.kept.advance(size);
                if self.kept.is_empty() {
                    // Gives the memory back.
                    self.kept = BytesMut::new();
                }
            }
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// Reads once what the stream has; how much that was, 0 at its end. Only once all messages
    /// before were [taken](Self::take).
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Result<usize, SocketFault>> {
        self.keep(scratch);
        if self.kept.is_empty() {
            let mut buffer = ReadBuf::new(scratch.buffer());
            ready!(Pin::new(stream).poll_read(cx, &mut buffer)).map_err(gone)?;
            let size = buffer.filled().len();
            scratch.fill(size);
            return Poll::Ready(Ok(size));
        }
        let missing = match FrameHeader::parse(&mut Cursor::new(&self.kept[..])) {
            Ok(Some((header, length))) => {
                let whole = header.len(length) as u64 + length;
                usize::try_from(whole).unwrap_or(usize::MAX).saturating_sub(self.kept.len())
            }
            _ => HEADER_ROOM,
        };
        // No more than the frame's own rest: what follows it is for the scratch again.
        let missing = missing.clamp(1, STEP);
        self.kept.reserve(missing);
        poll_read_buf(Pin::new(stream), cx, &mut (&mut self.kept).limit(missing)).map_err(gone)
    }

    /// Keeps what was not taken: the scratch is about to be somebody else's.
    pub(super) fn keep(&mut self, scratch: &mut Scratch) {
        if !scratch.unread().is_empty() {
            self.kept.extend_from_slice(scratch.unread());
        }
        scratch.fill(0);
    }
}

impl Decoder {
    /// Unmasks a frame that is whole where it lies.
    fn parse(&mut self, bytes: &mut [u8]) -> Result<Parsed, SocketFault> {
        let mut cursor = Cursor::new(&*bytes);
        let Some((header, length)) = FrameHeader::parse(&mut cursor)? else {
            return Ok(Parsed::Part);
        };
        let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mask = self.check(&header, length)?;
        let Some(payload) = bytes[start..].get_mut(..length) else { return Ok(Parsed::Part) };
        apply_mask(payload, mask);
        let message = match header.opcode {
            OpCode::Control(kind) => Some(control(kind, payload)?),
            OpCode::Data(kind) => self.data(kind, header.is_final, payload)?,
        };
        Ok(Parsed::Whole(start + length, message))
    }

    /// What can be said of a frame before its payload is here. Returns its mask.
    fn check(&self, header: &FrameHeader, length: usize) -> Result<[u8; 4], SocketFault> {
        let so_far = self.fragments.as_ref().map_or(0, |fragments| fragments.payload.len());
        let is_control = matches!(header.opcode, OpCode::Control(_));
        let limit = self.max_message - if is_control { 0 } else { so_far };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(broken("reserved bits are set"));
        }
        if length > limit {
            return Err(SocketFault::TooBig);
        }
        if is_control && !header.is_final {
            return Err(broken("a control frame is fragmented"));
        }
        if is_control && length > MAX_CONTROL {
            return Err(broken("a control frame is too big"));
        }
        match (&header.opcode, &self.fragments) {
            (OpCode::Data(Data::Continue), None) => Err(broken("a continuation of nothing")),
            (OpCode::Data(Data::Text | Data::Binary), Some(_)) => {
                Err(broken("a message begins inside another"))
            }
            _ => header.mask.ok_or_else(|| broken("a frame is not masked")),
        }
    }

    fn data(
        &mut self,
        kind: Data,
        is_final: bool,
        payload: &[u8],
    ) -> Result<Option<Incoming>, SocketFault> {
        let Some(mut fragments) = self.fragments.take() else {
            let is_text = kind == Data::Text;
            if is_final {
                return message(is_text, payload).map(Some);
            }
            self.fragments = Some(Box::new(Fragments { is_text, payload: payload.to_vec() }));
            return Ok(None);
        };
        fragments.payload.extend_from_slice(payload);
        if is_final {
            return message(fragments.is_text, &fragments.payload).map(Some);
        }
        self.fragments = Some(fragments);
        Ok(None)
    }
}

fn message(is_text: bool, payload: &[u8]) -> Result<Incoming, SocketFault> {
    if !is_text {
        return Ok(Incoming::Binary);
    }
    let text = str::from_utf8(payload).map_err(|_| SocketFault::InvalidUtf8)?;
    Ok(Incoming::Text(text.into()))
}

fn control(kind: Control, payload: &[u8]) -> Result<Incoming, SocketFault> {
    match kind {
        Control::Ping => Ok(Incoming::Ping(Bytes::copy_from_slice(payload))),
        Control::Pong => Ok(Incoming::Pong),
        Control::Close => close(payload).map(Incoming::Close),
        // The header's parser has refused it.
        Control::Reserved(_) => Err(broken("an unknown control frame")),
    }
}

fn close(payload: &[u8]) -> Result<Option<CloseFrame>, SocketFault> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            let reason = str::from_utf8(reason).map_err(|_| SocketFault::InvalidUtf8)?;
            Ok(Some(CloseFrame { code, reason: reason.into() }))
        }
        [_] => Err(broken("half a close code")),
    }
}

/// Eight bytes at a time, of which the compiler makes as many as the processor takes.
fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c, d]) {
        *byte ^= mask;
    }
}

fn broken(fault: &str) -> SocketFault {
    SocketFault::BadFraming(fault.to_owned())
}

fn gone(error: io::Error) -> SocketFault {
    SocketFault::from(Error::Io(error))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 100_000;
    const MASK: [u8; 4] = [0x6d, 0xb6, 0xb2, 0x80];

    /// Gives what it has piece by piece, with a pause before each.
    struct Pieces(VecDeque<Vec<u8>>, bool);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1 = !self.1;
            if self.1 {
                return Poll::Pending;
            }
            if let Some(mut piece) = self.0.pop_front() {
                let fits = piece.len().min(buffer.remaining());
                buffer.put_slice(&piece[..fits]);
                if fits < piece.len() {
                    self.0.push_front(piece.split_off(fits));
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    fn header(opcode: OpCode, is_final: bool, length: usize) -> Vec<u8> {
        let mask = Some(MASK);
        let header = FrameHeader { is_final, opcode, mask, ..FrameHeader::default() };
        let mut bytes = Vec::new();
        header.format(length as u64, &mut bytes).unwrap();
        bytes
    }

    fn unmasked(masked: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut payload = masked.to_vec();
        apply_mask(&mut payload, mask);
        payload
    }

    fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(opcode, is_final, payload.len());
        bytes.extend(unmasked(payload, MASK));
        bytes
    }

    fn text(payload: &str) -> Vec<u8> {
        frame(OpCode::Data(Data::Text), true, payload.as_bytes())
    }

    fn poll(frames: &mut Frames, stream: &mut Pieces, scratch: &mut Scratch) -> Option<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match frames.poll_read(stream, &mut cx, scratch) {
            Poll::Ready(read) => Some(read.unwrap()),
            Poll::Pending => None,
        }
    }

    /// All that comes of these pieces, where no more than `at_once` messages are taken before the
    /// scratch is given back.
    fn received(pieces: Vec<Vec<u8>>, at_once: usize) -> Vec<Incoming> {
        let mut frames = Frames::new(MAX, b"");
        let mut stream = Pieces(pieces.into(), false);
        let mut messages = Vec::new();
        loop {
            let mut scratch = Scratch::borrow();
            let enough = messages.len() + at_once;
            while messages.len() < enough
                && let Some(message) = frames.take(&mut scratch).unwrap()
            {
                messages.push(message);
            }
            if messages.len() < enough && poll(&mut frames, &mut stream, &mut scratch) == Some(0) {
                return messages;
            }
            frames.keep(&mut scratch);
        }
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_arrive(
            lengths in prop::collection::vec(
                prop_oneof![0..300_usize, 60_000..70_000_usize], 1..8),
            cuts in prop::collection::vec(1..40_000_usize, 0..40),
            at_once in 1..4_usize,
        ) {
            let texts: Vec<String> = lengths
                .iter()
                .map(|length| "abcdefgü".chars().cycle().take(*length).collect())
                .collect();
            let mut rest: Vec<u8> = texts.iter().flat_map(|payload| {
                let (head, tail) = payload.as_bytes().split_at(payload.len() / 3);
                let mut all = text(payload);
                all.extend(frame(OpCode::Control(Control::Ping), true, b"p"));
                all.extend(frame(OpCode::Data(Data::Text), false, head));
                all.extend(frame(OpCode::Control(Control::Pong), true, b""));
                all.extend(frame(OpCode::Data(Data::Continue), true, tail));
                all
            }).collect();
            let mut pieces = Vec::new();
            for cut in cuts {
                let behind = rest.split_off(cut.min(rest.len()));
                pieces.push(std::mem::replace(&mut rest, behind));
            }
            pieces.push(rest);
            pieces.retain(|piece| !piece.is_empty());
            let expected: Vec<_> = texts.iter().flat_map(|payload| [
                Incoming::Text(payload.as_str().into()),
                Incoming::Ping(Bytes::from_static(b"p")),
                Incoming::Pong,
                Incoming::Text(payload.as_str().into()),
            ]).collect();
            prop_assert_eq!(received(pieces, at_once), expected);
        }

        #[test]
        fn masking_is_undone_at_every_length(
            payload in prop::collection::vec(any::<u8>(), 0..40), mask: [u8; 4],
        ) {
            let slowly: Vec<u8> =
                payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            prop_assert_eq!(unmasked(&payload, mask), slowly);
        }
    }

    #[test]
    fn nothing_is_held_between_messages() {
        let mut frames = Frames::new(MAX, b"");
        let message = text(&"x".repeat(5000));
        let (head, tail) = message.split_at(3000);
        let mut stream = Pieces([head.to_vec(), tail.to_vec()].into(), false);
        for incomplete in [true, false] {
            let mut scratch = Scratch::borrow();
            while poll(&mut frames, &mut stream, &mut scratch).is_none() {}
            assert_eq!(frames.take(&mut scratch).unwrap().is_none(), incomplete);
            frames.keep(&mut scratch);
            assert_eq!(frames.kept.capacity() > 0, incomplete);
        }
    }

    #[test]
    fn a_length_that_is_only_claimed_takes_no_memory() {
        let mut frames = Frames::new(1 << 30, b"");
        let claim = header(OpCode::Data(Data::Text), true, 1 << 29);
        let mut stream = Pieces([claim, vec![b' '; 9]].into(), false);
        for _ in 0..8 {
            let mut scratch = Scratch::borrow();
            poll(&mut frames, &mut stream, &mut scratch);
            assert!(frames.take(&mut scratch).unwrap().is_none());
            frames.keep(&mut scratch);
        }
        assert!(frames.kept.capacity() < 4 * STEP, "{}", frames.kept.capacity());
    }

    #[test]
    fn what_came_with_the_handshake_comes_first() {
        let mut frames = Frames::new(MAX, &text("early"));
        let taken = frames.take(&mut Scratch::borrow()).unwrap();
        assert_eq!(taken, Some(Incoming::Text("early".into())));
    }
}
