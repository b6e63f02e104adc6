//! The owner of a connection.

use std::{ops::Deref, sync::Arc};

use conexus_protocol::Identity;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    Builder, ConnectError, ConnectionState, Handle,
    dispatch::{EventQueue, dispatch},
    driver::Driver,
    shared::Shared,
};

/// An agent at a gateway.
///
/// Everything that a [`Handle`] does, a client does too. It owns the connection: when it goes
/// out of scope the socket is closed and its tasks end, without a farewell;
/// [`close`](Self::close) says one.
#[derive(Debug)]
pub struct Client {
    handle: Handle,
    /// The driver and the dispatcher.
    tasks: JoinSet<()>,
}

impl Client {
    /// Starts to describe a client: `url` is the gateway's WebSocket
    /// (`wss://gateway.example/ws`), `identity` the agent's key.
    pub fn builder(url: impl Into<String>, identity: Identity) -> Builder {
        Builder::new(url.into(), identity)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Handle { shared }, tasks: JoinSet::new() }
    }

    /// Connects and registers; from then on the client reconnects by itself. Also the way back
    /// after it was closed through a handle or gave up.
    ///
    /// On `ioap.v1` nothing answers a REGISTER: this returns once it is written, and a refusal
    /// reaches the error handlers later.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; the state is [`Error`](crate::ConnectionState::Error) then. The first
    /// attempt is the only one, unless the builder says otherwise.
    pub async fn connect(&mut self) -> Result<(), ConnectError> {
        let shared = &self.handle.shared;
        if self.state() == ConnectionState::Error {
            // It has given up and is about to end, or has ended.
            shared.stop().done.cancelled().await;
        }
        let stop = shared.begin_run().ok_or(ConnectError::AlreadyRunning)?;
        let (queue, events) = EventQueue::new(shared.config.inbound_queue);
        #[cfg(feature = "p2p")]
        shared.listen_at(queue.side_door());
        let mut driver = Driver::new(Arc::clone(shared), queue, stop);
        let registry = Arc::clone(&shared.registry);
        // An earlier run's last events come first.
        self.join_tasks().await;
        self.tasks.spawn(dispatch(events, registry));
        let link = driver.first_link().await?;
        self.tasks.spawn(driver.run(link));
        Ok(())
    }

    /// A handle to give away. It does not keep the connection.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Says farewell (UNREGISTER and a close frame), then lets the handlers finish; each within
    /// the builder's close timeout.
    pub async fn close(mut self) {
        self.handle.close().await;
        self.join_tasks().await;
    }

    async fn join_tasks(&mut self) {
        let patience = self.handle.shared.config.close_timeout;
        let joined = timeout(patience, async { while self.tasks.join_next().await.is_some() {} });
        if joined.await.is_err() {
            tracing::warn!(?patience, "handlers did not finish in time");
            self.tasks.abort_all();
        }
    }
}

impl Deref for Client {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Handlers that hold a handle would hold themselves. The tasks are aborted with their set.
        self.handle.shared.registry.clear();
        self.handle.shared.watches.end_all();
        #[cfg(feature = "p2p")]
        self.handle.shared.peers.abort();
    }
}
