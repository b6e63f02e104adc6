//! Who is told of what: the handlers and streams of one client.
//!
//! Sync and async closures become the same boxed form here. `dispatch` takes a copy of a
//! list before it calls, so handlers may add and remove handlers.

use std::{
    fmt,
    future::{Future, ready},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use conexus_protocol::Message;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::{ClientError, ConnectionState};

/// Names a registered handler, to remove it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandlerId(u64);

impl fmt::Display for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What went wrong in a handler.
pub type HandlerFailure = Box<dyn std::error::Error + Send + Sync>;

/// What a handler may return: nothing, or a `Result` whose error goes to the error handlers.
pub trait Outcome {
    /// The one form that all outcomes share.
    ///
    /// # Errors
    ///
    /// The handler's own.
    fn into_result(self) -> Result<(), HandlerFailure>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), HandlerFailure> {
        Ok(())
    }
}

impl<E: Into<HandlerFailure>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), HandlerFailure> {
        self.map_err(Into::into)
    }
}

pub(crate) type Handler<T> =
    Arc<dyn Fn(T) -> BoxFuture<'static, Result<(), HandlerFailure>> + Send + Sync>;

/// The handlers of one kind of event, in the order of their registration.
pub(crate) type Handlers<T> = Vec<(HandlerId, Handler<T>)>;

pub(crate) fn sync_handler<T, O: Outcome>(
    handler: impl Fn(T) -> O + Send + Sync + 'static,
) -> Handler<T> {
    Arc::new(move |event| Box::pin(ready(handler(event).into_result())))
}

pub(crate) fn async_handler<T, F>(handler: impl Fn(T) -> F + Send + Sync + 'static) -> Handler<T>
where
    F: Future<Output: Outcome> + Send + 'static,
{
    Arc::new(move |event| {
        let running = handler(event);
        Box::pin(async { running.await.into_result() })
    })
}

#[derive(Default)]
struct Lists {
    messages: Handlers<Arc<Message>>,
    errors: Handlers<Arc<ClientError>>,
    states: Handlers<ConnectionState>,
    streams: Vec<mpsc::Sender<Arc<Message>>>,
}

/// All handlers and streams of a client.
#[derive(Default)]
pub(crate) struct Registry {
    next: AtomicU64,
    lists: Mutex<Lists>,
}

impl Registry {
    pub(crate) fn add_message_handler(&self, handler: Handler<Arc<Message>>) -> HandlerId {
        let id = self.next_id();
        self.lists().messages.push((id, handler));
        id
    }

    pub(crate) fn add_error_handler(&self, handler: Handler<Arc<ClientError>>) -> HandlerId {
        let id = self.next_id();
        self.lists().errors.push((id, handler));
        id
    }

    pub(crate) fn add_state_handler(&self, handler: Handler<ConnectionState>) -> HandlerId {
        let id = self.next_id();
        self.lists().states.push((id, handler));
        id
    }

    pub(crate) fn add_stream(&self, stream: mpsc::Sender<Arc<Message>>) {
        self.lists().streams.push(stream);
    }

    /// Whether it was there. A handler may be running still, for an earlier event.
    pub(crate) fn remove(&self, id: HandlerId) -> bool {
        let mut lists = self.lists();
        take(&mut lists.messages, id) || take(&mut lists.errors, id) || take(&mut lists.states, id)
    }

    pub(crate) fn message_handlers(&self) -> Handlers<Arc<Message>> {
        self.lists().messages.clone()
    }

    pub(crate) fn error_handlers(&self) -> Handlers<Arc<ClientError>> {
        self.lists().errors.clone()
    }

    pub(crate) fn state_handlers(&self) -> Handlers<ConnectionState> {
        self.lists().states.clone()
    }

    /// The streams that somebody still holds.
    pub(crate) fn streams(&self) -> Vec<mpsc::Sender<Arc<Message>>> {
        let mut lists = self.lists();
        lists.streams.retain(|stream| !stream.is_closed());
        lists.streams.clone()
    }

    /// Lets every stream end.
    pub(crate) fn end_streams(&self) {
        self.lists().streams.clear();
    }

    /// Forgets everything; closures often hold a handle, and with it this registry.
    pub(crate) fn clear(&self) {
        // Dropped after the lock is free: a closure's captures may have drop code of their own.
        let forgotten = std::mem::take(&mut *self.lists());
        drop(forgotten);
    }

    pub(crate) fn next_id(&self) -> HandlerId {
        HandlerId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<T>(handlers: &mut Handlers<T>, id: HandlerId) -> bool {
    let before = handlers.len();
    handlers.retain(|(other, _)| *other != id);
    handlers.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_removed_once_and_by_its_own_id() {
        let registry = Registry::default();
        let on_state = registry.add_state_handler(sync_handler(|_| ()));
        let on_error = registry.add_error_handler(sync_handler(|_| ()));
        assert_ne!(on_state, on_error);
        assert!(registry.remove(on_state));
        assert!(!registry.remove(on_state));
        assert_eq!(registry.error_handlers().len(), 1);
        assert!(registry.state_handlers().is_empty());
    }

    #[test]
    fn a_dropped_stream_is_forgotten() {
        let registry = Registry::default();
        let (sender, receiver) = mpsc::channel(1);
        registry.add_stream(sender);
        assert_eq!(registry.streams().len(), 1);
        drop(receiver);
        assert!(registry.streams().is_empty());
    }
}
