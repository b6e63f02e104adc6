//! Between the socket and the handlers: a bounded queue, and the task that empties it.
//!
//! The driver never waits for a handler. What the queue has no room for stays in the
//! driver's backlog, and while there is a backlog nothing is read from the socket: a slow
//! handler slows the gateway down, and nothing is dropped.

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc};

use conexus_protocol::Message;
use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::{
    ClientError, ConnectionState,
    handlers::{HandlerFailure, Handlers, Registry},
};

/// What handlers are told, in the order in which it happened.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Arc<Message>),
    Error(Arc<ClientError>),
    State(ConnectionState),
}

impl From<ClientError> for Event {
    fn from(error: ClientError) -> Self {
        Self::Error(Arc::new(error))
    }
}

/// The driver's end of the queue.
#[derive(Debug)]
pub(crate) struct EventQueue {
    queue: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
}

impl EventQueue {
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(capacity);
        (Self { queue, backlog: VecDeque::new() }, events)
    }

    /// Hands an event over, or keeps it until there is room.
    pub(crate) fn push(&mut self, event: impl Into<Event>) {
        let event = event.into();
        if !self.backlog.is_empty() {
            self.backlog.push_back(event);
        } else if let Err(mpsc::error::TrySendError::Full(event)) = self.queue.try_send(event) {
            self.backlog.push_back(event);
        }
    }

    /// Another way in, for what happens beside the socket; it does not keep the queue.
    #[cfg(feature = "p2p")]
    pub(crate) fn side_door(&self) -> mpsc::WeakSender<Event> {
        self.queue.downgrade()
    }

    /// Whether the handlers keep up. Otherwise do nothing that makes more events.
    pub(crate) fn keeps_up(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Waits for room and hands one event of the backlog over. Cancel-safe.
    pub(crate) async fn hand_over(&mut self) {
        match self.queue.reserve().await {
            Ok(room) => {
                if let Some(event) = self.backlog.pop_front() {
                    room.send(event);
                }
            }
            Err(_) => self.backlog.clear(),
        }
    }
}

/// Calls handlers, one event after the other, until the driver is gone.
pub(crate) async fn dispatch(mut events: mpsc::Receiver<Event>, registry: Arc<Registry>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Message(message) => {
                call_all(registry.message_handlers(), &message, &registry).await;
                for stream in registry.streams() {
                    // Fails when the stream was dropped meanwhile.
                    let _ = stream.send(Arc::clone(&message)).await;
                }
            }
            Event::State(state) => call_all(registry.state_handlers(), &state, &registry).await,
            Event::Error(error) => tell_error_handlers(&registry, &error).await,
        }
    }
    registry.end_streams();
}

async fn call_all<T: Clone>(handlers: Handlers<T>, event: &T, registry: &Registry) {
    for (handler, call) in handlers {
        let running = AssertUnwindSafe(async { call(event.clone()).await });
        if let Err(failure) =
            running.catch_unwind().await.unwrap_or_else(|panic| Err(text(&*panic)))
        {
            let error = Arc::new(ClientError::Handler { handler, failure });
            tell_error_handlers(registry, &error).await;
        }
    }
}

async fn tell_error_handlers(registry: &Registry, error: &Arc<ClientError>) {
    for (handler, call) in registry.error_handlers() {
        let running = AssertUnwindSafe(async { call(Arc::clone(error)).await });
        if let Err(failure) =
            running.catch_unwind().await.unwrap_or_else(|panic| Err(text(&*panic)))
        {
            // Not told to error handlers: that could go round in circles.
            tracing::warn!(%handler, %failure, %error, "an error handler failed");
        }
    }
}

/// A panic's payload as an error.
pub(crate) fn text(panic: &(dyn std::any::Any + Send)) -> HandlerFailure {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a text")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_in_order() {
        let (mut queue, mut events) = EventQueue::new(1);
        for state in [
            ConnectionState::Connecting,
            ConnectionState::Connected,
            ConnectionState::Disconnecting,
        ] {
            queue.push(Event::State(state));
        }
        assert!(!queue.keeps_up());
        let mut seen = Vec::new();
        while let Some(Event::State(state)) = events.recv().await {
            seen.push(state);
            if queue.keeps_up() {
                break;
            }
            queue.hand_over().await;
        }
        assert_eq!(seen.len(), 3);
        assert_eq!(seen.last(), Some(&ConnectionState::Disconnecting));
    }

    #[tokio::test]
    async fn without_a_dispatcher_nothing_piles_up() {
        let (mut queue, events) = EventQueue::new(1);
        queue.push(Event::State(ConnectionState::Connecting));
        queue.push(Event::State(ConnectionState::Connected));
        drop(events);
        queue.hand_over().await;
        assert!(queue.keeps_up());
    }
}
