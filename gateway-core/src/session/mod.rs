//! One connection's life: handshake, the loop of a registered session, farewell.
//!
//! One task owns the socket from the upgrade to the end. It registers ([`handshake`]), serves
//! ([`active`], with what comes in judged by [`inbound`]) and leaves ([`farewell`]), and takes care
//! that every message it had accepted or was to write gets its end. The rest of the gateway knows a
//! session by its [`handle`]; policy knows its agent by the [`facts`].

pub(crate) mod active;
pub(crate) mod facts;
pub(crate) mod farewell;
pub(crate) mod handle;
pub(crate) mod handshake;
pub(crate) mod inbound;
pub(crate) mod outbox;
pub(crate) mod proof;
pub(crate) mod wire;
pub(crate) mod write_buffer;

use std::{net::SocketAddr, sync::Arc};

use conexus_plugin_api::host;
use conexus_protocol::Subprotocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{Instrument as _, info, info_span};

use self::{active::Active, wire::Wire};
use crate::{core::Core, http::Permit};

/// What is known of a connection from its upgrade request.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) subprotocol: Subprotocol,
    /// What hooks keep for its length.
    pub(crate) values: Arc<host::Connection>,
    /// Its place among `limits.connections`.
    pub(crate) _permit: Permit,
}

/// Serves an upgraded socket until its end.
pub(crate) async fn run<S>(core: Arc<Core>, stream: S, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let span = info_span!("session", peer = %connection.peer);
    serve(core, stream, connection).instrument(span).await;
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    core: Arc<Core>,
    stream: S,
    connection: Connection,
) {
    let reading = core.readers.token();
    // Boxed, as is what follows it: a future holds a place for each value that is moved along, and
    // each connection has such a future.
    let mut wire = Box::new(Wire::accept(stream, core.settings.limits.message_bytes).await);
    match Box::pin(handshake::register(&core, &mut wire, &connection)).await {
        Ok(registered) => {
            info!(
                session = %registered.handle.id,
                agent = %registered.handle.agent,
                subprotocol = %connection.subprotocol,
                "agent connected"
            );
            Box::pin(Active::new(core, registered, wire, reading).run()).await;
        }
        Err(unregistered) => {
            drop(reading);
            let code = unregistered.code().map(conexus_protocol::ErrorCode::as_str);
            info!(reason = ?unregistered.to_string(), code, "connection not registered");
            Box::pin(unregistered.farewell(&core, *wire)).await;
        }
    }
}
