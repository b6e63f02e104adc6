//! What is on its way to the kernel: frames, in order, and how much of them it has.
//!
//! The protocol counts a message as delivered when the kernel has accepted its last byte, and
//! hands it on to somebody else when the socket dies earlier, so every frame is known until then. A
//! stream that takes bytes may keep them (TLS does, while the kernel takes nothing): the kernel has them
//! once the stream is flushed, and nothing more is handed to it before.
//! Frames are laid side by side in the [`Scratch`] and go with one call of the system, many at a
//! time; that copy costs less than a vectored write of all their pieces does. Used by
//! [`Wire`](super::wire::Wire) alone.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::{outbox::Parcel, scratch::Scratch};

/// Above this many places an emptied queue gives its memory back.
const KEEP_CAPACITY: usize = 32;

/// A header without mask, which the server's frames are (RFC 6455, section 5.1).
const MAX_HEADER: usize = 10;

#[derive(Debug)]
struct Frame {
    header: [u8; MAX_HEADER],
    header_len: u8,
    load: Load,
}

#[derive(Debug)]
enum Load {
    Parcel(Parcel),
    Control(Bytes),
}

impl Load {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Parcel(parcel) => parcel.text().as_bytes(),
            Self::Control(payload) => payload,
        }
    }
}

impl Frame {
    fn new(opcode: OpCode, load: Load) -> Self {
        let mut header = [0; MAX_HEADER];
        let mut rest = &mut header[..];
        // It has room for any header, so this cannot fail.
        let _ = FrameHeader { opcode, ..FrameHeader::default() }
            .format(load.bytes().len() as u64, &mut rest);
        let left = rest.len();
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_HEADER")]
        let header_len = (MAX_HEADER - left) as u8;
        Self { header, header_len, load }
    }

    fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_len)]
    }

    fn len(&self) -> usize {
        usize::from(self.header_len) + self.load.bytes().len()
    }
}

/// See the [module](self). It is as long as its owner makes it: `Wire` bounds that.
#[derive(Debug)]
pub(super) struct Outgoing {
    frames: VecDeque<Frame>,
    /// How much of the first frame the kernel has.
    begun: usize,
    /// How much behind that the stream has taken, and may be keeping.
    taken: usize,
    pending: usize,
    controls: usize,
    accepted: u64,
    /// The stream is handed no more before it is flushed.
    at_once: usize,
    /// The stream refused: what it has not flushed by then never reaches the peer.
    failed: bool,
}

