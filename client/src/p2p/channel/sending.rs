//! The way out of a channel: one message after the other, and none while too much is unsent.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use futures_util::FutureExt;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{ChannelError, ChannelMessage};
use crate::p2p::{
    framing::{MAX_PIECE, Pieces},
    transport::{Connection, RawChannel, RawMessage},
};

/// Sending waits while more than this is unsent, for half of it.
const HIGH_WATER: usize = 1024 * 1024;
/// Sends of one channel that wait for each other.
const MAX_WAITING: usize = 256;
/// What a channel carries at most that is not framed.
const MAX_RAW: usize = 64 * 1024;

pub(super) struct Sending {
    raw: Arc<dyn RawChannel>,
    is_framed: bool,
    limit: usize,
    /// Knows what the other side takes at once, and is not kept for that.
    connection: Weak<dyn Connection>,
    /// Whose turn it is: those who wait get it in order.
    turn: Arc<Mutex<Turn>>,
    places: Semaphore,
    sent: AtomicU64,
    stopped: CancellationToken,
}

/// The right to send.
#[derive(Default)]
pub(super) struct Turn {
    /// Bytes that may be handed over before one looks how much is unsent. That only shrinks meanwhile.
    room: usize,
}

impl Sending {
    pub(super) fn new(
        raw: Arc<dyn RawChannel>,
        is_framed: bool,
        limit: usize,
        connection: Weak<dyn Connection>,
    ) -> Self {
        Self {
            raw,
            is_framed,
            limit,
            connection,
            turn: Arc::default(),
            places: Semaphore::new(MAX_WAITING),
            sent: AtomicU64::new(0),
            stopped: CancellationToken::new(),
        }
    }

    pub(super) fn is_framed(&self) -> bool {
        self.is_framed
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// A place among those who wait, for a message that the channel takes.
    pub(super) fn place(
        &self,
        message: &ChannelMessage,
    ) -> Result<SemaphorePermit<'_>, ChannelError> {
        let bytes = message.len();
        let limit = match self.is_framed {
            true => self.limit,
            false => self.limit.min(MAX_RAW).min(self.largest()),
        };
        if bytes > limit {
            return Err(ChannelError::TooLarge { bytes, limit });
        }
        self.places.try_acquire().map_err(|_| ChannelError::Busy { waiting: MAX_WAITING })
    }

    /// Waits for one's turn.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<Turn> {
        self.turn.clone().lock_owned().await
    }

    /// One's turn, where nobody else's it is.
    pub(super) fn free_turn(&self) -> Option<OwnedMutexGuard<Turn>> {
        self.turn.clone().try_lock_owned().ok()
    }

    /// Hands a message over.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut turn: OwnedMutexGuard<Turn>,
        message: ChannelMessage,
    ) -> Result<(), ChannelError> {
        if !self.is_framed {
            let bytes = message.len();
            return self.put(&mut turn, message.into(), bytes).await;
        }
        let mut pieces = Pieces::of(message, self.largest().min(MAX_PIECE));
        match (pieces.next(), pieces.is_done()) {
            (Some(only), true) => {
                let bytes = only.len();
                self.put(&mut turn, RawMessage::Binary(only), bytes).await
            }
            (first, _) => {
                // Half a message would be the end of the channel, so this is not given up with whoever called.
                let all = self.clone().put_all(turn, first.into_iter().chain(pieces));
                tokio::spawn(all).await.unwrap_or(Err(ChannelError::Closed))
            }
        }
    }

    /// Waits for those whose turn was before, and takes no more.
    pub(super) async fn finish(&self) {
        let _turn = self.turn.lock().await;
        self.stop();
    }

    /// Nothing is sent any more.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    async fn put_all(
        self: Arc<Self>,
        mut turn: OwnedMutexGuard<Turn>,
        pieces: impl Iterator<Item = bytes::Bytes>,
    ) -> Result<(), ChannelError> {
        for piece in pieces {
            let bytes = piece.len();
            self.put(&mut turn, RawMessage::Binary(piece), bytes).await?;
        }
        Ok(())
    }

    async fn put(
        &self,
        turn: &mut Turn,
        message: RawMessage,
        bytes: usize,
    ) -> Result<(), ChannelError> {
        if turn.room < bytes {
            turn.room = self.room().await.max(bytes);
        }
        if self.stopped.is_cancelled() {
            return Err(ChannelError::Closed);
        }
        // Taken before, lest somebody who gives up here leaves more room than there is.
        turn.room -= bytes;
        self.raw.send(message).await.map_err(|error| self.reason(error.into()))?;
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for less than too much to be unsent, and tells how much more may be.
    async fn room(&self) -> usize {
        let mut unsent = self.raw.buffered_amount().await;
        if unsent > HIGH_WATER {
            tokio::select! {
                () = self.raw.drained_to(HIGH_WATER / 2) => {}
                () = self.stopped.cancelled() => {}
            }
            unsent = self.raw.buffered_amount().await;
        }
        HIGH_WATER.saturating_sub(unsent)
    }

    fn reason(&self, error: ChannelError) -> ChannelError {
        match self.raw.closed().now_or_never() {
            Some(()) => ChannelError::Closed,
            None => error,
        }
    }

    /// What the other side takes at once.
    fn largest(&self) -> usize {
        self.connection.upgrade().map_or(MAX_PIECE, |connection| connection.max_message_size())
    }
}
