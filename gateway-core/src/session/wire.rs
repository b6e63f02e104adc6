//! One agent's WebSocket, with exact knowledge of what was written.
//!
//! [`Frames`] knows what comes in, [`Outgoing`] what goes out; both directions are driven from one
//! task, so that a peer that does not read can still be read from. An entry counts as delivered
//! when the kernel has accepted its last byte. Pings and close frames are answered here. Owned by
//! the session's task.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use conexus_plugin_api::{
    Point,
    host::{Delivered, Event},
};
use conexus_protocol::CloseReason;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Duration, Instant, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::{
    Error,
    protocol::{
        CloseFrame,
        frame::coding::{CloseCode, Control},
    },
};

use super::{
    frames::{Frames, Incoming},
    handle::SessionHandle,
    outbox::{Parcel, Routed},
    outgoing::Outgoing,
    scratch::Scratch,
};
use crate::router::Router;

/// While this many bytes wait for the kernel, no further entry is laid in behind them: what is
/// still in the outbox can be handed on when the socket dies.
const HIGH_WATER: usize = 32 * 1024;

/// Room for pongs behind the data.
const CONTROL_ROOM: usize = 4 * 1024;

/// How many pongs may wait, each of which takes far more memory than its few bytes.
const MAX_CONTROLS: usize = 256;

/// A peer that takes this much within the write timeout is slow, but not stuck.
const PROGRESS: u64 = 16 * 1024;

/// How long a closing handshake may take before the socket is dropped.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// How long the end of a connection may take that is closed without a closing handshake.
const PARTING: Duration = Duration::from_millis(250);

/// How much is thrown away meanwhile: enough for a message far too big, not for one without end.
const LINGER_BYTES: usize = 32 << 20;

/// What came in.
#[derive(Debug)]
pub(crate) enum Received {
    Text(Arc<str>),
    Binary,
    /// A ping or a pong: nothing to do, but a sign of life.
    Control,
    /// The peer closed, with this code if it gave one.
    Closed(Option<u16>),
    /// Nothing was to be read, and everything is written.
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
        match error {
            Error::Protocol(fault) => Self::BadFraming(fault.to_string()),
            other => Self::Gone(other.to_string()),
        }
    }
}

/// Whose socket it is.
pub(crate) struct Recipient {
    pub(crate) router: Arc<Router>,
    pub(crate) session: Arc<SessionHandle>,
}

impl Recipient {
    fn received(&self, routed: Routed, now: Instant) {
        let (sender, kind) = (Arc::clone(&routed.sender), routed.kind);
        let bytes = routed.text.len();
        routed.delivered(now);
        self.router.observe(Point::Delivered, || {
            let (from, to) = (sender.facts(), self.session.facts());
            let kind = kind.as_str().into();
            Event::Delivered(Arc::new(Delivered { from, to, kind, bytes }))
        });
    }
}

/// See the [module](self).
pub(crate) struct Wire<S> {
    stream: S,
    frames: Frames,
    outgoing: Outgoing,
    stalled: Option<Stall>,
    max_message: usize,
    /// Who gets what is delivered, once that is known.
    recipient: Option<Recipient>,
    /// What comes in can no longer be understood.
    broken: bool,
    /// The answer to the peer's close frame. It is laid in last, and is not withdrawn.
    goodbye: Option<Bytes>,
    /// A close frame came or was laid in: no ping is answered any more.
    closing: bool,
}

