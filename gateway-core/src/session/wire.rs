//! One agent's WebSocket, with exact knowledge of what was written.
//!
//! Data frames are laid into the [`WriteBuffer`] by hand (a header and the bytes as received, no
//! copy in between); reading and control frames are the library's. An entry counts as delivered
//! when the kernel has accepted its last byte. [`next`](Wire::next) drives both directions, so that
//! a peer that does not read can still be read from. Owned by the session's task.

use std::{collections::VecDeque, future::poll_fn, io, pin::Pin, sync::Arc, task::Poll};

use conexus_plugin_api::{
    Point,
    host::{Delivered, Event},
};
use conexus_protocol::CloseReason;
use futures_util::{Sink as _, Stream as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Duration, Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                FrameHeader,
                coding::{Data, OpCode},
            },
        },
    },
};

use super::{
    handle::SessionHandle,
    outbox::{Parcel, Routed},
    write_buffer::WriteBuffer,
};
use crate::router::Router;

/// While this many bytes wait for the kernel, no further entry is laid in behind them: what is
/// still in the outbox can be handed on when the socket dies.
const HIGH_WATER: usize = 16 * 1024;

/// Room for pongs behind the data.
const CONTROL_ROOM: usize = 4 * 1024;

/// A peer that takes this much within the write timeout is slow, but not stuck.
const PROGRESS: u64 = 16 * 1024;

/// A small read buffer: most agents are silent most of the time.
const READ_BUFFER: usize = 2 * 1024;

/// How long a closing handshake may take before the socket is dropped.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// How much is thrown away meanwhile: enough for a message far too big, not for one without end.
const LINGER_BYTES: usize = 32 << 20;

/// What came in.
#[derive(Debug)]
pub(crate) enum Received {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong: nothing to do, but a sign of life.
    Control,
    /// The peer closed, with this code if it gave one.
    Closed(Option<u16>),
    /// Nothing came in, but there is room for further entries again, or, where nothing is read,
    /// everything is written.
    Room,
}

/// Why a socket broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketFault {
    #[error("peer sent a message over the size limit")]
    TooBig,
    #[error("peer sent text that is not UTF-8")]
    InvalidUtf8,
    #[error("peer broke the framing: {0}")]
    BadFraming(String),
    #[error("connection is gone: {0}")]
    Gone(String),
}

impl SocketFault {
    /// The close code to answer with, where anything can still be said.
    pub(crate) const fn close_reason(&self) -> Option<CloseReason> {
        match self {
            Self::TooBig => Some(CloseReason::TooBig),
            Self::InvalidUtf8 => Some(CloseReason::InvalidUtf8),
            Self::BadFraming(_) => Some(CloseReason::BadFraming),
            Self::Gone(_) => None,
        }
    }
}

impl From<Error> for SocketFault {
    fn from(error: Error) -> Self {
        use tokio_tungstenite::tungstenite::error::ProtocolError;
        match error {
            Error::Capacity(_) => Self::TooBig,
            Error::Utf8(_) => Self::InvalidUtf8,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Gone("reset without closing handshake".into())
            }
            Error::Protocol(fault) => Self::BadFraming(fault.to_string()),
            other => Self::Gone(other.to_string()),
        }
    }
}

#[derive(Debug)]
struct InFlight {
    start: u64,
    end: u64,
    parcel: Parcel,
}

/// Whose socket it is.
pub(crate) struct Recipient {
    pub(crate) router: Arc<Router>,
    pub(crate) session: Arc<SessionHandle>,
}

impl Recipient {
    fn received(&self, routed: Routed) {
        let (sender, kind) = (Arc::clone(&routed.sender), routed.kind);
        let bytes = routed.text.len();
        routed.delivered();
        self.router.observe(Point::Delivered, || {
            let (from, to) = (sender.facts(), self.session.facts());
            let kind = kind.as_str().into();
            Event::Delivered(Arc::new(Delivered { from, to, kind, bytes }))
        });
    }
}

/// See the [module](self).
pub(crate) struct Wire<S> {
    socket: WebSocketStream<WriteBuffer<S>>,
    in_flight: VecDeque<InFlight>,
    stalled: Option<Stall>,
    control_due: bool,
    max_message: usize,
    /// Who gets what is delivered, once that is known.
    recipient: Option<Recipient>,
}

