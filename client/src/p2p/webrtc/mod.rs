//! The WebRTC stack: the crate `webrtc` behind the traits of [`transport`](super::transport).
//!
//! Everything of that crate stays in here, so that another stack can take its place.

mod addresses;
mod channel;
mod connection;
mod events;
mod path;
mod relaying;
mod servers;
mod settling;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt::Display, net::IpAddr, sync::Arc, time::Duration};

use ::webrtc::peer_connection::{
    PeerConnectionBuilder, RTCConfigurationBuilder, RTCIceTransportPolicy, SettingEngineBuilder,
};
use futures_util::future::BoxFuture;
use rtc::ice::mdns::MulticastDnsMode;
use tokio::sync::mpsc;

use self::{addresses::Addresses, connection::StackConnection, events::Listener};
use super::transport::{Connection, ConnectionConfig, ConnectionEvent, Transport, TransportError};

/// Between two checks of a pair of candidates. The steps to a connection are taken at this pace too, and the stack's own
/// of 200 ms would be most of the time that it takes on a fast network.
const CHECK_EVERY: Duration = Duration::from_millis(20);
/// Checks of a pair before it is given up: 3 s, since the other side's description may be that long on its way.
const MAX_CHECKS: u16 = 150;
/// How long a better pair is hoped for, once one by a NAT's address works.
const WAIT_FOR_BETTER_THAN_REFLEXIVE: Duration = Duration::from_millis(200);
/// The same, once one by a relay works.
const WAIT_FOR_BETTER_THAN_RELAY: Duration = Duration::from_secs(1);

/// The crate `webrtc`, one UDP socket for each address of the machine.
///
/// It speaks to STUN and TURN servers over UDP; servers that want TCP or TLS are skipped, with a log line.
#[derive(Debug, Clone, Default)]
pub struct WebRtc {
    addresses: Addresses,
    silence: Silence,
}

/// What silence of the other side means.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// How often it is asked for a sign of life.
    asked_every: Duration,
    /// After this a connection counts as interrupted.
    disconnected: Duration,
    /// And after as much more it has failed. As long may the search for a way take.
    failed: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            asked_every: Duration::from_secs(1),
            disconnected: Duration::from_secs(4),
            failed: Duration::from_secs(16),
        }
    }
}

impl WebRtc {
    /// Connections by whatever addresses the machine has.
    ///
    /// That is all but those of the machine itself and of single links, anew for each connection and ICE restart. On
    /// a machine that has no others the loopback addresses are used: nobody else could
    /// be reached, and programs on it can talk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connections by these addresses of the machine alone.
    pub fn on(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { addresses: Addresses::these(addresses), ..Self::default() }
    }
}

impl Transport for WebRtc {
    fn connect(
        &self,
        config: ConnectionConfig,
        events: mpsc::Sender<ConnectionEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>, TransportError>> {
        Box::pin(async move {
            let listener = Listener::new(events, config.max_channels);
            let servers = servers::usable(&config.ice_servers).await;
            let policy = match config.relay_only {
                true => RTCIceTransportPolicy::Relay,
                false => RTCIceTransportPolicy::All,
            };
            let build = |mdns| {
                let configuration = RTCConfigurationBuilder::new()
                    .with_ice_servers(servers.clone())
                    .with_ice_transport_policy(policy)
                    .build();
                PeerConnectionBuilder::new()
                    .with_configuration(configuration)
                    .with_setting_engine(self.settings(config.relay_only, mdns).build())
                    .with_handler(listener.clone())
                    .with_udp_addrs(vec![self.addresses.clone()])
                    .build()
            };
            let stack: Arc<dyn ::webrtc::peer_connection::PeerConnection> =
                match build(MulticastDnsMode::QueryOnly).await {
                    Ok(stack) => Arc::new(stack),
                    // Not every machine has multicast, and names in `.local` alone need it.
                    Err(error) => {
                        tracing::debug!(%error, "no multicast DNS for a peer's addresses");
                        let stack = build(MulticastDnsMode::Disabled).await;
                        Arc::new(stack.map_err(|error| failed("begin a connection", error))?)
                    }
                };
            let has_relays =
                servers.iter().flat_map(|server| &server.urls).any(|url| url.starts_with("turn:"));
            if has_relays {
                tokio::spawn(relaying::keep_going(Arc::downgrade(&stack), listener.clone()));
            }
            let connection = StackConnection::new(stack, listener).await?;
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        })
    }
}

impl WebRtc {
    fn settings(&self, relay_only: bool, mdns: MulticastDnsMode) -> SettingEngineBuilder {
        let Silence { asked_every, disconnected, failed } = self.silence;
        let relay_wait = match relay_only {
            true => Duration::ZERO,
            false => WAIT_FOR_BETTER_THAN_RELAY,
        };
        SettingEngineBuilder::new()
            .with_multicast_dns_mode(mdns)
            .with_ice_timeouts(Some(disconnected), Some(failed), Some(asked_every))
            .with_ice_connection_attempts(Some(CHECK_EVERY), Some(MAX_CHECKS))
            .with_host_acceptance_min_wait(Some(Duration::ZERO))
            // Mostly an address whose candidate is still on its way by the gateway.
            .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
            .with_srflx_acceptance_min_wait(Some(WAIT_FOR_BETTER_THAN_REFLEXIVE))
            .with_relay_acceptance_min_wait(Some(relay_wait))
            // A restart is for a network that changed: it has other addresses.
            .with_discard_local_candidates_during_ice_restart(true)
    }
}

/// What the stack could not do, in its own words.
fn failed(what: &'static str, why: impl Display) -> TransportError {
    TransportError { what, why: why.to_string() }
}
