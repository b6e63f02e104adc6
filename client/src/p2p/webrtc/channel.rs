//! One data channel of the stack.
//!
//! A task takes its events as they come, so that the end and the room to send are seen also while nobody reads. It
//! waits for the reader, and thereby for its own queue, the stack's and at last the sender.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ::webrtc::data_channel::{
    DataChannel, DataChannelEvent, RTCDataChannelMessage, RTCDataChannelState,
};
use bytes::BytesMut;
use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{failed, relaying::Said, settling::Settling};
use crate::p2p::transport::{
    RawChannel, RawChannelEvent, RawChannelOptions, RawMessage, TransportError,
};

/// Events that wait for the reader, beside 256 of the stack's own.
const MAX_EVENTS: usize = 16;
/// How often a full buffer is looked at, should the stack's event be stuck behind messages that nobody reads.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) struct StackChannel {
    label: String,
    options: RawChannelOptions,
    native: Arc<dyn DataChannel>,
    signs: Arc<Signs>,
    common: Arc<Common>,
    events: Mutex<Option<mpsc::Receiver<RawChannelEvent>>>,
    /// The amount of unsent bytes at which the stack says so.
    threshold: AtomicU32,
}

/// What the channels of a connection have in common.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) settling: Settling,
    pub(super) said: Said,
    /// The connection has.
    pub(super) ended: CancellationToken,
}

/// What those who do not read the events want to know.
struct Signs {
    /// Less is unsent than was.
    drained: Notify,
    opened: CancellationToken,
    closed: CancellationToken,
}

impl StackChannel {
    pub(super) async fn ours(
        native: Arc<dyn DataChannel>,
        label: String,
        options: RawChannelOptions,
        common: &Arc<Common>,
    ) -> Self {
        // A negotiated one on a connection that stands is open at once, and the stack does not say so.
        let is_open = matches!(native.ready_state().await, Ok(RTCDataChannelState::Open));
        Self::new(native, label, options, is_open, common.clone(), None)
    }

    /// One of the other side's; `permit` is its place among those.
    pub(super) async fn theirs(
        native: Arc<dyn DataChannel>,
        common: &Arc<Common>,
        permit: OwnedSemaphorePermit,
    ) -> ::webrtc::error::Result<Self> {
        let label = native.label().await?;
        let options = RawChannelOptions {
            ordered: native.ordered().await?,
            // The stack does not keep what the other side chose.
            reliability: None,
            protocol: native.protocol().await?,
            negotiated: None,
        };
        Ok(Self::new(native, label, options, false, common.clone(), Some(permit)))
    }

    fn new(
        native: Arc<dyn DataChannel>,
        label: String,
        options: RawChannelOptions,
        is_open: bool,
        common: Arc<Common>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let closed = common.ended.child_token();
        let signs =
            Arc::new(Signs { drained: Notify::new(), opened: CancellationToken::new(), closed });
        let (queue, events) = mpsc::channel(MAX_EVENTS);
        let pump = Pump { native: native.clone(), signs: signs.clone(), queue, is_open: false };
        let pumped = Arc::clone(&common);
        tokio::spawn(async move { pump.run(is_open, &pumped, permit).await });
        let (events, threshold) = (Mutex::new(Some(events)), AtomicU32::new(0));
        Self { label, options, native, signs, common, events, threshold }
    }

    pub(super) fn native(&self) -> &Arc<dyn DataChannel> {
        &self.native
    }

    /// Waits until messages can be sent; whether they can.
    pub(super) async fn opened(&self) -> bool {
        tokio::select! {
            biased;
            () = self.signs.closed.cancelled() => false,
            () = self.signs.opened.cancelled() => true,
        }
    }

    async fn unsent(&self) -> usize {
        // A channel that is gone has nothing to send.
        self.native.outstanding_bytes().await.unwrap_or(0)
    }
}

/// Passes events on until the channel has ended. One who has dropped the queue wants no more, and what still comes
/// must not hold up other channels.
struct Pump {
    native: Arc<dyn DataChannel>,
    signs: Arc<Signs>,
    queue: mpsc::Sender<RawChannelEvent>,
    is_open: bool,
}

impl Pump {
    async fn run(mut self, is_open: bool, common: &Common, permit: Option<OwnedSemaphorePermit>) {
        if is_open {
            self.open().await;
        }
        while let Some(event) = self.native.poll().await {
            match event {
                DataChannelEvent::OnOpen => self.open().await,
                DataChannelEvent::OnMessage(message) => {
                    common.said.now();
                    self.tell(RawChannelEvent::Message(received(message))).await;
                }
                DataChannelEvent::OnBufferedAmountLow => self.signs.drained.notify_waiters(),
                DataChannelEvent::OnClose => break,
                _ => {}
            }
        }
        common.settling.ended();
        // Before anybody knows: there is room for another.
        drop(permit);
        self.signs.closed.cancel();
        self.tell(RawChannelEvent::Closed).await;
    }

    async fn open(&mut self) {
        if !std::mem::replace(&mut self.is_open, true) {
            self.signs.opened.cancel();
            self.tell(RawChannelEvent::Open).await;
        }
    }

    async fn tell(&self, event: RawChannelEvent) {
        let _ = self.queue.send(event).await;
    }
}

fn received(message: RTCDataChannelMessage) -> RawMessage {
    let bytes = message.data.freeze();
    if !message.is_string {
        return RawMessage::Binary(bytes);
    }
    match String::from_utf8(bytes.into()) {
        Ok(text) => RawMessage::Text(text),
        // No text after all: its reader judges.
        Err(error) => RawMessage::Binary(error.into_bytes().into()),
    }
}

impl RawChannel for StackChannel {
    fn label(&self) -> &str {
        &self.label
    }

    fn options(&self) -> RawChannelOptions {
        self.options.clone()
    }

    fn events(&self) -> Option<mpsc::Receiver<RawChannelEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn send(&self, data: RawMessage) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move {
            self.common.said.now();
            let sent = match data {
                RawMessage::Text(text) => self.native.send_text(&text).await,
                RawMessage::Binary(bytes) => self.native.send(BytesMut::from(bytes)).await,
            };
            sent.map_err(|error| failed("send over a channel", error))
        })
    }

    fn buffered_amount(&self) -> BoxFuture<'_, usize> {
        Box::pin(self.unsent())
    }

    fn drained_to(&self, bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let threshold = u32::try_from(bytes).unwrap_or(u32::MAX);
            if self.threshold.swap(threshold, Ordering::Relaxed) != threshold {
                // Fails with the channel alone.
                let _ = self.native.set_buffered_amount_low_threshold(threshold).await;
            }
            while !self.signs.closed.is_cancelled() {
                let drained = self.signs.drained.notified();
                if self.unsent().await <= bytes {
                    return;
                }
                tokio::select! {
                    () = drained => {}
                    () = self.signs.closed.cancelled() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.drained_to(0).await;
            // It may have ended by itself meanwhile.
            let _ = self.native.close().await;
        })
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.signs.closed.cancelled())
    }
}

/// Nobody can use it any more: it ends, once what was handed over is sent.
impl Drop for StackChannel {
    fn drop(&mut self) {
        if self.signs.closed.is_cancelled() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (native, closed) = (self.native.clone(), self.signs.closed.clone());
            runtime.spawn(async move {
                while !closed.is_cancelled() && native.outstanding_bytes().await.unwrap_or(0) > 0 {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                let _ = native.close().await;
            });
        }
    }
}

impl fmt::Debug for StackChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackChannel")
            .field("label", &self.label)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
