//! Recent decisions that are worth seeing.

use std::sync::Arc;

use axum::{Json, extract::State};
use conexus_protocol::AgentKey;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::Asked,
    fault::{Fault, FaultBody},
    state::AdminState,
};
use crate::hooks::RecentDecision;

/// How many are told unless the caller says.
const USUAL: usize = 100;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(decisions))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Question {
    /// A hook that took part
    hook: Option<String>,
    /// The DID of either end, in either spelling
    agent: Option<String>,
    /// Such as `on_route`
    point: Option<String>,
    /// The first word of the ruling: `deny`, `redirect`, `hold`, `shadow` …
    ruling: Option<String>,
    /// At most so many, 100 unless given; no more than 1000 are kept
    limit: Option<usize>,
}

/// Recent decisions.
#[derive(Serialize, ToSchema)]
struct Decisions {
    /// Newest first.
    #[schema(value_type = Vec<RecentDecision>)]
    decisions: Vec<Arc<RecentDecision>>,
    /// How many were not kept since the start, as there were more than 100 within a second.
    skipped: u64,
}

/// Recent decisions that are worth seeing
///
/// Rulings other than a plain pass, failures of hooks, and verdicts in shadow mode that would have
/// changed something; with a decision log, all of them.
#[utoipa::path(
    get,
    path = "/api/v1/decisions",
    operation_id = "decisions",
    tag = "policy",
    params(Question),
    responses((status = 200, body = Decisions), (status = 400, body = FaultBody))
)]
async fn decisions(
    State(state): State<AdminState>,
    Asked(question): Asked<Question>,
) -> Result<Json<Decisions>, Fault> {
    let limit = question.limit.unwrap_or(USUAL);
    let wanted = Wanted::new(question)?;
    let (decisions, skipped) = state.engine().recent(limit, |decision| wanted.is(decision));
    Ok(Json(Decisions { decisions, skipped }))
}

struct Wanted {
    hook: Option<String>,
    agent: Option<AgentKey>,
    point: Option<String>,
    ruling: Option<String>,
}

impl Wanted {
    fn new(question: Question) -> Result<Self, Fault> {
        let Question { hook, agent, point, ruling, limit: _ } = question;
        let agent = agent.map(|did| AgentKey::parse_did(&did)).transpose();
        let agent = agent.map_err(|_| Fault::bad_request("agent: not a did:key of Ed25519"))?;
        Ok(Self { hook, agent, point, ruling })
    }

    fn is(&self, decision: &RecentDecision) -> bool {
        let key = |did: &Option<String>| AgentKey::parse_did(did.as_deref()?).ok();
        let has_hook = |hook: &String| decision.steps.iter().any(|step| *step.hook == **hook);
        let has_agent =
            |agent: &AgentKey| [&decision.agent, &decision.to].map(key).contains(&Some(*agent));
        self.hook.as_ref().is_none_or(has_hook)
            && self.point.as_ref().is_none_or(|point| decision.point == *point)
            && self.ruling.as_ref().is_none_or(|word| first_word(&decision.ruling) == *word)
            && self.agent.as_ref().is_none_or(has_agent)
    }
}

fn first_word(ruling: &str) -> &str {
    ruling
        .split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'))
        .next()
        .unwrap_or(ruling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ruling_is_asked_for_by_its_first_word() {
        for (ruling, word) in [
            ("deny denied \"no\"", "deny"),
            ("rate_class bulk", "rate_class"),
            ("pass", "pass"),
            ("", ""),
        ] {
            assert_eq!(first_word(ruling), word);
        }
    }
}
