//! A data channel: messages of any size. Interim: `transport` has the real one.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::transport::{RawChannel, RawChannelEvent, RawChannelOptions, RawMessage};

/// What goes over a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelMessage {
    /// UTF-8.
    Text(String),
    /// Bytes.
    Binary(bytes::Bytes),
}

impl From<String> for ChannelMessage {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// What went wrong on a channel.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// It is closed.
    #[error("the channel is closed")]
    Closed,
    /// There is no direct way.
    #[error("there is no direct way to the peer")]
    NotConnected,
    /// The label is reserved.
    #[error("labels that begin with conexus are reserved")]
    Label,
    /// It did not open in time.
    #[error("the channel did not open in time")]
    Timeout(std::time::Duration),
    /// The stack failed.
    #[error("the stack failed")]
    Transport(#[source] super::transport::TransportError),
}

/// A channel.
#[derive(Debug, Clone)]
pub struct Channel {
    raw: Arc<dyn RawChannel>,
    events: Arc<Mutex<tokio::sync::mpsc::Receiver<RawChannelEvent>>>,
    closed: Arc<watch::Sender<bool>>,
}

impl Channel {
    pub(crate) fn new(raw: Arc<dyn RawChannel>) -> Self {
        let events = raw.events().unwrap_or_else(|| tokio::sync::mpsc::channel(1).1);
        Self { raw, events: Arc::new(Mutex::new(events)), closed: Arc::new(watch::Sender::new(false)) }
    }

    /// Its label.
    pub fn label(&self) -> &str {
        self.raw.label()
    }

    pub(crate) async fn opened(&self) -> Result<(), ChannelError> {
        match self.events.lock().await.recv().await {
            Some(RawChannelEvent::Open) => Ok(()),
            _ => Err(ChannelError::Closed),
        }
    }

    /// Sends.
    pub async fn send(&self, message: impl Into<ChannelMessage>) -> Result<(), ChannelError> {
        let raw = match message.into() {
            ChannelMessage::Text(text) => RawMessage::Text(text),
            ChannelMessage::Binary(bytes) => RawMessage::Binary(bytes),
        };
        self.raw.send(raw).await.map_err(ChannelError::Transport)
    }

    /// The next.
    pub async fn recv(&self) -> Option<Result<ChannelMessage, ChannelError>> {
        loop {
            match self.events.lock().await.recv().await {
                Some(RawChannelEvent::Open) => {}
                Some(RawChannelEvent::Message(RawMessage::Text(text))) => {
                    return Some(Ok(ChannelMessage::Text(text)));
                }
                Some(RawChannelEvent::Message(RawMessage::Binary(bytes))) => {
                    return Some(Ok(ChannelMessage::Binary(bytes)));
                }
                Some(RawChannelEvent::Closed) | None => {
                    self.closed.send_replace(true);
                    return None;
                }
            }
        }
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Ends it.
    pub async fn close(&self) {
        self.raw.close().await;
        self.closed.send_replace(true);
    }
}

/// How a channel is opened.
#[derive(Debug, Clone, Default)]
pub struct ChannelOptions;

impl ChannelOptions {
    pub(crate) fn raw(&self) -> RawChannelOptions {
        RawChannelOptions {
            ordered: true,
            reliability: None,
            protocol: "conexus.v1".into(),
            negotiated: None,
        }
    }
}
