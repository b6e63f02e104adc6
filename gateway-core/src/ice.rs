//! STUN and TURN servers as agents are told of them: where a server shares a secret with this
//! gateway, with a credential of the agent's own that soon expires.
//!
//! The scheme is coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user name is the
//! second of expiry and the agent, the password an HMAC of it, so that the server knows a credential
//! without ever having seen it. `session` asks for REGISTERED, `http` for `GET /ice`; a reload brings
//! other servers and secrets. `outcomes` has what agents tell of what came of it.

pub(crate) mod outcomes;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use conexus_protocol::{AgentKey, IceServer, Timestamp};
use ring::hmac;

use self::outcomes::Outcomes;
use crate::{
    clock::Moment,
    config::{IceServerSettings, IceSettings, Secret},
    telemetry::sessions::Named,
};

/// What `GET /ice` may be answered.
const ANSWERS: [&str; 5] = ["ok", "unauthenticated", "not_registered", "banned", "rate_limited"];

/// What `POST /ice/outcome` may be answered.
const REPORTS: [&str; 6] =
    ["ok", "unauthenticated", "not_registered", "banned", "rate_limited", "malformed"];

/// What one agent presents to a TURN server. `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCredential {
    /// `EXPIRY:USER`, the expiry in seconds since 1970.
    pub username: String,
    /// Base64 of the HMAC-SHA1 of the user name.
    pub password: String,
}

impl TurnCredential {
    /// What a server with this secret accepts of `user` until `expires` (seconds since 1970).
    pub fn mint(secret: &Secret, user: &str, expires: i64) -> Self {
        let username = format!("{expires}:{user}");
        // The scheme has no other hash. What breaks SHA-1 are collisions, which are no way into an HMAC.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
        let password = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
        Self { username, password }
    }
}

impl fmt::Debug for TurnCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnCredential")
            .field("username", &self.username)
            .field("password", &"<secret>")
            .finish()
    }
}

/// See the [module](self).
pub(crate) struct Ice {
    settings: ArcSwap<IceSettings>,
    minted: AtomicU64,
    /// Answers to `GET /ice`, by outcome.
    pub(crate) answers: Named<{ ANSWERS.len() }>,
    /// Answers to `POST /ice/outcome`, by outcome.
    pub(crate) reports: Named<{ REPORTS.len() }>,
    /// What those said that were taken.
    pub(crate) outcomes: Outcomes,
}

/// What one agent is told.
pub(crate) struct Told {
    pub(crate) servers: Vec<IceServer>,
    /// How long the credentials are good; none where none was minted.
    pub(crate) validity: Option<Validity>,
}

/// How long a credential is good, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) ttl: u64,
    /// Since 1970.
    pub(crate) expires: i64,
}

impl Ice {
    pub(crate) fn new(settings: &IceSettings) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings.clone()),
            minted: AtomicU64::new(0),
            answers: Named::new(&ANSWERS),
            reports: Named::new(&REPORTS),
            outcomes: Outcomes::default(),
        }
    }

    /// From now on agents are told of these.
    pub(crate) fn follow(&self, settings: &IceSettings) {
        self.settings.store(Arc::new(settings.clone()));
    }

    pub(crate) fn settings(&self) -> Arc<IceSettings> {
        self.settings.load_full()
    }

    /// How many credentials were made so far.
    pub(crate) fn minted(&self) -> u64 {
        self.minted.load(Relaxed)
    }

    /// The servers for one agent, whose credentials last from now on.
    pub(crate) fn servers_for(&self, agent: AgentKey) -> Told {
        let settings = self.settings.load();
        let ttl = settings.credential_ttl.as_secs();
        let expires = now().saturating_add(i64::try_from(ttl).unwrap_or(i64::MAX));
        // One user, however the agent spells its DID: TURN servers count quotas by it.
        let user = agent.did();
        let mut minted = 0;
        let told = |server: &IceServerSettings| {
            let (username, credential) = match &server.secret {
                Some(secret) => {
                    minted += 1;
                    let TurnCredential { username, password } =
                        TurnCredential::mint(secret, &user, expires);
                    (Some(username), Some(password))
                }
                None => {
                    let credential = server.credential.as_ref();
                    let text = credential.map(|secret| secret.expose().to_owned());
                    (server.username.clone(), text)
                }
            };
            IceServer { urls: server.urls.clone(), username, credential }
        };
        let servers = settings.servers.iter().map(told).collect();
        self.minted.fetch_add(minted, Relaxed);
        Told { servers, validity: (minted > 0).then_some(Validity { ttl, expires }) }
    }
}

