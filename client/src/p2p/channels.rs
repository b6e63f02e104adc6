//! The channels of one peer: those that we opened, those that the other side did, and who is told of the latter.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::{Stream, future::join_all};
use tokio::sync::mpsc;

use super::{
    Channel, ChannelError, ChannelOptions,
    transport::{Connection, RawChannel},
};

/// The beginning of labels that are not for applications.
const RESERVED: &str = "conexus";

/// Channels that came before anybody wanted to know, and that wait in a stream.
const MAX_EARLY: usize = 64;

/// The channels of a peer that its other side opens, from the first one on that nobody has taken yet.
///
/// Ends with the peer. At most 64 wait to be taken; what comes beyond is closed.
#[derive(Debug)]
pub struct IncomingChannels(pub(crate) mpsc::Receiver<Channel>);

impl IncomingChannels {
    /// The next channel; none when the peer has ended. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Channel> {
        self.0.recv().await
    }
}

impl Stream for IncomingChannels {
    type Item = Channel;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// See the [module](self).
pub(crate) struct Channels {
    max_message_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    open: Vec<Channel>,
    early: Vec<Channel>,
    takers: Vec<mpsc::Sender<Channel>>,
    is_over: bool,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("open", &self.count()).finish_non_exhaustive()
    }
}

impl Channels {
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, kept: Mutex::default() }
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        let mut kept = self.kept();
        kept.open.retain(|channel| !channel.is_closed());
        kept.open.len()
    }

    /// The control channel, which is none of an application's.
    pub(crate) fn control(connection: &dyn Connection) -> Channel {
        Channel::new(connection.control())
    }

    /// Opens one; messages can be sent on it.
    pub(crate) async fn open(
        &self,
        connection: &dyn Connection,
        label: String,
        options: ChannelOptions,
    ) -> Result<Channel, ChannelError> {
        if label.starts_with(RESERVED) {
            return Err(ChannelError::Label);
        }
        let raw = connection.open_channel(label, options.raw()).await;
        let channel = Channel::new(raw.map_err(ChannelError::Transport)?);
        self.keep(&channel)?;
        channel.opened().await?;
        Ok(channel)
    }

    /// The other side has opened one. Told back if nobody can take it: it is to be closed.
    #[must_use]
    pub(crate) fn offered(&self, raw: Arc<dyn RawChannel>) -> Option<Channel> {
        let _ = self.max_message_bytes;
        let channel = Channel::new(raw);
        if self.keep(&channel).is_err() || channel.label().starts_with(RESERVED) {
            return Some(channel);
        }
        let mut kept = self.kept();
        kept.takers.retain(|taker| !taker.is_closed());
        if kept.takers.is_empty() && kept.early.len() < MAX_EARLY {
            kept.early.push(channel);
            return None;
        }
        let is_taken =
            kept.takers.iter().fold(false, |is_taken, taker| {
                taker.try_send(channel.clone()).is_ok() || is_taken
            });
        (!is_taken).then_some(channel)
    }

    /// Those that wait, and those that are still to come.
    pub(crate) fn take(&self) -> IncomingChannels {
        let (taker, incoming) = mpsc::channel(MAX_EARLY);
        let mut kept = self.kept();
        for channel in std::mem::take(&mut kept.early) {
            // As many fit.
            let _ = taker.try_send(channel);
        }
        if !kept.is_over {
            kept.takers.push(taker);
        }
        IncomingChannels(incoming)
    }

    /// Closes all, each once what was handed to it is sent.
    pub(crate) fn close(&self) -> impl Future<Output = ()> + Send + 'static {
        let open = std::mem::take(&mut self.kept().open);
        async move {
            join_all(open.iter().map(Channel::close)).await;
        }
    }

    /// The peer has ended.
    pub(crate) fn end(&self) {
        let mut kept = self.kept();
        kept.is_over = true;
        let ended = std::mem::take(&mut kept.open);
        kept.takers.clear();
        kept.early.clear();
        drop(kept);
        drop(ended);
    }

    fn keep(&self, channel: &Channel) -> Result<(), ChannelError> {
        let mut kept = self.kept();
        if kept.is_over {
            return Err(ChannelError::NotConnected);
        }
        kept.open.retain(|channel| !channel.is_closed());
        kept.open.push(channel.clone());
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
