//! Messages as a stream, beside handlers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use conexus_protocol::Message;
use futures_util::Stream;
use tokio::sync::mpsc;

/// Every message that message handlers would see, from the moment of
/// [`Handle::messages`](crate::Handle::messages) on.
///
/// The stream is bounded and loses nothing. While it is full, dispatching waits, and in the
/// end the gateway does: read it to its end or drop it. It ends when the client is closed,
/// dropped, or gives up; a reconnect does not end it.
#[derive(Debug)]
pub struct Messages(pub(crate) mpsc::Receiver<Arc<Message>>);

impl Messages {
    /// The next message; none when the client has ended. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Arc<Message>> {
        self.0.recv().await
    }
}

impl Stream for Messages {
    type Item = Arc<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}