/// How often one session of an agent may ask: so many times a minute, as many at once. By the method of GCRA, which
/// keeps one number: when the agent would have used up what it was given, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Takes one turn, or tells how long to wait for one. 0 a minute is no limit.
    pub(crate) fn take(&self, now: Moment, per_minute: u32) -> Result<(), Duration> {
        const MINUTE: u64 = 60_000;
        let Some(interval) = MINUTE.checked_div(u64::from(per_minute)) else { return Ok(()) };
        let after = |used: u64| used.max(now.as_millis()).saturating_add(interval);
        let last = now.as_millis().saturating_add(MINUTE);
        let take = |used| Some(after(used)).filter(|used| *used <= last);
        match self.0.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => Ok(()),
            Err(used) => Err(Duration::from_millis(after(used) - last)),
        }
    }
}

/// Seconds since 1970: TURN servers compare with the wall clock, too.
fn now() -> i64 {
    i64::try_from(Timestamp::now().as_unix_nanos().div_euclid(1_000_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;

    use super::*;

    #[test]
    fn an_agent_may_ask_so_often_a_minute_and_no_more() {
        let pace = Pace::default();
        let at = Moment::from_millis;
        assert!((0..6).all(|_| pace.take(at(5000), 6).is_ok()));
        assert_eq!(pace.take(at(5000), 6), Err(Duration::from_secs(10)));
        assert_eq!(pace.take(at(14_999), 6), Err(Duration::from_millis(1)));
        assert_eq!(pace.take(at(15_000), 6), Ok(()));
        assert!(pace.take(at(15_000), 6).is_err());
        assert!((0..1000).all(|_| pace.take(at(15_000), 0).is_ok()), "no limit");
    }

    fn server(urls: &[&str]) -> IceServerSettings {
        let urls = urls.iter().map(|&url| url.into()).collect();
        IceServerSettings { urls, username: None, credential: None, secret: None }
    }

    #[test]
    fn a_password_is_the_hmac_of_the_user_name() {
        let minted = TurnCredential::mint(&Secret::new("north"), "alice", 1_700_000_000);
        assert_eq!(minted.username, "1700000000:alice");
        // printf 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(minted.password, "Cd/49soE35ICqcJF/bCTn8Z4OyE=");
        assert!(!format!("{minted:?}").contains(&minted.password));
    }

    #[test]
    fn only_servers_that_share_a_secret_get_credentials_of_the_agents_own() {
        let fixed = IceServerSettings {
            username: Some("all".into()),
            credential: Some(Secret::new("same")),
            ..server(&["turn:fixed.example"])
        };
        let shared =
            IceServerSettings { secret: Some(Secret::new("north")), ..server(&["turn:a"]) };
        let ttl = Duration::from_secs(600);
        let servers = vec![server(&["stun:s"]), fixed, shared.clone()];
        let ice = Ice::new(&IceSettings { servers, credential_ttl: ttl, ..IceSettings::default() });
        let agent = Identity::generate();
        let before = now();
        let Told { servers, validity } = ice.servers_for(agent.key());
        let expires = validity.unwrap().expires;
        assert!((before + 600..=now() + 600).contains(&expires));
        assert_eq!((&servers[0].username, &servers[0].credential), (&None, &None));
        assert_eq!(servers[1].username.as_deref(), Some("all"));
        assert_eq!(servers[1].credential.as_deref(), Some("same"));
        let minted = TurnCredential::mint(&Secret::new("north"), agent.did(), expires);
        assert_eq!(servers[2].username, Some(minted.username));
        assert_eq!(servers[2].credential, Some(minted.password));
        assert_eq!(ice.minted(), 1);

        // The same key in its other spelling is the same user.
        let legacy = agent.with_legacy_did();
        assert_eq!(ice.servers_for(legacy.key()).servers[2].urls, shared.urls);
        assert!(!servers[2].username.as_ref().unwrap().ends_with(legacy.did()));

        ice.follow(&IceSettings { servers: vec![server(&["stun:t"])], ..IceSettings::default() });
        let Told { servers, validity } = ice.servers_for(legacy.key());
        assert_eq!(servers[0].urls, ["stun:t"]);
        assert!(validity.is_none());
        assert_eq!(ice.minted(), 2);
    }
}
