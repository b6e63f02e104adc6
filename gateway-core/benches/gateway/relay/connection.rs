//! One connection: a task that polls its socket and its queue by hand.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderValue,
        protocol::WebSocketConfig,
    },
};

use super::{
    Mode, Relay,
    agents::Inbox,
    frame,
    proof::{self, Key},
};

const READ_BUFFER: usize = 8 * 1024;

type Socket = WebSocketStream<TcpStream>;

/// Serves it to its end, whatever that is.
pub(crate) async fn serve(relay: Arc<Relay>, stream: TcpStream) {
    let Ok(mut socket) = upgrade(&relay, stream).await else { return };
    let Some((name, key)) = register(&relay, &mut socket).await else { return };
    let task = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let inbox = Arc::new(Inbox::of_task(task));
    relay.agents.enter(&name, Arc::clone(&inbox));
    let left = Left { relay: &relay, name, inbox: &inbox };
    let mut connection =
        Connection { relay: &relay, key, inbox: &inbox, socket, batch: Vec::new(), unsent: false };
    poll_fn(|context| connection.poll(context)).await;
    drop(left);
}

async fn upgrade(relay: &Relay, stream: TcpStream) -> Result<Socket, tungstenite::Error> {
    let newest = relay.mode == Mode::Register;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let choose = move |request: &Request, mut response: Response| -> Result<_, ErrorResponse> {
        let offered = request.headers().get("sec-websocket-protocol");
        let offered = offered.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let newest = newest && offered.split(',').any(|name| name.trim() == "ioap.v1.1");
        let chosen = HeaderValue::from_static(if newest { "ioap.v1.1" } else { "ioap.v1" });
        response.headers_mut().insert("sec-websocket-protocol", chosen);
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    accept_hdr_async_with_config(stream, choose, Some(config)).await
}

/// Learns whose connection it is, from the first frame.
async fn register(relay: &Relay, socket: &mut Socket) -> Option<(Box<str>, Option<Key>)> {
    if relay.mode == Mode::Register {
        socket.send(Message::text(relay.gateway.challenge())).await.ok()?;
    }
    let Message::Text(text) = socket.next().await?.ok()? else { return None };
    let name = frame::from(&text)?;
    let key = match relay.mode {
        Mode::Plain => None,
        Mode::Verify => Some(Key::of(name)?),
        Mode::Register => {
            if !Key::of(name)?.signed(&text) {
                return None;
            }
            let registered = relay.gateway.registered(&text, name);
            socket.send(Message::text(registered)).await.ok()?;
            None
        }
    };
    Some((name.into(), key))
}

struct Left<'a> {
    relay: &'a Relay,
    name: Box<str>,
    inbox: &'a Arc<Inbox>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.relay.agents.leave(&self.name, self.inbox);
    }
}

struct Connection<'a> {
    relay: &'a Relay,
    /// Where messages are verified.
    key: Option<Key>,
    inbox: &'a Inbox,
    socket: Socket,
    /// What was taken from the queue; empty between two polls.
    batch: Vec<Utf8Bytes>,
    /// Whether the socket has not taken all of it yet.
    unsent: bool,
}

impl Connection<'_> {
    /// Ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // In this order: a peer that never pauses would use the task's budget up by its frames.
        let written = self.poll_write(context);
        if written.is_ready() {
            return written;
        }
        self.poll_read(context)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Text(text))) => self.forward(text),
                // The library answers pings.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
    }

    fn forward(&self, text: Utf8Bytes) {
        if self.key.as_ref().is_none_or(|key| key.signed(&text)) {
            self.relay.agents.forward(text);
        } else {
            self.inbox.push(proof::refusal(&text).into());
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.unsent {
                match ready!(Pin::new(&mut self.socket).poll_flush(context)) {
                    Ok(()) => self.unsent = false,
                    Err(_) => return Poll::Ready(()),
                }
            }
            self.inbox.swap(&mut self.batch);
            if self.batch.is_empty() {
                return Poll::Pending;
            }
            self.unsent = true;
            for text in self.batch.drain(..) {
                if Pin::new(&mut self.socket).start_send(Message::Text(text)).is_err() {
                    return Poll::Ready(());
                }
            }
        }
    }
}
