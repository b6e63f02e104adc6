//! `GET /ice`: STUN and TURN servers for an agent that is registered here, with fresh credentials.
//!
//! Who asks proves by a token of its own key ([`UnverifiedToken`]) which agent it is; that the agent is
//! registered at this moment carries over all that decided about it: policy, bans, expiry. Signatures are
//! verified last, and for keys that are known here alone: strangers cannot make the gateway work for
//! them, nor learn from its answers who is here.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use conexus_protocol::{AgentKey, IceServer, Timestamp, UnverifiedToken};
use serde::Serialize;

use super::{App, fault};
use crate::{core::Core, ice::Told, session::handle::SessionHandle};

#[derive(Serialize)]
struct Answer {
    ice_servers: Vec<IceServer>,
    /// Null where nothing expires.
    ttl_seconds: Option<u64>,
    expires_at: Option<String>,
}

/// What is answered alike whether the agent is not here or the signature is not its own.
const NOT_OF_ANYBODY_HERE: &str =
    "the token is not signed by an agent that is registered at this gateway now";

/// Why there is no answer, and how that is counted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Nobody knows who asks.
    Unauthenticated(String),
    /// It says to be of an agent that is not here; whether it is was not looked at.
    NotRegistered,
    Banned,
    /// Ask again after so many seconds.
    TooOften(u64),
}

pub(super) async fn servers(State(app): State<App>, headers: HeaderMap) -> Response {
    let core = &app.core;
    let asked = admit(core, &headers).and_then(|session| {
        let turn = session.ice.take(core.clock.now(), core.ice.settings().requests_per_minute);
        turn.map_err(|wait| Refusal::TooOften(wait.as_secs() + 1))?;
        Ok(session.agent.key())
    });
    let (word, response) = match asked {
        Ok(agent) => ("ok", answer(core, agent)),
        Err(refusal) => (refusal.word(), refusal.into_response()),
    };
    core.ice.answers.count(word);
    no_store(response)
}

/// Whatever it says is for this agent, now.
pub(super) fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn answer(core: &Core, agent: AgentKey) -> Response {
    let Told { servers, validity } = core.ice.servers_for(agent);
    let at = |seconds: i64| Timestamp::from_unix_millis(seconds.saturating_mul(1000));
    Json(Answer {
        ice_servers: servers,
        ttl_seconds: validity.map(|validity| validity.ttl),
        expires_at: validity.map(|validity| at(validity.expires).to_string()),
    })
    .into_response()
}

/// The session of the agent that asks, if it may; how often is for whoever answers.
pub(super) fn admit(core: &Core, headers: &HeaderMap) -> Result<Arc<SessionHandle>, Refusal> {
    let refused = |why: String| Refusal::Unauthenticated(why);
    let token = bearer(headers)
        .ok_or_else(|| refused("a bearer token is needed that the agent's key signs".into()))?;
    let token = UnverifiedToken::parse(token).map_err(|error| refused(error.to_string()))?;
    token
        .is_in_time(Timestamp::now(), core.settings.signatures.max_clock_skew)
        .map_err(|error| refused(error.to_string()))?;
    if !token.audiences().iter().any(|audience| core.audiences.accept(audience)) {
        return Err(refused("token's aud is not this gateway's URL".into()));
    }
    let (key, now) = (token.agent().key(), core.clock.now());
    let (session, is_banned) =
        (core.router.presence.live(key, now), core.bans.of(key, now).is_some());
    if session.is_none() && !is_banned {
        return Err(Refusal::NotRegistered);
    }
    token.verify().map_err(|_| refused(NOT_OF_ANYBODY_HERE.into()))?;
    if is_banned {
        return Err(Refusal::Banned);
    }
    session.ok_or(Refusal::NotRegistered)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

impl Refusal {
    /// How it is counted.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::NotRegistered => "not_registered",
            Self::Banned => "banned",
            Self::TooOften(_) => "rate_limited",
        }
    }
}

fn unauthorized(why: String) -> Response {
    let mut response = fault(StatusCode::UNAUTHORIZED, why);
    let scheme = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthenticated(why) => unauthorized(why),
            Self::NotRegistered => unauthorized(NOT_OF_ANYBODY_HERE.into()),
            Self::Banned => fault(StatusCode::FORBIDDEN, "the agent is banned"),
            Self::TooOften(wait) => {
                let text = "too many requests of this session (ice.requests_per_minute)";
                let mut response = fault(StatusCode::TOO_MANY_REQUESTS, text);
                response.headers_mut().insert(header::RETRY_AFTER, wait.into());
                response
            }
        }
    }
}