impl Outgoing {
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            begun: 0,
            taken: 0,
            pending: 0,
            controls: 0,
            accepted: 0,
            at_once,
            failed: false,
        }
    }

    /// Bytes that wait for the kernel.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Control frames that wait: small ones, which take more memory than bytes.
    pub(super) fn controls(&self) -> usize {
        self.controls
    }

    /// Whether the kernel has everything.
    pub(super) fn is_idle(&self) -> bool {
        self.pending == 0
    }

    /// Bytes that the kernel has ever taken.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn text(&mut self, parcel: Parcel) {
        self.push(Frame::new(OpCode::Data(Data::Text), Load::Parcel(parcel)));
    }

    pub(super) fn control(&mut self, kind: Control, payload: Bytes) {
        self.push(Frame::new(OpCode::Control(kind), Load::Control(payload)));
    }

    fn push(&mut self, frame: Frame) {
        self.pending += frame.len();
        self.controls += usize::from(matches!(frame.load, Load::Control(_)));
        self.frames.push_back(frame);
    }

    /// Writes what the kernel takes; ready when it has everything. `written` gets each entry whose
    /// last byte it has. After an error nothing more is written.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        written: &mut dyn FnMut(Parcel),
    ) -> Poll<io::Result<()>> {
        if self.pending == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_flush(stream, cx, written))?;
        let mut scratch = Scratch::borrow();
        while self.pending > 0 {
            let buffer = scratch.buffer();
            let room = buffer.len().min(self.at_once);
            let size = self.lay_out(&mut buffer[..room]);
            match ready!(Pin::new(&mut *stream).poll_write(cx, &buffer[..size])) {
                Ok(0) => return Poll::Ready(Err(self.fail(io::ErrorKind::WriteZero.into()))),
                Ok(taken) => self.taken = taken,
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            }
            ready!(self.poll_flush(stream, cx, written))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the kernel has what the stream has taken; `written` gets each entry whose last byte
    /// it has then. A stream that failed may well say that it is flushed, since it keeps nothing.
    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        written: &mut dyn FnMut(Parcel),
    ) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.taken > 0 {
            ready!(Pin::new(stream).poll_flush(cx)).map_err(|error| self.fail(error))?;
            let taken = std::mem::take(&mut self.taken);
            self.advance(taken, written);
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.failed = true;
        error
    }

    /// Lays out what is next, as much as there is room for; how much that is.
    fn lay_out(&self, buffer: &mut [u8]) -> usize {
        let mut skip = self.begun;
        let mut size = 0;
        for frame in &self.frames {
            for piece in [frame.header(), frame.load.bytes()] {
                let rest = &piece[skip.min(piece.len())..];
                skip = skip.saturating_sub(piece.len());
                let fits = rest.len().min(buffer.len() - size);
                buffer[size..size + fits].copy_from_slice(&rest[..fits]);
                size += fits;
            }
            if size == buffer.len() {
                break;
            }
        }
        size
    }

    fn advance(&mut self, taken: usize, written: &mut dyn FnMut(Parcel)) {
        self.pending -= taken;
        self.accepted += taken as u64;
        self.begun += taken;
        while self.frames.front().is_some_and(|frame| frame.len() <= self.begun)
            && let Some(frame) = self.frames.pop_front()
        {
            self.begun -= frame.len();
            match frame.load {
                Load::Parcel(parcel) => written(parcel),
                Load::Control(_) => self.controls -= 1,
            }
        }
        if self.frames.is_empty() && self.frames.capacity() > KEEP_CAPACITY {
            self.frames = VecDeque::new();
        }
    }

    /// Takes back the entries of which the stream has nothing yet, oldest first. A frame that was
    /// begun stays: the peer needs its end to understand what follows.
    pub(super) fn withdraw(&mut self) -> Vec<Parcel> {
        let (mut begun, mut bytes, mut controls) = (0, 0, 0);
        for frame in &self.frames {
            if bytes >= self.begun + self.taken {
                break;
            }
            begun += 1;
            bytes += frame.len();
            controls += usize::from(matches!(frame.load, Load::Control(_)));
        }
        let withdrawn = self.frames.split_off(begun);
        (self.pending, self.controls) = (bytes - self.begun, controls);
        parcels(withdrawn).collect()
    }

    /// Takes back everything that is not fully with the kernel. True if the stream failed, or a frame
    /// was begun and is cut off now: the socket is good for nothing more.
    pub(super) fn abandon(&mut self) -> (Vec<Parcel>, bool) {
        let cut = self.failed || self.begun + self.taken > 0;
        (self.begun, self.taken, self.pending, self.controls) = (0, 0, 0, 0);
        (parcels(std::mem::take(&mut self.frames)).collect(), cut)
    }
}

