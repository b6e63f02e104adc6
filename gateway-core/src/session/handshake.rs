//! From an upgraded socket to a registered session.
//!
//! CHALLENGE (on v1.1), the first frame, its proof, the policy, the claim of the key, REGISTERED.
//! Whatever goes wrong on the way becomes an [`Unregistered`]: what to say and how to close.

use std::{sync::Arc, time::Duration};

use conexus_plugin_api::{
    Agent, Point,
    host::{self, Event},
};
use conexus_protocol::{
    AgentId, AgentKey, Challenge, CloseReason, Envelope, ErrorCode, RefusalReason, Subprotocol,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    Connection,
    active::KeyGuard,
    facts,
    handle::{SessionHandle, SessionId},
    outbox::{Outbox, Parcel},
    proof::{Nonce, Proven, Rejection, prove},
    wire::{Received, SocketFault, Wire},
};
use crate::{
    clock::Moment,
    cluster::{
        Cluster,
        claims::{self, Placed},
    },
    core::Core,
    hooks::{Admission, Denial},
    phase::Phase,
    presence::Claimed,
    telemetry::{
        events::now_ms,
        history::{HistoryEntry, HistoryKind},
    },
    voice::Complaint,
    world::dismiss,
};

/// A session as its task holds it.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) key: KeyGuard,
    pub(crate) handle: Arc<SessionHandle>,
    pub(crate) nonce: Option<Nonce>,
}

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unregistered {
    #[error("peer closed the connection")]
    PeerClosed,
    #[error("no REGISTER in time")]
    TimedOut,
    #[error("the gateway is stopping")]
    Stopping,
    #[error("a newer session of the same key was faster")]
    Superseded,
    /// It holds its key here, and may have something unwritten.
    #[error("a newer session of the same key is on another node")]
    Elsewhere(Box<Registered>),
    #[error("refused: {}", .rejection.complaint.message)]
    Rejected { rejection: Rejection, in_reply_to: Option<String> },
    #[error("refused: too many registrations ({rate})")]
    OverTheRate { rate: &'static str, rejection: Rejection, in_reply_to: Option<String> },
    #[error(transparent)]
    Socket(#[from] SocketFault),
}

/// Makes an upgraded socket a session, or says why not.
pub(crate) async fn register<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Arc<Core>,
    wire: &mut Wire<S>,
    connection: &Connection,
) -> Result<Registered, Unregistered> {
    let patience = core.settings.limits.register_timeout;
    let nonce =
        (connection.subprotocol == Subprotocol::V1_1).then(|| challenge(core, wire, patience));
    let deadline = Instant::now() + patience;
    let text = timeout_at(deadline, first_text(core, wire))
        .await
        .map_err(|_| Unregistered::TimedOut)??;
    if !core.limits.may_register_from(connection.peer.ip()) {
        return Err(Unregistered::over_the_rate(core, connection, "address_rate", &text));
    }
    let (proven, id) = judge(core, &text, connection, nonce.as_ref())?;
    if let Some(denial) = banned(core, proven.agent.key()) {
        return Err(noted(core, connection, proven.agent.as_str(), denied(&denial, id)));
    }
    // Only now: before the proof anybody could use up an agent's registrations in its name.
    if !core.limits.may_register(proven.agent.key()) {
        let refused = Unregistered::over_the_rate(core, connection, "did_rate", &text);
        return Err(noted(core, connection, proven.agent.as_str(), refused));
    }
    // Now, since a policy may take its time: the newest proof wins, not the fastest decision.
    let session = core.next_session_id();

    let now = core.clock.now();
    let Proven { agent, metadata, credentials } = proven;
    let known = facts::proven(core, session, &agent, metadata, connection, now);
    let admission = match admission(core, &known, credentials, connection).await {
        Ok(admission) => admission,
        Err(denial) => {
            return Err(noted(core, connection, &known.did, denied(&denial, id)));
        }
    };
    if core.phase() >= Phase::Departing {
        return Err(Unregistered::Stopping);
    }
    let lease = facts::lease(&core.settings, &admission);
    let rates = admission.rate_class.as_ref().map(|(_, rates)| *rates);
    let known = facts::admitted(&core.settings, known, admission);
    let handle = claim(core, session, agent, known, connection, now, lease).await?;
    handle.set_rates(rates);
    // From here on the key is given up should this not come to its end.
    let mut key = KeyGuard::new(core, &handle);
    if let Some(cluster) = &core.cluster
        && place(core, cluster, &handle).await == Placed::Elsewhere
    {
        return Err(Unregistered::Elsewhere(Box::new(Registered { key, handle, nonce })));
    }
    key.owes_an_end();
    let telemetry = &core.router.telemetry;
    telemetry.sessions.registered(connection.subprotocol, false);
    telemetry.happened(HistoryKind::Registered, &handle, None, None);
    if let Some(denial) = banned(core, handle.agent.key()) {
        // Banned meanwhile: whoever did so may not have found this session yet.
        dismiss(&handle, CloseReason::Removed, &denial.text);
    }
    core.router.observe(Point::Registered, || {
        let (agent, connection) = (handle.facts(), Some(Arc::clone(&handle.connection)));
        Event::Registered(Arc::new(host::Registered { agent, renewal: false, connection }))
    });
    if connection.subprotocol == Subprotocol::V1_1 {
        let welcome = core.welcome(&handle);
        wire.feed(Parcel::Reply(core.router.voice.say(handle.agent.as_str(), Some(&id), welcome)));
    }
    Ok(Registered { key, handle, nonce })
}

/// Tells the cluster that the agent is here, and waits until it is so, or something else is asked of
/// the session, which its loop sees to.
async fn place(core: &Arc<Core>, cluster: &Arc<Cluster>, session: &Arc<SessionHandle>) -> Placed {
    tokio::select! {
        placed = claims::place(core, cluster, session) => placed,
        () = session.outbox.ordered() => Placed::Here,
    }
}

/// What a banned agent is told.
pub(crate) fn banned(core: &Core, key: AgentKey) -> Option<Denial> {
    let ban = core.bans.of(key, core.clock.now())?;
    Some(Denial { reason: RefusalReason::Denied, text: ban.reason.into() })
}

/// Asks policy about a proof that holds.
async fn admission(
    core: &Core,
    agent: &Arc<Agent>,
    credentials: Option<String>,
    connection: &Connection,
) -> Result<Admission, Denial> {
    let judge = core.router.policy.judge();
    if !judge.asks(Point::Register) {
        return Ok(Admission::default());
    }
    let event = host::Register {
        agent: Arc::clone(agent),
        credentials,
        renewal: false,
        connection: Some(Arc::clone(&connection.values)),
    };
    judge.on_register(Arc::new(event)).settled().await
}

fn challenge<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    wire: &mut Wire<S>,
    patience: Duration,
) -> Nonce {
    let nonce = Nonce::generate();
    let payload = Challenge {
        nonce: nonce.as_str().to_owned(),
        expires_in_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
    };
    let voice = &core.router.voice;
    wire.feed(Parcel::Reply(voice.say(voice.did(), None, payload)));
    nonce
}

