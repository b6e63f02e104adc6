//! A data channel: messages of any size, sending that waits while too much is unsent, and receiving
//! that makes the other side wait.
//!
//! Wraps a channel of the stack. [`sending`] has the way out; what arrives is joined by whoever asks for it, so
//! that nothing is between the stack and the application. `peer` makes channels, and its own control channel is one.

mod error;
mod message;
mod options;
mod sending;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::{FutureExt, Stream, stream};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, watch};

use self::sending::{Sending, Turn};
pub use self::{error::ChannelError, message::ChannelMessage, options::ChannelOptions};
use super::{
    framing::Joiner,
    transport::{Connection, RawChannel, RawChannelEvent, RawMessage},
};

/// The largest message on the control channel, as the gateway's limit on what clients take.
pub(crate) const MAX_CONTROL_BYTES: usize = 1024 * 1024;

/// A data channel to a peer: a cheap handle, to be cloned at will.
///
/// It ends by [`Channel::close`] of either side, with its connection, or when its last handle is dropped; then
/// what was handed over is still sent.
///
/// All channels of a connection share its flow control: what arrives on one and is not received holds up the
/// others after a while. Receive what arrives, or close the channel.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    raw: Arc<dyn RawChannel>,
    options: ChannelOptions,
    sending: Arc<Sending>,
    receiving: Mutex<Receiving>,
    stage: watch::Sender<Stage>,
    received: AtomicU64,
    is_closing: AtomicBool,
}

/// How far a channel is.
#[derive(Debug, Clone)]
enum Stage {
    Opening,
    Open,
    Ended(Option<ChannelError>),
}

impl Stage {
    fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

struct Receiving {
    events: Option<mpsc::Receiver<RawChannelEvent>>,
    stage: watch::Receiver<Stage>,
    /// On framed channels.
    joiner: Option<Joiner>,
}

impl Channel {
    /// One that an application opens, with what [`ChannelOptions::raw`] made of its options.
    pub(crate) fn ours(
        raw: Arc<dyn RawChannel>,
        options: ChannelOptions,
        connection: &Arc<dyn Connection>,
    ) -> Self {
        let is_framed = options.is_framed();
        Self::new(raw, options, is_framed, connection)
    }

    /// One that the other side opened.
    pub(crate) fn theirs(
        raw: Arc<dyn RawChannel>,
        max_message_bytes: usize,
        connection: &Arc<dyn Connection>,
    ) -> Self {
        let (options, is_framed) = ChannelOptions::of(raw.options(), max_message_bytes);
        Self::new(raw, options, is_framed, connection)
    }

    /// The control channel of a connection.
    pub(crate) fn control(connection: &Arc<dyn Connection>) -> Self {
        let raw = connection.control();
        let options = ChannelOptions {
            protocol: raw.options().protocol,
            negotiated: raw.options().negotiated,
            max_message_bytes: MAX_CONTROL_BYTES,
            ..Default::default()
        };
        Self::new(raw, options, true, connection)
    }

    fn new(
        raw: Arc<dyn RawChannel>,
        options: ChannelOptions,
        is_framed: bool,
        connection: &Arc<dyn Connection>,
    ) -> Self {
        let limit = options.max_message_bytes;
        let sending = Sending::new(raw.clone(), is_framed, limit, Arc::downgrade(connection));
        let stage = watch::Sender::new(Stage::Opening);
        let receiving = Receiving {
            events: raw.events(),
            stage: stage.subscribe(),
            joiner: is_framed.then(|| Joiner::new(limit)),
        };
        Self {
            inner: Arc::new(Inner {
                raw,
                options,
                sending: Arc::new(sending),
                receiving: Mutex::new(receiving),
                stage,
                received: AtomicU64::new(0),
                is_closing: AtomicBool::new(false),
            }),
        }
    }

    /// Its label.
    pub fn label(&self) -> &str {
        self.inner.raw.label()
    }

    /// What it was opened with. Of a channel of the other side's `reliability` is not known, and none.
    pub fn options(&self) -> &ChannelOptions {
        &self.inner.options
    }

    /// Whether messages may be larger than one of SCTP, as on all channels of Conexus's clients that keep order and
    /// lose nothing. On others a message has at most 64 KiB.
    pub fn is_framed(&self) -> bool {
        self.inner.sending.is_framed()
    }

