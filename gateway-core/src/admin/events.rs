//! What happens, as it happens: a stream of server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Extension, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    access::Caller,
    extract::{Asked, key_of},
    fault::{Fault, FaultBody},
    state::AdminState,
};
use crate::{
    http::{Peer, deadline::Deadline, patience::HTTP_LIFETIME},
    phase::Phase,
    telemetry::events::{Listener, Topic, Topics},
};

/// A quiet stream says this often that it lives: shorter than the patience of any proxy.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The first thing on a stream, so that a listener knows that it is one.
const GREETING: &str = ": events\n\n";
const STILL_HERE: &str = ":\n\n";

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(events))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Of overview, session, flow, decision, audit, reload and message, with commas in between.
    /// Without it all but message, which needs an agent.
    topics: Option<String>,
    /// Only what is about this agent, where something is about agents.
    agent: Option<String>,
}

/// Follow what happens
///
/// A stream of server-sent events, each named by its topic, with data of JSON. `overview` is the
/// Overview of the last second, `session` a HistoryEntry, `decision` a Decision, `audit` an
/// AuditEntry, `reload` the generation that runs now or why it was refused; `flow` tells each second
/// who sent whom how many messages of which type, `message` of each message of the agent that is
/// named. `lagged` says that this listener was too slow, or that too much happened, and how many
/// events it may have missed. The stream ends when its caller's token no longer counts.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "events",
    tag = "node",
    params(Wanted),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, description = "An unknown topic, or messages of no agent", body = FaultBody),
        (status = 422, description = "Not an agent's DID", body = FaultBody),
        (status = 503, description = "As many listen as may, or the gateway stops", body = FaultBody)
    )
)]
async fn events(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<Peer>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Fault> {
    let agent = wanted.agent.as_deref().map(key_of).transpose()?;
    let topics = topics(wanted.topics.as_deref())?;
    if topics.contains(Topic::Message) && agent.is_none() {
        return Err(Fault::bad_request("messages are those of an agent: name it (agent=DID)"));
    }
    let core = &state.core;
    let busy = |why: String| Fault::new(StatusCode::SERVICE_UNAVAILABLE, why);
    if core.phase() >= Phase::Quiescing {
        return Err(busy("the gateway is stopping".into()));
    }
    let listener =
        core.router.telemetry.listen(topics, agent).map_err(|full| busy(full.to_string()))?;
    let mut response = frames(state, caller, peer.deadline, listener).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would keep it until there is a page full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn topics(names: Option<&str>) -> Result<Topics, Fault> {
    let Some(names) = names else { return Ok(Topics::USUAL) };
    names.split(',').try_fold(Topics::default(), |topics, name| match Topic::parse(name) {
        Some(topic) => Ok(topics.with(topic)),
        None => Err(Fault::bad_request(format!("there is no topic {name:?}"))),
    })
}

/// Everything that the listener gets, until the gateway has stopped, the caller may no longer have
/// it, or nobody takes it. Its connection lasts as long as frames are taken.
fn frames(state: AdminState, caller: Caller, deadline: Deadline, listener: Listener) -> Body {
    let mut phase = state.core.phase.subscribe();
    let ended = Box::pin(async move {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
            () = no_longer_counts(&state, &caller) => {}
        }
    });
    let greeting = Some(Bytes::from_static(GREETING.as_bytes()));
    let begin = (greeting, listener, ended, deadline);
    Body::from_stream(stream::unfold(
        begin,
        async |(greeting, mut listener, mut ended, deadline)| {
            let frame = match greeting {
                Some(greeting) => greeting,
                None => tokio::select! {
                    // First, so that nothing more is told.
                    biased;
                    () = &mut ended => return None,
                    frame = timeout(KEEP_ALIVE, listener.next()) => {
                        frame.unwrap_or(Bytes::from_static(STILL_HERE.as_bytes()))
                    }
                },
            };
            deadline.put_off(HTTP_LIFETIME);
            Some((Ok::<_, Infallible>(frame), (None, listener, ended, deadline)))
        },
    ))
}

/// Waits until a configuration is accepted that does not know the caller.
async fn no_longer_counts(state: &AdminState, caller: &Caller) {
    let mut changes = state.reloader.changes();
    while caller.counts(&state.tokens(), state.is_open()) && changes.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_one_by_one_and_messages_never_come_unasked() {
        let all = topics(None).unwrap();
        assert!(all.contains(Topic::Overview) && all.contains(Topic::Reload));
        assert!(!all.contains(Topic::Message));
        let some = topics(Some("session,message")).unwrap();
        assert!(some.contains(Topic::Session) && some.contains(Topic::Message));
        assert!(!some.contains(Topic::Flow));
        for wrong in ["", "session,", "sessions", "session, flow", "lagged"] {
            assert_eq!(topics(Some(wrong)).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
