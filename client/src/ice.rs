//! STUN and TURN servers: the newest that the gateway told, and how long they are good for.
//!
//! REGISTERED has them, at the start and at each renewal; `GET /ice` has newer ones. TURN credentials
//! of the gateway's own making expire, and name the second at which they do. [`outcome`] tells the gateway what
//! came of them.

#[cfg(feature = "ice")]
pub(crate) mod outcome;

use std::{fmt, time::Duration};

use conexus_protocol::{IceServer, Timestamp};
use tokio::time::Instant;

use crate::Handle;
#[cfg(feature = "ice")]
use crate::HttpError;

/// The life of a token: long enough for one request.
#[cfg(feature = "ice")]
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// What is known at the moment. `Debug` tells no credential.
#[derive(Clone, Default)]
pub(crate) struct Known {
    servers: Vec<IceServer>,
    /// When they came, and for how long their credentials are good; none where none of them expires.
    #[cfg_attr(not(feature = "ice"), expect(dead_code, reason = "who does not ask does not look"))]
    good: Option<(Instant, Duration)>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("servers", &self.servers.len()).finish_non_exhaustive()
    }
}

impl Known {
    /// From REGISTERED, by the gateway's own clock.
    pub(crate) fn registered(servers: Vec<IceServer>, server_time: &str) -> Self {
        let now = Timestamp::parse(server_time).map(|time| time.as_unix_millis() / 1000);
        let lifetime = now.and_then(|now| {
            let expiries = servers.iter().filter_map(expiry);
            expiries.min().map(|expires| u64::try_from(expires - now).unwrap_or(0))
        });
        let good = lifetime.map(|seconds| (Instant::now(), Duration::from_secs(seconds)));
        Self { servers, good }
    }

    /// Whether half of their time is over.
    #[cfg(feature = "ice")]
    fn is_old(&self) -> bool {
        self.good.is_some_and(|(since, lifetime)| since.elapsed() >= lifetime / 2)
    }
}

/// The second at which a credential expires: the part of its user name before the colon, in the scheme
/// of TURN's REST API. A number that small is somebody's name.
fn expiry(server: &IceServer) -> Option<i64> {
    const THE_YEAR_2001: i64 = 1_000_000_000;
    server.credential.as_ref()?;
    let (expiry, _) = server.username.as_ref()?.split_once(':')?;
    expiry.parse().ok().filter(|expiry| *expiry >= THE_YEAR_2001)
}

#[cfg(feature = "ice")]
#[derive(serde::Deserialize)]
struct Answer {
    ice_servers: Vec<IceServer>,
    ttl_seconds: Option<u64>,
}

/// STUN and TURN servers for WebRTC.
impl Handle {
    /// The newest that the gateway told, on this connection; none while there is no connection, and
    /// on `ioap.v1` before [`refresh_ice_servers`](Self::refresh_ice_servers).
    pub fn ice_servers(&self) -> Vec<IceServer> {
        self.session().map(|session| session.known_ice().servers).unwrap_or_default()
    }

    /// The same, but asks the gateway (`GET /ice`) for new ones where half the time of their credentials
    /// is over, or where it has told none: call this before each new WebRTC connection.
    ///
    /// # Errors
    ///
    /// [`HttpError`]; 401 where this agent is not registered at the moment, 404 where the gateway
    /// knows no such route. What [`ice_servers`](Self::ice_servers) tells stays as it was.
    #[cfg(feature = "ice")]
    pub async fn refresh_ice_servers(&self) -> Result<Vec<IceServer>, HttpError> {
        let session = self.session();
        if let Some(session) = &session {
            let known = session.known_ice();
            if !known.servers.is_empty() && !known.is_old() {
                return Ok(known.servers);
            }
        }
        let config = &self.shared.config;
        let dialer = &config.dialer;
        let token = self.agent_token();
        // What it takes to arrive is no part of how long it is good.
        let asked = Instant::now();
        let answer: Answer =
            dialer.get(&dialer.beside("ice"), Some(&token), config.request_timeout).await?;
        let good = answer.ttl_seconds.map(|seconds| (asked, Duration::from_secs(seconds)));
        let known = Known { servers: answer.ice_servers, good };
        let servers = known.servers.clone();
        if let Some(session) = session {
            session.note_ice(known);
        }
        Ok(servers)
    }

    /// What proves to the gateway over HTTP who asks.
    #[cfg(feature = "ice")]
    fn agent_token(&self) -> String {
        let (audience, now) = (self.shared.config.dialer.endpoint.audience(), Timestamp::now());
        conexus_protocol::AgentToken::sign(self.identity(), audience, now, TOKEN_LIFETIME)
    }
}

#[cfg(all(test, feature = "ice"))]
mod tests {
    use super::*;

    fn server(username: Option<&str>) -> IceServer {
        let credential = username.map(|_| "secret".to_owned());
        IceServer { urls: vec!["turn:x".into()], username: username.map(Into::into), credential }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_expire_are_old_when_half_their_time_is_over() {
        let time = "2026-01-01T00:00:00Z";
        let now = Timestamp::parse(time).unwrap().as_unix_millis() / 1000;
        let names = [format!("{}:did:key:z1", now + 600), format!("{}:did:key:z1", now + 900)];
        let servers = vec![server(Some(&names[1])), server(None), server(Some(&names[0]))];
        let known = Known::registered(servers, time);
        assert!(!format!("{known:?}").contains("secret"));
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(!known.is_old());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(known.is_old(), "the first one that expires counts");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_expire_never_gets_old() {
        for username in [None, Some("conexus"), Some("1234:conexus"), Some("a:b")] {
            let known = Known::registered(vec![server(username)], "2026-01-01T00:00:00Z");
            tokio::time::advance(Duration::from_secs(1_000_000)).await;
            assert!(!known.is_old(), "{username:?}");
        }
    }
}