/// Bytes wait for the kernel.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    /// What the kernel had then.
    from: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The server's end of an upgraded connection.
    pub(crate) async fn accept(stream: S, max_message: usize) -> Self {
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = READ_BUFFER;
        // Every write goes straight into our own buffer, whose positions are known.
        config.write_buffer_size = 0;
        config.max_write_buffer_size = 1024;
        config.max_message_size = Some(max_message);
        config.max_frame_size = Some(max_message);
        let stream = WriteBuffer::new(stream);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self {
            socket,
            in_flight: VecDeque::new(),
            stalled: None,
            control_due: false,
            max_message,
            recipient: None,
        }
    }

    /// From now on what is written is delivered to this session.
    pub(crate) fn belongs_to(&mut self, recipient: Recipient) {
        self.recipient = Some(recipient);
    }

    /// Whether another entry may be [fed](Self::feed).
    pub(crate) fn has_capacity(&self) -> bool {
        self.socket.get_ref().pending() < HIGH_WATER
    }

    /// Whether pings may be read, each of which lays a pong in. More waits than data alone can
    /// amount to only when a peer does not take its pongs.
    pub(crate) fn takes_control(&self) -> bool {
        self.socket.get_ref().pending() < HIGH_WATER + self.max_message + CONTROL_ROOM
    }

    /// Whether everything fed was accepted by the kernel.
    pub(crate) fn is_idle(&self) -> bool {
        self.socket.get_ref().pending() == 0 && !self.control_due
    }

    /// Since when the kernel takes nothing worth mentioning of what waits for it.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled.map(|stall| stall.since)
    }

    /// Lays an entry in as a text frame. It is written by [`next`](Self::next).
    pub(crate) fn feed(&mut self, parcel: Parcel) {
        let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
        let payload = parcel.text().as_bytes();
        let buffer = self.socket.get_mut();
        let start = buffer.appended();
        let mut frame = buffer.writer();
        // A buffer in memory takes everything, so neither can fail.
        let _ = header.format(payload.len() as u64, &mut frame);
        let _ = io::Write::write_all(&mut frame, payload);
        drop(frame);
        let end = buffer.appended();
        self.in_flight.push_back(InFlight { start, end, parcel });
        self.note_waiting();
    }

    fn note_waiting(&mut self) {
        let from = self.socket.get_ref().accepted();
        self.stalled.get_or_insert_with(|| Stall { since: Instant::now(), from });
    }

    /// Lays in a WebSocket ping.
    pub(crate) fn ping(&mut self) {
        self.control(Message::Ping(Default::default()));
    }

    fn control(&mut self, message: Message) {
        // It is only laid into the buffer; a fault of the stream shows at the next flush.
        let _ = Pin::new(&mut self.socket).start_send(message);
        self.control_due = true;
        self.note_waiting();
    }

    /// Writes what was fed and, if `read`, waits for what comes in. Cancel-safe.
    pub(crate) async fn next(&mut self, read: bool) -> Result<Received, SocketFault> {
        poll_fn(|cx| {
            let was_full = !self.has_capacity();
            if self.control_due || self.socket.get_ref().pending() > 0 {
                match Pin::new(&mut self.socket).poll_flush(cx) {
                    Poll::Ready(flushed) => {
                        flushed?;
                        self.control_due = false;
                    }
                    Poll::Pending => {}
                }
                self.reap();
                if was_full && self.has_capacity() || !read && self.is_idle() {
                    return Poll::Ready(Ok(Received::Room));
                }
            }
            if !read {
                return Poll::Pending;
            }
            match std::task::ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(frame) => Poll::Ready(Ok(self.received(frame?))),
                None => Poll::Ready(Ok(Received::Closed(None))),
            }
        })
        .await
    }

    fn received(&mut self, frame: Message) -> Received {
        match frame {
            Message::Text(text) => Received::Text(text),
            Message::Binary(_) => Received::Binary,
            Message::Close(frame) => {
                self.control_due = true;
                Received::Closed(frame.map(|frame| frame.code.into()))
            }
            Message::Ping(_) => {
                self.control_due = true;
                Received::Control
            }
            Message::Pong(_) | Message::Frame(_) => Received::Control,
        }
    }

    /// Takes leave of the entries whose last byte the kernel has.
    fn reap(&mut self) {
        let accepted = self.socket.get_ref().accepted();
        while self.in_flight.front().is_some_and(|head| head.end <= accepted) {
            match self.in_flight.pop_front().map(|written| written.parcel) {
                Some(Parcel::Routed(routed)) => match &self.recipient {
                    Some(recipient) => recipient.received(routed),
                    None => routed.delivered(),
                },
                Some(Parcel::Tap(tap)) => tap.delivered(),
                Some(Parcel::Reply(_) | Parcel::Word(_)) | None => {}
            }
        }
        if self.socket.get_ref().pending() == 0 {
            self.stalled = None;
        } else if self.stalled.is_none_or(|stall| accepted >= stall.from + PROGRESS) {
            self.stalled = Some(Stall { since: Instant::now(), from: accepted });
        }
    }

    /// Waits until everything fed is with the kernel.
    pub(crate) async fn flush(&mut self) -> Result<(), SocketFault> {
        let flushed =
            poll_fn(|cx| Pin::new(&mut self.socket).poll_flush(cx)).await.map_err(Into::into);
        self.reap();
        if flushed.is_ok() {
            self.control_due = false;
        }
        flushed
    }

    /// Takes back the entries of which the kernel has nothing yet, oldest first. A frame that was
    /// begun stays: the peer needs its end to understand what follows.
    pub(crate) fn withdraw(&mut self) -> Vec<Parcel> {
        self.reap();
        let accepted = self.socket.get_ref().accepted();
        let begun = self.in_flight.iter().take_while(|entry| entry.start < accepted).count();
        let withdrawn = self.in_flight.split_off(begun);
        if let Some(first) = withdrawn.front() {
            self.socket.get_mut().withdraw_behind(first.start);
        }
        withdrawn.into_iter().map(|entry| entry.parcel).collect()
    }

    /// Takes back everything that is not fully with the kernel. A frame may be cut off after this,
    /// so the socket is good for nothing more: true if one was.
    pub(crate) fn abandon(&mut self) -> (Vec<Parcel>, bool) {
        self.reap();
        let accepted = self.socket.get_ref().accepted();
        let cut = self.in_flight.front().is_some_and(|head| head.start < accepted);
        let parcels = self.in_flight.drain(..).map(|entry| entry.parcel).collect();
        (parcels, cut)
    }

    /// Says goodbye and waits for the peer's, for a short while.
    ///
    /// What the peer still sends is read and thrown away: data left unread would make the kernel
    /// answer with a reset, which can destroy the close frame before the peer has read it.
    pub(crate) async fn close(mut self, reason: CloseReason, text: &str) {
        let deadline = Instant::now() + LINGER;
        let frame = CloseFrame { code: reason.code().into(), reason: text.into() };
        self.control(Message::Close(Some(frame)));
        if !matches!(timeout_at(deadline, self.flush()).await, Ok(Ok(()))) {
            return;
        }
        let mut scrap = LINGER_BYTES;
        let _ = timeout_at(deadline, async {
            while scrap > 0
                && let Ok(received @ (Received::Text(_) | Received::Binary | Received::Control)) =
                    self.next(true).await
            {
                let size = if let Received::Text(text) = received { text.len() } else { 0 };
                scrap = scrap.saturating_sub(size.max(1));
            }
        })
        .await;
        self.hang_up(deadline, scrap).await;
    }

    /// Completes the closing handshake that the peer began.
    pub(crate) async fn close_acknowledged(mut self) {
        let deadline = Instant::now() + LINGER;
        let _ = timeout_at(deadline, self.flush()).await;
        self.hang_up(deadline, LINGER_BYTES).await;
    }

    async fn hang_up(mut self, deadline: Instant, mut scrap: usize) {
        let stream = self.socket.get_mut();
        let _ = timeout_at(deadline, async {
            stream.shutdown().await?;
            let mut buffer = [0; 2048];
            while scrap > 0 {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    size => scrap = scrap.saturating_sub(size),
                }
            }
            io::Result::Ok(())
        })
        .await;
    }

    /// Waits a moment for a frame that was begun to be finished.
    pub(crate) async fn finish_frame(&mut self, patience: Duration) {
        if !self.in_flight.is_empty() {
            let _ = timeout(patience, self.flush()).await;
        }
    }
}
