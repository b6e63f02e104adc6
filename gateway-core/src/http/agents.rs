//! `/agents`: who is present, on whichever node of a cluster, a page at a time, in the order of their
//! keys.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use conexus_plugin_api::{AgentFilter, Metadata};
use conexus_protocol::{AgentKey, Timestamp};
use serde::{Deserialize, Serialize};

use super::{App, fault};
use crate::{
    cluster::lists::{self, Listed},
    config::AgentsAccess,
    core::Core,
};

/// How many agents are written down before messages get their turn.
const AT_ONCE: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    limit: Option<usize>,
    cursor: Option<String>,
    name: Option<String>,
    capability: Option<String>,
    /// `NAME:VALUE`.
    label: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    agents: Vec<Agent>,
    count: usize,
    next_cursor: Option<String>,
    /// Agents of nodes that did not answer are missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

#[derive(Serialize)]
struct Agent {
    did: String,
    connected_at: String,
    last_activity: String,
    subprotocol: String,
    #[serde(skip_serializing_if = "is_empty")]
    metadata: Metadata,
}

fn is_empty(metadata: &Metadata) -> bool {
    *metadata == Metadata::default()
}

pub(super) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    let core = &app.core;
    if let Err(refusal) = admit(core, &headers) {
        return *refusal;
    }
    let Query(question) = match question {
        Ok(question) => question,
        Err(rejection) => return fault(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    let most = core.settings.http.agents_page;
    if question.limit == Some(0) {
        return fault(StatusCode::BAD_REQUEST, "limit: must be at least 1");
    }
    // More than fits on a page is no fault: the rest is behind the cursor.
    let limit = question.limit.map_or(most, |limit| limit.min(most));
    let after = match question.cursor.as_deref().map(AgentKey::parse_base58).transpose() {
        Ok(after) => after,
        Err(_) => return fault(StatusCode::BAD_REQUEST, "cursor: not one of this gateway's"),
    };

    let Question { name, capability, label, .. } = question;
    let label = match label.map(|label| searchable(&label, &core.settings.http.agents_labels)) {
        None => None,
        Some(Ok(label)) => Some(label),
        Some(Err(problem)) => return fault(StatusCode::BAD_REQUEST, problem),
    };
    let filter = AgentFilter { name, capability, label, ..AgentFilter::default() };
    let list = lists::list(core, after, limit, &filter).await;
    let mut agents = Vec::with_capacity(list.agents.len());
    for some in list.agents.chunks(AT_ONCE) {
        agents.extend(some.iter().map(shown));
        tokio::task::yield_now().await;
    }
    Json(Answer {
        agents,
        count: list.total,
        next_cursor: list.next.map(|key| key.base58()),
        partial: !list.missing.is_empty(),
    })
    .into_response()
}

/// A label that may be searched by, and its value. The others are told like ones that nobody has:
/// which labels there are is policy's, too.
fn searchable(label: &str, allowed: &[String]) -> Result<(String, String), &'static str> {
    let Some((name, value)) = label.split_once(':') else {
        return Err("label: expected NAME:VALUE");
    };
    match allowed.iter().any(|allowed| allowed == name) {
        true => Ok((name.to_owned(), value.to_owned())),
        false => Err("label: not one that http.agents_labels lets anybody search by"),
    }
}

fn shown(listed: &Listed) -> Agent {
    let Listed { agent, connected_ms, last_activity_ms, .. } = listed;
    let at = |millis: i64| Timestamp::from_unix_millis(millis).to_string();
    Agent {
        did: agent.did.clone(),
        connected_at: at(*connected_ms),
        last_activity: at(*last_activity_ms),
        subprotocol: agent.subprotocol.clone(),
        // Not its labels: those are policy's.
        metadata: agent.metadata.clone(),
    }
}

/// Whether `http.agents` lets this request see the list.
fn admit(core: &Core, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let http = &core.settings.http;
    match http.agents {
        AgentsAccess::Public => Ok(()),
        AgentsAccess::Off => Err(Box::new(fault(StatusCode::NOT_FOUND, "no such route"))),
        AgentsAccess::Token => {
            let presented = headers
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.strip_prefix("Bearer "));
            let matches = presented
                .zip(http.agents_token.as_ref())
                .is_some_and(|(presented, token)| token.matches(presented));
            if matches {
                return Ok(());
            }
            let mut refusal = fault(StatusCode::UNAUTHORIZED, "a bearer token is needed");
            let scheme = header::HeaderValue::from_static("Bearer");
            refusal.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            Err(Box::new(refusal))
        }
    }
}
