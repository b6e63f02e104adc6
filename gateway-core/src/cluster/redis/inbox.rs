//! What comes in by a link without being asked for, on its way to whoever holds the link.
//!
//! A connection is read by a task that must not wait, since the answers come by the same way. So what
//! comes in waits here, within bounds: where it is too much, or nobody takes it in time, the link fails,
//! and the engine keeps nothing for it either.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::{sync::mpsc, time};

use super::{codec, failure::Failure};
use crate::cluster::backplane::{Away, LinkEvent};

/// What may wait, in bytes: as much as an engine keeps for a subscriber by its usual settings.
const MOST_WAITING: usize = 32 << 20;
/// What an event takes beside its bytes.
const EVENT: usize = 128;

/// Where connections leave what comes in.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The channel on which frames come; on all others changes do.
    frames: String,
    /// Not bounded by itself, but by `waiting`: bytes are what matters, not events.
    queue: mpsc::UnboundedSender<LinkEvent>,
    waiting: Arc<AtomicUsize>,
    /// Channels that are being left at our own wish.
    leaving: Mutex<HashSet<String>>,
    failure: Failure,
}

/// Hands over what is in an [`Inbox`].
#[derive(Debug)]
pub(super) struct Carrier {
    queue: mpsc::UnboundedReceiver<LinkEvent>,
    waiting: Arc<AtomicUsize>,
    events: mpsc::Sender<LinkEvent>,
    patience: Duration,
    failure: Failure,
}

pub(super) fn inbox(
    frames: String,
    events: mpsc::Sender<LinkEvent>,
    patience: Duration,
    failure: &Failure,
) -> (Inbox, Carrier) {
    let (sender, queue) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let inbox = Inbox {
        frames,
        queue: sender,
        waiting: Arc::clone(&waiting),
        leaving: Mutex::default(),
        failure: failure.clone(),
    };
    (inbox, Carrier { queue, waiting, events, patience, failure: failure.clone() })
}

impl Inbox {
    /// What a connection does with what it was not asked for.
    pub(super) fn take(&self, push: PushInfo) {
        let PushInfo { kind, data } = push;
        let mut data = data.into_iter();
        match (kind, data.next(), data.next()) {
            (
                PushKind::SMessage,
                Some(Value::BulkString(channel)),
                Some(Value::BulkString(told)),
            ) => self.put(&channel, told),
            (PushKind::SUnsubscribe, Some(Value::BulkString(channel)), _) => self.left(&channel),
            _ => {}
        }
    }

    fn put(&self, channel: &[u8], told: Vec<u8>) {
        if self.failure.get().is_some() {
            return;
        }
        if channel == self.frames.as_bytes() {
            return self.queue(told.len(), LinkEvent::Frames(Bytes::from(told)));
        }
        match codec::read_changes(&told) {
            Some(changes) => {
                for change in changes {
                    self.queue(0, LinkEvent::Change(change));
                }
            }
            None => {
                let channel = String::from_utf8_lossy(channel);
                let why = format!("what came on channel {channel:?} is nothing that nodes say");
                self.failure.fail(Away(why.into()));
            }
        }
    }

    fn queue(&self, bytes: usize, event: LinkEvent) {
        let size = bytes + EVENT;
        if self.waiting.fetch_add(size, Relaxed) + size > MOST_WAITING {
            let why = format!("{} MiB came in that this node did not take", MOST_WAITING >> 20);
            self.failure.fail(Away(why.into()));
            return;
        }
        // Where nobody listens any more, nobody misses it.
        let _ = self.queue.send(event);
    }

    /// An engine leaves a channel for us where that moves to another machine of it; and the client
    /// library takes that for an answer to whatever is asked at the moment.
    fn left(&self, channel: &[u8]) {
        let channel = String::from_utf8_lossy(channel);
        if !self.leaving.lock().remove(&*channel) {
            let why = format!("the engine has moved channel {channel:?} elsewhere");
            self.failure.fail(Away(why.into()));
        } else if channel == self.frames {
            self.queue(0, LinkEvent::Unlistened);
        }
    }

    pub(super) fn frames(&self) -> &str {
        &self.frames
    }

    /// A channel is about to be left.
    pub(super) fn leave(&self, channel: &str) {
        self.leaving.lock().insert(channel.to_owned());
    }
}

impl Carrier {
    /// Hands everything over until the link fails, and says then that it has.
    pub(super) async fn run(mut self) {
        let failure = self.failure.clone();
        let why = tokio::select! {
            why = failure.failed() => why,
            why = self.carry() => failure.fail(why),
        };
        // What came in before is still worth having. Bounded, and its taker is told nothing else.
        let rest = async {
            while let Ok(event) = self.queue.try_recv() {
                if self.events.send(event).await.is_err() {
                    break;
                }
            }
        };
        let _ = time::timeout(self.patience, rest).await;
        let _ = self.events.send(LinkEvent::Lost(why)).await;
    }

    async fn carry(&mut self) -> Away {
        while let Some(event) = self.queue.recv().await {
            let size =
                EVENT + if let LinkEvent::Frames(frames) = &event { frames.len() } else { 0 };
            self.waiting.fetch_sub(size, Relaxed);
            match time::timeout(self.patience, self.events.send(event)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Away("nobody listens to it any more".into()),
                Err(_) => {
                    let why =
                        format!("for {:?} this node took nothing of what came in", self.patience);
                    return Away(why.into());
                }
            }
        }
        Away("it was closed".into())
    }
}