fn parcels(frames: VecDeque<Frame>) -> impl Iterator<Item = Parcel> {
    frames.into_iter().filter_map(|frame| match frame.load {
        Load::Parcel(parcel) => Some(parcel),
        Load::Control(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;

    fn reply(text: &str) -> Parcel {
        Parcel::Reply(text.into())
    }

    fn texts(parcels: Vec<Parcel>) -> Vec<String> {
        parcels.iter().map(|parcel| parcel.text().to_string()).collect()
    }

    /// Writes until the stream takes no more; what was written, and whether that was all.
    fn write(outgoing: &mut Outgoing, stream: &mut DuplexStream) -> (Vec<String>, bool) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut written = Vec::new();
        let polled = outgoing.poll_write(stream, &mut cx, &mut |parcel| written.push(parcel));
        (texts(written), polled.is_ready())
    }

    async fn read(stream: &mut DuplexStream, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        stream.read_exact(&mut buffer).await.unwrap();
        buffer
    }

    #[tokio::test]
    async fn an_entry_is_written_when_the_stream_has_its_last_byte() {
        let (mut near, mut far) = duplex(7);
        let mut outgoing = Outgoing::new(usize::MAX);
        outgoing.text(reply("abc"));
        outgoing.text(reply("defg"));
        assert_eq!((outgoing.pending(), outgoing.accepted()), (11, 0));
        assert_eq!(write(&mut outgoing, &mut near), (vec!["abc".to_owned()], false));
        assert_eq!((outgoing.pending(), outgoing.accepted()), (4, 7));
        assert_eq!(read(&mut far, 7).await, b"\x81\x03abc\x81\x04");
        assert_eq!(write(&mut outgoing, &mut near), (vec!["defg".to_owned()], true));
        assert_eq!(read(&mut far, 4).await, b"defg");
        assert_eq!(outgoing.pending(), 0);
    }

    #[tokio::test]
    async fn what_was_not_begun_can_be_withdrawn_and_the_rest_be_finished() {
        let (mut near, mut far) = duplex(3);
        let mut outgoing = Outgoing::new(usize::MAX);
        outgoing.text(reply("ab"));
        outgoing.control(Control::Pong, Bytes::from_static(b"p"));
        outgoing.text(reply("cd"));
        assert_eq!(write(&mut outgoing, &mut near), (vec![], false));
        assert_eq!(texts(outgoing.withdraw()), ["cd"]);
        assert_eq!(outgoing.pending(), 1);
        assert_eq!(read(&mut far, 3).await, b"\x81\x02a");
        assert_eq!(write(&mut outgoing, &mut near), (vec!["ab".to_owned()], true));
        assert!(outgoing.abandon().0.is_empty());
    }

    #[tokio::test]
    async fn control_frames_are_counted_until_they_are_written_or_taken_back() {
        let (mut near, mut far) = duplex(3);
        let mut outgoing = Outgoing::new(usize::MAX);
        for payload in [&b"a"[..], b"b", b"c"] {
            outgoing.control(Control::Pong, Bytes::from_static(payload));
        }
        outgoing.text(reply("d"));
        assert_eq!(outgoing.controls(), 3);
        write(&mut outgoing, &mut near);
        assert_eq!(outgoing.controls(), 2);
        read(&mut far, 3).await;
        outgoing.withdraw();
        assert_eq!((outgoing.controls(), outgoing.pending()), (0, 0));
        outgoing.control(Control::Ping, Bytes::new());
        outgoing.abandon();
        assert_eq!(outgoing.controls(), 0);
    }

    #[tokio::test]
    async fn a_frame_between_two_writes_is_not_begun() {
        let (mut near, _far) = duplex(4);
        let mut outgoing = Outgoing::new(usize::MAX);
        outgoing.text(reply("ab"));
        outgoing.text(reply("cd"));
        assert_eq!(write(&mut outgoing, &mut near), (vec!["ab".to_owned()], false));
        let (left, cut) = outgoing.abandon();
        assert_eq!((texts(left), cut), (vec!["cd".to_owned()], false));
    }

    /// Takes everything, as a TLS connection does, and passes on what is behind it takes when flushed.
    struct Keeping {
        kept: Vec<u8>,
        behind: DuplexStream,
    }

    impl AsyncWrite for Keeping {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            assert!(self.kept.is_empty(), "handed more before it was flushed");
            self.kept.extend(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let Self { kept, behind } = &mut *self;
            while !kept.is_empty() {
                let taken = ready!(Pin::new(&mut *behind).poll_write(cx, kept))?;
                kept.drain(..taken);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_a_stream_keeps_is_not_written_until_it_is_flushed() {
        let (behind, mut far) = duplex(5);
        let mut near = Keeping { kept: Vec::new(), behind };
        // The third frame is begun together with the two before.
        let mut outgoing = Outgoing::new(10);
        for text in ["ab", "cd", "ef", "gh"] {
            outgoing.text(reply(text));
        }
        let (mut cx, mut written) = (Context::from_waker(std::task::Waker::noop()), Vec::new());
        let mut write = |outgoing: &mut Outgoing| {
            outgoing.poll_write(&mut near, &mut cx, &mut |parcel| written.push(parcel)).is_ready()
        };
        assert!(!write(&mut outgoing));
        assert_eq!((outgoing.accepted(), outgoing.pending()), (0, 16));
        assert_eq!(texts(outgoing.withdraw()), ["gh"], "the stream has something of the others");
        assert_eq!(outgoing.pending(), 12);
        read(&mut far, 5).await;
        assert!(!write(&mut outgoing) || outgoing.is_idle());
        read(&mut far, 5).await;
        assert!(write(&mut outgoing));
        assert_eq!((outgoing.accepted(), outgoing.is_idle()), (12, true));
        assert_eq!(texts(written), ["ab", "cd", "ef"]);
    }

    #[tokio::test]
    async fn what_a_stream_keeps_is_taken_back_when_it_is_abandoned() {
        let (behind, _far) = duplex(3);
        let mut near = Keeping { kept: Vec::new(), behind };
        let mut outgoing = Outgoing::new(usize::MAX);
        outgoing.text(reply("ab"));
        outgoing.text(reply("cd"));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = outgoing.poll_write(&mut near, &mut cx, &mut |_| panic!("not written"));
        assert!(polled.is_pending());
        let (left, cut) = outgoing.abandon();
        assert_eq!((texts(left), cut), (vec!["ab".to_owned(), "cd".to_owned()], true));
        assert!(outgoing.is_idle());
    }

    /// Takes so many bytes, and refuses what follows; it says that it is flushed, as TCP always does.
    struct Reset {
        takes: usize,
    }

    impl AsyncWrite for Reset {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            match self.takes.min(bytes.len()) {
                0 => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                taken => {
                    self.takes -= taken;
                    Poll::Ready(Ok(taken))
                }
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_stream_refused_is_never_written() {
        // Nothing of the three; the first; the first and a part of the second.
        for (takes, first) in [(0, 0), (4, 1), (6, 1)] {
            let mut near = Reset { takes };
            let mut outgoing = Outgoing::new(usize::MAX);
            for text in ["ab", "cd", "ef"] {
                outgoing.text(reply(text));
            }
            let (mut cx, mut written) = (Context::from_waker(std::task::Waker::noop()), Vec::new());
            let mut each = |parcel| written.push(parcel);
            let polled = outgoing.poll_write(&mut near, &mut cx, &mut each);
            assert!(matches!(polled, Poll::Ready(Err(_))), "{polled:?}");
            // As a session that ends does it.
            let behind = outgoing.withdraw();
            for poll in [Outgoing::poll_flush, Outgoing::poll_write] {
                let polled = poll(&mut outgoing, &mut near, &mut cx, &mut each);
                assert!(outgoing.is_idle() || matches!(polled, Poll::Ready(Err(_))), "{polled:?}");
            }
            assert_eq!(outgoing.accepted(), takes as u64);
            let (mut left, cut) = outgoing.abandon();
            left.extend(behind);
            assert!(cut, "nothing more may go over it");
            assert_eq!(texts(written), ["ab", "cd", "ef"][..first]);
            assert_eq!(texts(left), ["ab", "cd", "ef"][first..]);
        }
    }

    /// Takes everything, and cannot pass it on.
    struct Cut;

    impl AsyncWrite for Cut {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_stream_could_not_pass_on_is_taken_back() {
        let mut outgoing = Outgoing::new(4);
        for text in ["ab", "cd"] {
            outgoing.text(reply(text));
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut each = |_| panic!("not written");
        assert!(matches!(outgoing.poll_write(&mut Cut, &mut cx, &mut each), Poll::Ready(Err(_))));
        let behind = outgoing.withdraw();
        // Whatever the stream says now.
        let mut healed = Reset { takes: usize::MAX };
        assert!(matches!(
            outgoing.poll_flush(&mut healed, &mut cx, &mut each),
            Poll::Ready(Err(_))
        ));
        let (mut left, cut) = outgoing.abandon();
        left.extend(behind);
        assert_eq!((texts(left), cut), (vec!["ab".to_owned(), "cd".to_owned()], true));
    }

    #[tokio::test]
    async fn what_was_begun_is_cut_off_when_it_is_abandoned() {
        let (mut near, _far) = duplex(1);
        let mut outgoing = Outgoing::new(usize::MAX);
        outgoing.text(reply("ab"));
        write(&mut outgoing, &mut near);
        let (left, cut) = outgoing.abandon();
        assert_eq!((texts(left), cut), (vec!["ab".to_owned()], true));
    }

    #[tokio::test]
    async fn many_frames_and_long_ones_arrive_as_they_are() {
        let (mut near, mut far) = duplex(10_000);
        let mut outgoing = Outgoing::new(usize::MAX);
        let mut expected = Vec::new();
        for length in (0..200).chain([125, 126, 65_535, 65_536]) {
            outgoing.text(reply(&"x".repeat(length)));
            let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
            header.format(length as u64, &mut expected).unwrap();
            expected.extend(std::iter::repeat_n(b'x', length));
        }
        assert_eq!(outgoing.pending(), expected.len());
        let mut seen: Vec<u8> = Vec::new();
        loop {
            let done = write(&mut outgoing, &mut near).1;
            let mut some = [0; 10_000];
            let size = far.read(&mut some).await.unwrap();
            seen.extend(&some[..size]);
            if done && seen.len() == expected.len() {
                break;
            }
        }
        assert!(seen == expected);
    }
}