async fn first_text<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    wire: &mut Wire<S>,
) -> Result<Arc<str>, Unregistered> {
    let mut phase = core.phase.subscribe();
    loop {
        // Who does not take pongs gets no further ones.
        let may_read = wire.takes_control();
        tokio::select! {
            stopping = phase.wait_for(|phase| *phase >= Phase::Departing) => {
                drop(stopping);
                return Err(Unregistered::Stopping);
            }
            received = wire.next(may_read) => match received? {
                Received::Text(text) => return Ok(text),
                Received::Binary => {
                    let rejection = Rejection::malformed("a binary frame is no message", "type");
                    return Err(Unregistered::Rejected { rejection, in_reply_to: None });
                }
                Received::Closed(_) => return Err(Unregistered::PeerClosed),
                Received::Control | Received::Room => {}
            }
        }
    }
}

fn judge(
    core: &Core,
    text: &Arc<str>,
    connection: &Connection,
    nonce: Option<&Nonce>,
) -> Result<(Proven, String), Unregistered> {
    let rules = core.router.rules(connection.subprotocol);
    let envelope = Envelope::parse(text, rules).map_err(|fault| Unregistered::Rejected {
        rejection: Rejection {
            complaint: Complaint::malformed(&fault),
            close: CloseReason::ProtocolError,
        },
        in_reply_to: fault.id,
    })?;
    let id = envelope.id.clone().into_owned();
    match prove(core, &envelope, connection.subprotocol, nonce) {
        Ok(proven) => Ok((proven, id)),
        Err(rejection) => {
            let rejected = Unregistered::Rejected { rejection, in_reply_to: Some(id) };
            Err(noted(core, connection, &envelope.from, rejected))
        }
    }
}

/// Notes for later that a registration in an agent's name was refused.
fn noted(
    core: &Core,
    connection: &Connection,
    did: &str,
    unregistered: Unregistered,
) -> Unregistered {
    if let Unregistered::Rejected { rejection, .. } | Unregistered::OverTheRate { rejection, .. } =
        &unregistered
        && let Ok(key) = AgentKey::parse_did(did)
    {
        core.router.telemetry.note(HistoryEntry {
            at_ms: now_ms(),
            kind: HistoryKind::Refused,
            did: did.into(),
            session: None,
            address: connection.peer,
            subprotocol: connection.subprotocol.as_str(),
            reason: Some(rejection.complaint.message.clone().into()),
            code: Some(rejection.close.code()),
            key,
        });
    }
    unregistered
}

