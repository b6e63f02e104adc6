//! What peers need of the client and its gateway; a trait, so that tests need neither.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use conexus_protocol::{Draft, IceServer, MessageType, Subprotocol, Timestamp};
use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{ClientError, ConnectionState, Handle, IceOutcome, SendError, shared::Shared};

/// A gateway that told of no servers is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How long to wait for newer servers; those that are known will do else.
const SERVERS_PATIENCE: Duration = Duration::from_secs(5);

/// The client, as peers see it.
pub(crate) trait Gateway: Send + Sync + 'static {
    /// Signs and sends; fails at once while there is no connection.
    fn send(&self, draft: Draft) -> BoxFuture<'_, Result<(), SendError>>;

    /// How the client stands with its gateway.
    fn states(&self) -> watch::Receiver<ConnectionState>;

    /// Whether the client is connected, or about to be again.
    fn is_running(&self) -> bool;

    /// STUN and TURN servers for a connection that begins now.
    fn ice_servers(&self) -> BoxFuture<'_, Vec<IceServer>>;

    /// Whether messages of this type get to other agents by way of the gateway.
    fn relays(&self, kind: MessageType) -> bool;

    /// The gateway's clock.
    fn now(&self) -> Timestamp;

    /// Tells the gateway how a search for a way came out, where the application wants that.
    fn note_outcome(&self, outcome: IceOutcome) -> BoxFuture<'_, ()>;

    /// Tells the error handlers.
    fn report(&self, error: ClientError);
}

/// A client's.
pub(crate) struct OwnGateway {
    client: Weak<Shared>,
    states: watch::Receiver<ConnectionState>,
    /// By how many milliseconds the gateway's clock is ahead, as of the newest session that says so.
    ahead: AtomicI64,
    /// When a gateway was asked that had no servers.
    asked: Mutex<Option<Instant>>,
}

impl OwnGateway {
    pub(crate) fn new(client: Weak<Shared>, states: watch::Receiver<ConnectionState>) -> Self {
        Self { client, states, ahead: AtomicI64::new(0), asked: Mutex::new(None) }
    }

    fn handle(&self) -> Option<Handle> {
        self.client.upgrade().map(|shared| Handle { shared })
    }

    async fn servers(&self) -> Vec<IceServer> {
        let Some(handle) = self.handle() else { return Vec::new() };
        let known = handle.ice_servers();
        if known.is_empty() && !self.is_worth_asking(&handle) {
            return known;
        }
        match timeout(SERVERS_PATIENCE, handle.refresh_ice_servers()).await {
            Ok(Ok(servers)) => servers,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no newer ice servers");
                known
            }
            Err(_) => known,
        }
    }

    /// REGISTERED has what there is; who has told of none, will hardly have any a moment later.
    fn is_worth_asking(&self, handle: &Handle) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told =
            handle.session().is_some_and(|session| session.subprotocol != Subprotocol::V1);
        let since = asked.get_or_insert_with(|| {
            let ago = if is_told { Duration::ZERO } else { ASK_AGAIN };
            let now = Instant::now();
            now.checked_sub(ago).unwrap_or(now)
        });
        let is_due = since.elapsed() >= ASK_AGAIN;
        if is_due {
            *since = Instant::now();
        }
        is_due
    }
}

impl Gateway for OwnGateway {
    fn send(&self, draft: Draft) -> BoxFuture<'_, Result<(), SendError>> {
        Box::pin(async move {
            let gone = SendError::NotConnected(ConnectionState::Disconnected);
            let handle = self.handle().ok_or(gone)?;
            handle.send_draft(draft).await.map(drop)
        })
    }

    fn states(&self) -> watch::Receiver<ConnectionState> {
        self.states.clone()
    }

    fn is_running(&self) -> bool {
        self.client.upgrade().is_some_and(|client| {
            let is_over = *client.state.borrow() == ConnectionState::Error;
            !is_over && !client.stop().done.is_cancelled()
        })
    }

    fn ice_servers(&self) -> BoxFuture<'_, Vec<IceServer>> {
        Box::pin(self.servers())
    }

    fn relays(&self, kind: MessageType) -> bool {
        let session = self.handle().and_then(|handle| handle.session());
        session.is_some_and(|session| session.relay.contains(&kind))
    }

    fn now(&self) -> Timestamp {
        let session = self.handle().and_then(|handle| handle.session());
        if let Some(ahead) = session.and_then(|session| session.clock_ahead) {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        let ours = Timestamp::now().as_unix_millis();
        Timestamp::from_unix_millis(ours.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    fn note_outcome(&self, outcome: IceOutcome) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(handle) = self.handle() else { return };
            if !handle.shared.config.p2p.report_outcomes {
                return;
            }
            if let Err(error) = handle.report_ice_outcome(outcome).await {
                tracing::debug!(%error, "the gateway does not count how a connection came out");
            }
        })
    }

    fn report(&self, error: ClientError) {
        match self.client.upgrade() {
            Some(client) => client.report(error),
            None => tracing::debug!(%error, "nobody is left to be told"),
        }
    }
}

/// The same, shared.
pub(crate) type AnyGateway = Arc<dyn Gateway>;