    /// Bytes sent, framing included.
    pub fn bytes_sent(&self) -> u64 {
        self.inner.sending.sent()
    }

    /// Bytes received, framing included.
    pub fn bytes_received(&self) -> u64 {
        self.inner.received.load(Ordering::Relaxed)
    }

    /// Bytes that were handed over and that the other side has not acknowledged.
    pub async fn buffered_amount(&self) -> usize {
        self.inner.raw.buffered_amount().await
    }

    /// Waits until messages can be sent.
    pub(crate) async fn opened(&self) -> Result<(), ChannelError> {
        if matches!(*self.inner.stage.borrow(), Stage::Open) {
            return Ok(());
        }
        let mut stage = self.inner.stage.subscribe();
        let moved = stage.wait_for(|stage| !matches!(stage, Stage::Opening));
        // Whoever receives sees the channel open, and if nobody does it is us.
        let first = async {
            let mut receiving = self.inner.receiving.lock().await;
            if matches!(*self.inner.stage.borrow(), Stage::Opening) {
                let event = receiving.event().await;
                if !matches!(event, Some(RawChannelEvent::Open)) {
                    self.inner.end(None);
                }
                self.inner.open();
            }
        };
        tokio::select! {
            _ = moved => {}
            () = first => {}
        }
        match &*self.inner.stage.borrow() {
            Stage::Ended(error) => Err(error.clone().unwrap_or(ChannelError::Closed)),
            Stage::Opening | Stage::Open => Ok(()),
        }
    }

    /// Sends a message, after all that were handed over before. Waits until the channel is open, and while more than
    /// 1 MiB of it is unsent; then the message is the stack's to deliver.
    ///
    /// A message of several pieces that somebody gives up half way is finished all the same.
    ///
    /// # Errors
    ///
    /// [`ChannelError::TooLarge`], [`ChannelError::Busy`] when 256 messages wait already, or why the
    /// channel has ended.
    pub async fn send(&self, message: impl Into<ChannelMessage>) -> Result<(), ChannelError> {
        let (message, sending) = (message.into(), &self.inner.sending);
        let _place = sending.place(&message)?;
        self.opened().await?;
        if self.inner.is_closing.load(Ordering::Relaxed) {
            return Err(ChannelError::Closed);
        }
        let turn = sending.turn().await;
        self.send_in(turn, message).await
    }

    /// Sends a text as [`send`](Self::send) does, where the channel is open and nobody else is sending; else it is
    /// given back.
    pub(crate) async fn send_at_once(
        &self,
        text: String,
    ) -> Result<Result<(), ChannelError>, String> {
        let is_closing = self.inner.is_closing.load(Ordering::Relaxed);
        let is_open = matches!(*self.inner.stage.borrow(), Stage::Open) && !is_closing;
        let Some(turn) = self.inner.sending.free_turn().filter(|_| is_open) else {
            return Err(text);
        };
        let message = ChannelMessage::Text(text);
        let _place = match self.inner.sending.place(&message) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.send_in(turn, message).await)
    }

    async fn send_in(
        &self,
        turn: OwnedMutexGuard<Turn>,
        message: ChannelMessage,
    ) -> Result<(), ChannelError> {
        let sent = self.inner.sending.send(turn, message).await;
        sent.map_err(|error| self.inner.reason().unwrap_or(error))
    }

    /// The next message; none when the channel has ended in order, or an error once. Cancel-safe.
    pub async fn recv(&self) -> Option<Result<ChannelMessage, ChannelError>> {
        let mut receiving = self.inner.receiving.lock().await;
        loop {
            let event = receiving.event().await;
            let message = match event {
                Some(RawChannelEvent::Open) => {
                    self.inner.open();
                    continue;
                }
                Some(RawChannelEvent::Message(message)) => message,
                Some(RawChannelEvent::Closed) | None => {
                    let was_told = receiving.events.take().is_none();
                    self.inner.end(None);
                    return self.inner.reason().filter(|_| !was_told).map(Err);
                }
            };
            match receiving.join(message, &self.inner.received) {
                Ok(None) => {}
                Ok(Some(message)) => return Some(Ok(message)),
                Err(error) => {
                    receiving.events = None;
                    self.inner.end(Some(error.clone()));
                    return Some(Err(error));
                }
            }
        }
    }