fn denied(denial: &Denial, id: String) -> Unregistered {
    let rejection = Rejection { complaint: Complaint::denial(denial), close: CloseReason::Denied };
    Unregistered::Rejected { rejection, in_reply_to: Some(id) }
}

async fn claim(
    core: &Core,
    session: SessionId,
    agent: AgentId,
    known: Arc<Agent>,
    connection: &Connection,
    connected_at: Moment,
    lease: Duration,
) -> Result<Arc<SessionHandle>, Unregistered> {
    let limits = &core.settings.limits;
    let handle = Arc::new(SessionHandle::new(
        session,
        agent,
        connection.subprotocol,
        known,
        Arc::clone(&connection.values),
        Outbox::new(limits.outbox_messages, limits.outbox_bytes),
        Arc::clone(&core.router.telemetry),
        connected_at,
        core.clock.now().after(lease),
    ));
    match core.router.presence.claim(&handle).await {
        Claimed::Vacant => Ok(handle),
        Claimed::TakenOver => {
            core.router.telemetry.sessions.taken_over();
            debug!(session = %handle.id, agent = %handle.agent, "took over from an older session");
            Ok(handle)
        }
        Claimed::Superseded => Err(Unregistered::Superseded),
    }
}

/// The answer to a REGISTER that is refused. Nobody is known here, so it is addressed as the CHALLENGE is.
fn refusal(core: &Core, rejection: &Rejection, in_reply_to: Option<&str>) -> Parcel {
    let voice = &core.router.voice;
    Parcel::Reply(voice.error(voice.did(), in_reply_to, &rejection.complaint))
}

impl Unregistered {
    /// Parsed for its id, which the answer names; the signature is not looked at.
    fn over_the_rate(core: &Core, connection: &Connection, rate: &'static str, text: &str) -> Self {
        let mut complaint = Complaint::refusal(RefusalReason::RateLimited);
        complaint.message = "too many registrations".into();
        let rejection = Rejection { complaint, close: CloseReason::RateLimited };
        let rules = core.router.rules(connection.subprotocol);
        let id = Envelope::parse(text, rules).ok().map(|envelope| envelope.id.into_owned());
        Self::OverTheRate { rate, rejection, in_reply_to: id }
    }

    /// Whether it was refused for a rate, which may happen very often.
    pub(crate) const fn is_for_a_rate(&self) -> bool {
        matches!(self, Self::OverTheRate { .. })
    }

    /// Says what is to be said and closes.
    pub(crate) async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        core: &Core,
        mut wire: Wire<S>,
    ) {
        match self {
            Self::PeerClosed => wire.close_acknowledged().await,
            Self::Stopping => {
                let hint = super::farewell::reconnect_hint(core);
                wire.close(CloseReason::Restarting, &hint).await;
            }
            Self::TimedOut | Self::Superseded | Self::Elsewhere(_) => {
                let reason = match self {
                    Self::TimedOut => CloseReason::RegisterTimeout,
                    _ => CloseReason::Replaced,
                };
                wire.close(reason, reason.reason()).await;
            }
            Self::Rejected { rejection, in_reply_to } => {
                wire.feed(refusal(core, &rejection, in_reply_to.as_deref()));
                wire.close(rejection.close, rejection.close.reason()).await;
            }
            // There may be many, whose places are wanted by others.
            Self::OverTheRate { rejection, in_reply_to, .. } => {
                wire.feed(refusal(core, &rejection, in_reply_to.as_deref()));
                wire.part(rejection.close, rejection.close.reason()).await;
            }
            Self::Socket(fault) => {
                if let Some(reason) = fault.close_reason() {
                    wire.close(reason, reason.reason()).await;
                }
            }
        }
    }

    /// Why, in a word: how it is counted.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::PeerClosed => "closed",
            Self::TimedOut => "timeout",
            Self::Stopping => "stopping",
            Self::Superseded | Self::Elsewhere(_) => "superseded",
            Self::Rejected { rejection, .. } => match rejection.close {
                CloseReason::NotAuthenticated => "not_authenticated",
                CloseReason::Denied => "denied",
                CloseReason::RateLimited => "rate_limited",
                _ => "malformed",
            },
            Self::OverTheRate { rate, .. } => rate,
            Self::Socket(_) => "broken",
        }
    }

    /// The protocol code that the peer was told, for the log.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected { rejection, .. } | Self::OverTheRate { rejection, .. } => {
                Some(rejection.complaint.code)
            }
            _ => None,
        }
    }
}
