//! One connection's life: handshake, the loop of a registered session, farewell.
//!
//! One task owns the socket from the upgrade to the end. It registers ([`handshake`]), serves
//! ([`active`], with what comes in judged by [`inbound`], WATCH by `watch`) and leaves ([`farewell`]), and takes care
//! that every message it had accepted or was to write gets its end. The rest of the gateway knows a
//! session by its [`handle`]; policy knows its agent by the [`facts`]. The socket is a [`wire`]: it
//! knows the [`frames`] that come in and what is [`outgoing`].

pub(crate) mod active;
pub(crate) mod facts;
pub(crate) mod farewell;
mod frames;
pub(crate) mod handle;
pub(crate) mod handshake;
pub(crate) mod inbound;
pub(crate) mod outbox;
mod outgoing;
pub(crate) mod proof;
mod scratch;
mod timer;
mod watch;
pub(crate) mod wire;

use std::{net::SocketAddr, sync::Arc};

use conexus_plugin_api::host;
use conexus_protocol::Subprotocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{Instrument as _, debug, debug_span, info};

use self::{
    active::{Active, Ended},
    handshake::Unregistered,
    wire::{SocketFault, Wire},
};
use crate::{core::Core, http::Permit};

/// What is known of a connection from its upgrade request.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// The proxy that told of it, where one did.
    pub(crate) via: Option<SocketAddr>,
    pub(crate) subprotocol: Subprotocol,
    /// What hooks keep for its length.
    pub(crate) values: Arc<host::Connection>,
    /// Whether it goes over TLS.
    pub(crate) encrypted: bool,
    /// Its places among `limits.connections` and `limits.connections_per_address`.
    pub(crate) _permit: Permit,
}

/// The most that a record of TLS carries (RFC 8446, section 5.1). A peer can read all of a record or
/// nothing, so what was begun to be written of one is with the kernel when all of it is.
const ONE_RECORD: usize = 1 << 14;

/// Serves an upgraded socket until its end. `early` is what was read of it along with the request.
pub(crate) fn run<S>(
    core: Arc<Core>,
    stream: S,
    early: &[u8],
    connection: Connection,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // Not at info: a span is entered and left at every poll.
    let span = debug_span!("session", peer = %connection.peer);
    let max_message = core.settings.limits.message_bytes;
    let at_once = if connection.encrypted { ONE_RECORD } else { usize::MAX };
    let wire = Box::new(Wire::new(stream, early, max_message, at_once));
    serve(core, wire, connection).instrument(span)
}

/// What is awaited here is boxed: a future holds a place for everything that is alive across one of
/// its waits, and each connection has such a future. So a session that runs has nothing left of its
/// handshake.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    core: Arc<Core>,
    mut wire: Box<Wire<S>>,
    connection: Connection,
) {
    let reading = core.readers.token();
    let sessions = Arc::clone(&core.router.telemetry.sessions);
    let state = sessions.begun(connection.subprotocol);
    match Box::pin(handshake::register(&core, &mut wire, &connection)).await {
        Ok(registered) => {
            info!(
                session = %registered.handle.id,
                peer = %connection.peer,
                via = connection.via.map(tracing::field::display),
                agent = %registered.handle.agent,
                subprotocol = %connection.subprotocol,
                "agent connected"
            );
            let active = Box::new(Active::new(core, registered, wire, reading, state));
            Box::pin(active.run()).await;
        }
        Err(unregistered) => {
            sessions.registrations_refused.count(unregistered.word());
            if matches!(unregistered, Unregistered::Socket(SocketFault::TooBig)) {
                sessions.oversize.count("message");
            }
            let code = unregistered.code().map(conexus_protocol::ErrorCode::as_str);
            let peer = connection.peer;
            if unregistered.is_for_a_rate() {
                // There are as many as whoever sends them likes.
                debug!(%peer, reason = ?unregistered.to_string(), "connection not registered");
                drop(reading);
                return Box::pin(unregistered.farewell(&core, *wire)).await;
            }
            info!(%peer, reason = ?unregistered.to_string(), code, "connection not registered");
            if let Unregistered::Elsewhere(registered) = unregistered {
                let active = Box::new(Active::new(core, *registered, wire, reading, state));
                return Box::pin(active.leave(Ended::Superseded)).await;
            }
            drop(reading);
            Box::pin(unregistered.farewell(&core, *wire)).await;
        }
    }
}