/// One of the ways of [`Outgoing`] to the stream.
type PollOut<S> =
    fn(&mut Outgoing, &mut S, &mut Context<'_>, &mut dyn FnMut(Parcel)) -> Poll<io::Result<()>>;

/// Bytes wait for the kernel.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    /// What the kernel had then.
    from: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The server's end of an upgraded connection; `early` is what came right behind the upgrade, and no
    /// more than `at_once` is handed to the stream before it is flushed.
    pub(crate) fn new(stream: S, early: &[u8], max_message: usize, at_once: usize) -> Self {
        Self {
            stream,
            frames: Frames::new(max_message, early),
            outgoing: Outgoing::new(at_once),
            stalled: None,
            max_message,
            recipient: None,
            broken: false,
            goodbye: None,
            closing: false,
        }
    }

    /// From now on what is written is delivered to this session.
    pub(crate) fn belongs_to(&mut self, recipient: Recipient) {
        self.recipient = Some(recipient);
    }

    /// Whether another entry may be [fed](Self::feed).
    pub(crate) fn has_capacity(&self) -> bool {
        self.outgoing.pending() < HIGH_WATER
    }

    /// Whether pings may be read, each of which lays a pong in. More waits than data alone can
    /// amount to only when a peer does not take its pongs.
    pub(crate) fn takes_control(&self) -> bool {
        self.outgoing.pending() < HIGH_WATER + self.max_message + CONTROL_ROOM
            && self.outgoing.controls() < MAX_CONTROLS
    }

    /// Whether everything fed was accepted by the kernel.
    pub(crate) fn is_idle(&self) -> bool {
        self.outgoing.is_idle()
    }

    /// Since when the kernel takes nothing worth mentioning of what waits for it.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled.map(|stall| stall.since)
    }

    /// Lays an entry in as a text frame. It is written by [`poll_send`](Self::poll_send).
    pub(crate) fn feed(&mut self, parcel: Parcel) {
        self.outgoing.text(parcel);
    }

    /// Lays in a WebSocket ping.
    pub(crate) fn ping(&mut self) {
        self.outgoing.control(Control::Ping, Bytes::new());
    }

    /// Writes what was fed; ready when the kernel has everything.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketFault>> {
        self.poll_out(cx, Outgoing::poll_write)
    }

    fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        poll: PollOut<S>,
    ) -> Poll<Result<(), SocketFault>> {
        if self.is_idle() {
            return Poll::Ready(Ok(()));
        }
        let recipient = self.recipient.as_ref();
        let before = self.outgoing.accepted();
        let (mut now, mut delivered) = (None, 0);
        let mut each = |parcel| match parcel {
            Parcel::Routed(routed) => {
                // One look at the clock for all that is written at once.
                let now = *now.get_or_insert_with(Instant::now);
                delivered += 1;
                match recipient {
                    Some(recipient) => recipient.received(routed, now),
                    None => routed.delivered(now),
                }
            }
            Parcel::Forwarded(forwarded) => {
                delivered += 1;
                forwarded.delivered();
            }
            Parcel::Tap(tap) => tap.delivered(),
            Parcel::Reply(_) | Parcel::Word(_) => {}
        };
        let written = poll(&mut self.outgoing, &mut self.stream, cx, &mut each);
        let accepted = self.outgoing.accepted();
        if let Some(recipient) = recipient {
            recipient.router.telemetry.bytes_sent(accepted - before);
            if delivered > 0 {
                recipient.session.count_received(delivered);
            }
        }
        if self.is_idle() {
            self.note_stall(None);
        } else if self.stalled.is_none_or(|stall| accepted >= stall.from + PROGRESS) {
            self.note_stall(Some(Stall { since: Instant::now(), from: accepted }));
        }
        written.map_err(|error| Error::Io(error).into())
    }

    fn note_stall(&mut self, stall: Option<Stall>) {
        if self.stalled.is_none() && stall.is_none() {
            return;
        }
        self.stalled = stall;
        if let Some(Recipient { router, session }) = &self.recipient {
            session.note_stall(stall.map(|stall| router.clock.moment(stall.since)));
        }
    }

    /// The next thing that comes in. What is read along with it stays in the scratch until it is
    /// [kept](Self::keep).
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Result<Received, SocketFault>> {
        loop {
            if let Some(received) = self.take_received(scratch)? {
                return Poll::Ready(Ok(received));
            }
            let size = ready!(self.frames.poll_read(&mut self.stream, cx, scratch))?;
            if let Some(recipient) = &self.recipient {
                recipient.router.telemetry.bytes_received(size);
            }
            if size == 0 {
                let gone = SocketFault::Gone("reset without closing handshake".into());
                return Poll::Ready(Err(gone));
            }
        }
    }

    /// The same, as far as it was read already.
    pub(super) fn take_received(
        &mut self,
        scratch: &mut Scratch,
    ) -> Result<Option<Received>, SocketFault> {
        let taken = self.frames.take(scratch);
        self.broken |= taken.is_err();
        Ok(taken?.map(|incoming| self.received(incoming)))
    }

    /// Takes over what the scratch still holds, which is about to be another session's.
    pub(super) fn keep(&mut self, scratch: &mut Scratch) {
        self.frames.keep(scratch);
    }

    /// Writes what was fed and, if `read`, waits for what comes in. Cancel-safe.
    pub(crate) async fn next(&mut self, read: bool) -> Result<Received, SocketFault> {
        poll_fn(|cx| {
            if let Poll::Ready(sent) = self.poll_send(cx) {
                sent?;
                if !read {
                    return Poll::Ready(Ok(Received::Room));
                }
            }
            if !read {
                return Poll::Pending;
            }
            let mut scratch = Scratch::borrow();
            let received = self.poll_receive(cx, &mut scratch);
            self.keep(&mut scratch);
            received
        })
        .await
    }

    fn received(&mut self, incoming: Incoming) -> Received {
        match incoming {
            Incoming::Text(text) => Received::Text(text),
            Incoming::Binary => Received::Binary,
            Incoming::Pong => Received::Control,
            Incoming::Ping(payload) => {
                if !self.closing {
                    self.outgoing.control(Control::Pong, payload);
                }
                Received::Control
            }
            Incoming::Close(frame) => {
                let frame = frame.map(|frame| match frame.code.is_allowed() {
                    true => frame,
                    false => CloseFrame {
                        code: CloseCode::Protocol,
                        reason: "protocol violation".into(),
                    },
                });
                self.goodbye = Some(close_payload(frame.as_ref()));
                self.closing = true;
                Received::Closed(frame.map(|frame| frame.code.into()))
            }
        }
    }

    /// Waits until everything fed is with the kernel.
    pub(crate) async fn flush(&mut self) -> Result<(), SocketFault> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Looks whether the kernel has by now what the stream was keeping.
    pub(crate) fn settle(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = self.poll_out(&mut cx, Outgoing::poll_flush);
    }

    /// Takes back the entries of which the kernel has nothing yet, oldest first. A frame that was
    /// begun stays: the peer needs its end to understand what follows.
    pub(crate) fn withdraw(&mut self) -> Vec<Parcel> {
        self.outgoing.withdraw()
    }

    /// Takes back everything that is not fully with the kernel. A frame may be cut off after this,
    /// so the socket is good for nothing more: true if one was.
    pub(crate) fn abandon(&mut self) -> (Vec<Parcel>, bool) {
        self.outgoing.abandon()
    }

    /// Says goodbye and waits for the peer's, for a short while.
    ///
    /// What the peer still sends is read and thrown away: data left unread would make the kernel
    /// answer with a reset, which can destroy the close frame before the peer has read it.
    pub(crate) async fn close(mut self, reason: CloseReason, text: &str) {
        let deadline = Instant::now() + LINGER;
        let frame = CloseFrame { code: reason.code().into(), reason: text.into() };
        self.outgoing.control(Control::Close, close_payload(Some(&frame)));
        self.closing = true;
        if !matches!(timeout_at(deadline, self.flush()).await, Ok(Ok(()))) {
            return;
        }
        let mut scrap = LINGER_BYTES;
        let _ = timeout_at(deadline, async {
            while scrap > 0
                && !self.broken
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

    /// Closes without waiting for the peer: it may take what was written, and has a moment for that.
    /// Whatever it still sends can destroy it on the way.
    pub(crate) async fn part(mut self, reason: CloseReason, text: &str) {
        let frame = CloseFrame { code: reason.code().into(), reason: text.into() };
        self.outgoing.control(Control::Close, close_payload(Some(&frame)));
        self.closing = true;
        if matches!(timeout(PARTING, self.flush()).await, Ok(Ok(()))) {
            let _ = timeout(PARTING, self.stream.shutdown()).await;
        }
    }

    /// Completes the closing handshake that the peer began.
    pub(crate) async fn close_acknowledged(mut self) {
        let deadline = Instant::now() + LINGER;
        if let Some(goodbye) = self.goodbye.take() {
            self.outgoing.control(Control::Close, goodbye);
        }
        let _ = timeout_at(deadline, self.flush()).await;
        self.hang_up(deadline, LINGER_BYTES).await;
    }

    async fn hang_up(mut self, deadline: Instant, mut scrap: usize) {
        let _ = timeout_at(deadline, async {
            self.stream.shutdown().await?;
            let mut buffer = [0; 2048];
            while scrap > 0 {
                match self.stream.read(&mut buffer).await? {
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
        if !self.is_idle() {
            let _ = timeout(patience, self.flush()).await;
        }
    }
}

fn close_payload(frame: Option<&CloseFrame>) -> Bytes {
    frame.map_or_else(Bytes::new, |frame| {
        let code = u16::from(frame.code).to_be_bytes();
        [&code, frame.reason.as_bytes()].concat().into()
    })
}