    /// The messages as they come, as by [`Channel::recv`].
    pub fn messages(
        &self,
    ) -> impl Stream<Item = Result<ChannelMessage, ChannelError>> + Send + 'static {
        stream::unfold(self.clone(), |channel| async move {
            let message = channel.recv().await?;
            Some((message, channel))
        })
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.stage.borrow().has_ended() || self.inner.raw.closed().now_or_never().is_some()
    }

    /// Waits until it has ended: in order, or why not.
    ///
    /// What arrived before is to be received first, since the end comes after it.
    pub async fn closed(&self) -> Result<(), ChannelError> {
        let mut stage = self.inner.stage.subscribe();
        tokio::select! {
            _ = stage.wait_for(Stage::has_ended) => {}
            () = self.inner.raw.closed() => self.inner.end(None),
        }
        self.inner.reason().map_or(Ok(()), Err)
    }

    /// Ends it, once all that was handed over is sent, and waits for that. The other side still gets it all.
    pub async fn close(&self) {
        if !self.inner.is_closing.swap(true, Ordering::Relaxed) {
            let channel = self.clone();
            // Not given up with whoever called.
            tokio::spawn(async move {
                channel.inner.sending.finish().await;
                channel.inner.raw.close().await;
                channel.inner.end(None);
            });
        }
        let mut stage = self.inner.stage.subscribe();
        // Fails with the channel alone, which is here.
        let _ = stage.wait_for(Stage::has_ended).await;
    }

    /// Ends it at once, for this reason.
    pub(crate) fn end(&self, error: ChannelError) {
        self.inner.end(Some(error));
    }

    /// Does not keep it from ending when its user drops it.
    pub(crate) fn downgrade(&self) -> WeakChannel {
        WeakChannel(Arc::downgrade(&self.inner))
    }
}

/// A channel that somebody else may drop.
#[derive(Clone)]
pub(crate) struct WeakChannel(Weak<Inner>);

impl WeakChannel {
    /// The channel, while it has other handles.
    pub(crate) fn upgrade(&self) -> Option<Channel> {
        self.0.upgrade().map(|inner| Channel { inner })
    }
}

impl Receiving {
    /// The next event; none at the end. What arrived comes before an end that is out of order.
    async fn event(&mut self) -> Option<RawChannelEvent> {
        let broken = self.stage.wait_for(|stage| matches!(stage, Stage::Ended(Some(_))));
        tokio::select! {
            biased;
            event = self.events.as_mut()?.recv() => event,
            _ = broken => None,
        }
    }

    fn join(
        &mut self,
        message: RawMessage,
        received: &AtomicU64,
    ) -> Result<Option<ChannelMessage>, ChannelError> {
        let Some(joiner) = &mut self.joiner else {
            let message = ChannelMessage::from(message);
            received.fetch_add(message.len() as u64, Ordering::Relaxed);
            return Ok(Some(message));
        };
        match message {
            RawMessage::Binary(piece) => {
                received.fetch_add(piece.len() as u64, Ordering::Relaxed);
                joiner.take(piece)
            }
            RawMessage::Text(_) => Err(ChannelError::Framing("a piece that is text")),
        }
    }
}

impl Inner {
    fn open(&self) {
        self.stage.send_if_modified(|stage| {
            let is_new = matches!(stage, Stage::Opening);
            if is_new {
                *stage = Stage::Open;
            }
            is_new
        });
    }

    /// The first reason counts.
    fn end(&self, error: Option<ChannelError>) {
        let is_broken = error.is_some();
        let has_ended = self.stage.send_if_modified(|stage| {
            let is_new = !stage.has_ended();
            if is_new {
                *stage = Stage::Ended(error);
            }
            is_new
        });
        if has_ended {
            self.sending.stop();
        }
        if has_ended && is_broken {
            let raw = self.raw.clone();
            tokio::spawn(async move { raw.close().await });
        }
    }

    fn reason(&self) -> Option<ChannelError> {
        match &*self.stage.borrow() {
            Stage::Ended(error) => error.clone(),
            Stage::Opening | Stage::Open => None,
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("label", &self.label())
            .field("stage", &*self.inner.stage.borrow())
            .finish_non_exhaustive()
    }
}
