//! What is counted of connections and sessions: how many there are in which state, how they began,
//! how they ended.
//!
//! Each happens once in the life of a connection, so plain atomics will do.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use conexus_protocol::Subprotocol;

/// A counter with a name for each of its parts, which are known beforehand.
#[derive(Debug)]
pub(crate) struct Named<const N: usize> {
    names: &'static [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Named<N> {
    pub(crate) const fn new(names: &'static [&'static str; N]) -> Self {
        Self { names, counts: [const { AtomicU64::new(0) }; N] }
    }

    /// Counts one; a name that is not known counts as the last.
    pub(crate) fn count(&self, name: &str) {
        let index = self.names.iter().position(|known| *known == name).unwrap_or(N - 1);
        self.counts[index].fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.all().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.names.iter().zip(&self.counts).map(|(name, count)| (*name, count.load(Relaxed)))
    }
}

/// Why a session ended.
const ENDS: [&str; 11] = [
    "closed",
    "unregistered",
    "replaced",
    "expired",
    "bad_messages",
    "rate_limited",
    "too_slow",
    "removed",
    "denied",
    "stopping",
    "broken",
];

/// Why an upgraded connection did not become a session.
const REGISTRATION_REFUSALS: [&str; 11] = [
    "address_rate",
    "did_rate",
    "rate_limited",
    "malformed",
    "not_authenticated",
    "denied",
    "timeout",
    "superseded",
    "stopping",
    "closed",
    "broken",
];

/// Why there was no TLS.
const TLS_FAILURES: [&str; 8] = [
    "plain_http",
    "timeout",
    "closed",
    "expired_certificate",
    "bad_certificate",
    "incompatible",
    "refused_by_client",
    "malformed",
];

/// TLS handshakes.
#[derive(Debug)]
pub(crate) struct Handshakes {
    /// By version, 1.2 and 1.3; whole ones and resumed ones.
    done: [[AtomicU64; 2]; 2],
    pub(crate) failures: Named<{ TLS_FAILURES.len() }>,
}

impl Handshakes {
    const VERSIONS: [&str; 2] = ["1.2", "1.3"];
    const KINDS: [&str; 2] = ["full", "resumed"];

    pub(crate) fn shaken(&self, is_1_3: bool, resumed: bool) {
        self.done[usize::from(is_1_3)][usize::from(resumed)].fetch_add(1, Relaxed);
    }

    /// How many there were, by version and kind.
    pub(crate) fn done(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Self::VERSIONS.iter().zip(&self.done).flat_map(|(version, kinds)| {
            let of =
                |(kind, count): (&&'static str, &AtomicU64)| (*version, *kind, count.load(Relaxed));
            Self::KINDS.iter().zip(kinds).map(of)
        })
    }
}

/// Why a connection did not become a WebSocket.
const CONNECTION_REFUSALS: [&str; 13] = [
    "connections_full",
    "address_full",
    "address_rate",
    "timeout",
    "tls",
    "proxy_header",
    "forwarded",
    "certificate_required",
    "origin",
    "subprotocol",
    "denied",
    "handshake",
    "stopping",
];

/// What was over its limit of bytes.
const OVERSIZE: [&str; 2] = ["message", "metadata"];

/// Which rate of its agent a message was over.
const RATES: [&str; 2] = ["messages", "bytes"];

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Sockets that are open on the public listener.
    connections: AtomicU64,
    connections_accepted: AtomicU64,
    handshaking: [AtomicU64; Subprotocol::COUNT],
    active: [AtomicU64; Subprotocol::COUNT],
    leaving: [AtomicU64; Subprotocol::COUNT],
    registered: [AtomicU64; Subprotocol::COUNT],
    renewed: [AtomicU64; Subprotocol::COUNT],
    pub(crate) tls: Handshakes,
    pub(crate) connections_refused: Named<{ CONNECTION_REFUSALS.len() }>,
    pub(crate) registrations_refused: Named<{ REGISTRATION_REFUSALS.len() }>,
    pub(crate) ended: Named<{ ENDS.len() }>,
    takeovers: AtomicU64,
    lapses: AtomicU64,
    leases_extended: AtomicU64,
    bad_messages: AtomicU64,
    pub(crate) rate_limited: Named<{ RATES.len() }>,
    pub(crate) oversize: Named<{ OVERSIZE.len() }>,
    accept_failures: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            connections: AtomicU64::default(),
            connections_accepted: AtomicU64::default(),
            handshaking: Default::default(),
            active: Default::default(),
            leaving: Default::default(),
            registered: Default::default(),
            renewed: Default::default(),
            tls: Handshakes { done: Default::default(), failures: Named::new(&TLS_FAILURES) },
            connections_refused: Named::new(&CONNECTION_REFUSALS),
            registrations_refused: Named::new(&REGISTRATION_REFUSALS),
            ended: Named::new(&ENDS),
            takeovers: AtomicU64::default(),
            lapses: AtomicU64::default(),
            leases_extended: AtomicU64::default(),
            bad_messages: AtomicU64::default(),
            rate_limited: Named::new(&RATES),
            oversize: Named::new(&OVERSIZE),
            accept_failures: AtomicU64::default(),
        }
    }
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Upgraded, not registered.
    Handshake,
    /// Registered.
    Active,
    /// It hands on what it leaves, and closes.
    Leaving,
}

