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
    channel::WeakChannel,
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
    /// Their users may drop them.
    open: Vec<WeakChannel>,
    early: Vec<Channel>,
    takers: Vec<mpsc::Sender<Channel>>,
    is_over: bool,
}

impl Kept {
    fn forget_closed(&mut self) {
        self.open.retain(|channel| channel.upgrade().is_some_and(|channel| !channel.is_closed()));
    }
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
        kept.forget_closed();
        kept.open.len()
    }

    /// Opens one; messages can be sent on it.
    pub(crate) async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        label: String,
        options: ChannelOptions,
    ) -> Result<Channel, ChannelError> {
        let raw = options.raw(&label)?;
        let raw = connection.open_channel(label, raw).await;
        let raw = raw.map_err(ChannelError::Transport)?;
        let channel = Channel::ours(raw, options, connection);
        self.keep(&channel)?;
        channel.opened().await?;
        Ok(channel)
    }

    /// The other side has opened one. Told back if nobody can take it: it is to be closed.
    #[must_use]
    pub(crate) fn offered(
        &self,
        raw: Arc<dyn RawChannel>,
        connection: &Arc<dyn Connection>,
    ) -> Option<Channel> {
        let channel = Channel::theirs(raw, self.max_message_bytes, connection);
        if self.keep(&channel).is_err() || channel.label().starts_with(RESERVED) {
            return Some(channel);
        }
        let mut kept = self.kept();
        kept.takers.retain(|taker| !taker.is_closed());
        if kept.takers.is_empty() && kept.early.len() < MAX_EARLY {
            kept.early.push(channel);
            return None;
        }
        let mut is_taken = false;
        for taker in &kept.takers {
            is_taken |= taker.try_send(channel.clone()).is_ok();
        }
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
        let open: Vec<Channel> = open.iter().filter_map(WeakChannel::upgrade).collect();
        async move {
            join_all(open.iter().map(Channel::close)).await;
        }
    }

    /// The peer has ended; `error` says why, where it should not have.
    pub(crate) fn end(&self, error: Option<&ChannelError>) {
        let mut kept = self.kept();
        kept.is_over = true;
        let ended = std::mem::take(&mut kept.open);
        kept.takers.clear();
        let early = std::mem::take(&mut kept.early);
        drop(kept);
        drop(early);
        let ended: Vec<Channel> = ended.iter().filter_map(WeakChannel::upgrade).collect();
        // Without a runtime nothing runs any more that could be told.
        if let Some(error) = error
            && tokio::runtime::Handle::try_current().is_ok()
        {
            ended.iter().for_each(|channel| channel.end(error.clone()));
        }
    }

    fn keep(&self, channel: &Channel) -> Result<(), ChannelError> {
        let mut kept = self.kept();
        if kept.is_over {
            return Err(ChannelError::NotConnected);
        }
        kept.forget_closed();
        kept.open.push(channel.downgrade());
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