impl State {
    pub(crate) const ALL: [Self; 3] = [Self::Handshake, Self::Active, Self::Leaving];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Active => "active",
            Self::Leaving => "leaving",
        }
    }
}

/// A session among those of its state, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct InState {
    sessions: Arc<Sessions>,
    subprotocol: usize,
    state: State,
}

impl InState {
    pub(crate) fn enter(&mut self, state: State) {
        self.counter().fetch_sub(1, Relaxed);
        self.state = state;
        self.counter().fetch_add(1, Relaxed);
    }

    fn counter(&self) -> &AtomicU64 {
        &self.sessions.of(self.state)[self.subprotocol]
    }
}

impl Drop for InState {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Relaxed);
    }
}

/// An open socket of the public listener.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<Sessions>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Sessions {
    pub(crate) fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        self.connections.fetch_add(1, Relaxed);
        self.connections_accepted.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// A session begins, in its handshake.
    pub(crate) fn begun(self: &Arc<Self>, subprotocol: Subprotocol) -> InState {
        let (sessions, subprotocol) = (Arc::clone(self), index(subprotocol));
        sessions.handshaking[subprotocol].fetch_add(1, Relaxed);
        InState { sessions, subprotocol, state: State::Handshake }
    }

    pub(crate) fn registered(&self, subprotocol: Subprotocol, renewal: bool) {
        let counts = if renewal { &self.renewed } else { &self.registered };
        counts[index(subprotocol)].fetch_add(1, Relaxed);
    }

    pub(crate) fn taken_over(&self) {
        self.takeovers.fetch_add(1, Relaxed);
    }

    pub(crate) fn lapsed(&self) {
        self.lapses.fetch_add(1, Relaxed);
    }

    pub(crate) fn lease_extended(&self) {
        self.leases_extended.fetch_add(1, Relaxed);
    }

    pub(crate) fn bad_message(&self) {
        self.bad_messages.fetch_add(1, Relaxed);
    }

    /// The system gave no connection, though there was one.
    pub(crate) fn accept_failed(&self) {
        self.accept_failures.fetch_add(1, Relaxed);
    }

    fn of(&self, state: State) -> &[AtomicU64; Subprotocol::COUNT] {
        match state {
            State::Handshake => &self.handshaking,
            State::Active => &self.active,
            State::Leaving => &self.leaving,
        }
    }

    /// How many sessions are in a state, by subprotocol.
    pub(crate) fn in_state(&self, state: State) -> impl Iterator<Item = (&'static str, u64)> {
        named(self.of(state))
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    pub(crate) fn connections_accepted(&self) -> u64 {
        self.connections_accepted.load(Relaxed)
    }

    /// Registrations, by subprotocol.
    pub(crate) fn registrations(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named(&self.registered)
    }

    /// Renewals of registrations, by subprotocol.
    pub(crate) fn renewals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        named(&self.renewed)
    }

    pub(crate) fn takeovers(&self) -> u64 {
        self.takeovers.load(Relaxed)
    }

    pub(crate) fn lapses(&self) -> u64 {
        self.lapses.load(Relaxed)
    }

    pub(crate) fn leases_extended(&self) -> u64 {
        self.leases_extended.load(Relaxed)
    }

    pub(crate) fn bad_messages(&self) -> u64 {
        self.bad_messages.load(Relaxed)
    }

    pub(crate) fn accept_failures(&self) -> u64 {
        self.accept_failures.load(Relaxed)
    }
}

fn named(counts: &[AtomicU64]) -> impl Iterator<Item = (&'static str, u64)> {
    Subprotocol::ALL.iter().zip(counts).map(|(name, count)| (name.as_str(), count.load(Relaxed)))
}

fn index(subprotocol: Subprotocol) -> usize {
    Subprotocol::ALL.iter().position(|known| *known == subprotocol).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_in_one_state_at_a_time_and_in_none_at_its_end() {
        let sessions = Arc::new(Sessions::default());
        let mut state = sessions.begun(Subprotocol::V1_1);
        let counts = |sessions: &Sessions| {
            State::ALL.map(|state| sessions.in_state(state).map(|(_, count)| count).sum::<u64>())
        };
        assert_eq!(counts(&sessions), [1, 0, 0]);
        state.enter(State::Active);
        assert_eq!(counts(&sessions), [0, 1, 0]);
        assert_eq!(sessions.in_state(State::Active).find(|(_, n)| *n == 1), Some(("ioap.v1.1", 1)));
        state.enter(State::Leaving);
        drop(state);
        assert_eq!(counts(&sessions), [0, 0, 0]);
    }

    #[test]
    fn an_unknown_name_is_counted_all_the_same() {
        let ended = Named::new(&ENDS);
        ended.count("expired");
        ended.count("no such end");
        assert_eq!((ended.get("expired"), ended.get("broken"), ended.get("closed")), (1, 1, 0));
    }
}
