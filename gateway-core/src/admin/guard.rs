//! What every request passes: where it comes from, who asks, whether they may; then the time that its
//! answer may take, and the audit.

use std::time::Duration;

use axum::{
    extract::{MatchedPath, RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    access::{self, Caller},
    audit::{Noted, Outcome, UNKNOWN},
    fault::Fault,
    origin,
    state::AdminState,
};
use crate::{config::Scope, http::Origin};

/// A reload compiles and starts whatever has changed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The way of every request to the API.
pub(super) async fn guard(
    State(state): State<AdminState>,
    path: Option<MatchedPath>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = admit(&state, &request);
    let needed = access::needed(request.method());
    let action = path.and_then(|path| state.action(request.method(), path.as_str()));
    let peer = peer(&request);
    let (who, response) = match admitted {
        Ok(caller) => {
            let who = caller.who().to_owned();
            request.extensions_mut().insert(caller);
            let answered = timeout(PATIENCE, next.run(request)).await;
            let late = |_| Fault::new(StatusCode::GATEWAY_TIMEOUT, "took too long").into_response();
            (who, answered.unwrap_or_else(late))
        }
        Err((who, fault)) => (who, fault.into_response()),
    };
    if needed == Scope::Operate
        && let Some(action) = action
    {
        let target = parameters.ok().and_then(|names| Some(names.iter().next()?.1.to_owned()));
        let noted = response.extensions().get::<Noted>().cloned();
        let noted = noted.unwrap_or(Noted { target, detail: None });
        let outcome = match response.extensions().get::<Fault>() {
            Some(fault) => Outcome::Refused(fault.error().to_owned()),
            None => Outcome::Done,
        };
        state.audit.enter(&who, peer, action, noted, outcome);
    }
    response
}

/// The way of every request for the shell: nothing in it needs a token.
pub(super) async fn keep_strangers_out(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let tokens = !state.tokens().is_empty();
    match origin::stranger(request.headers(), tokens) {
        Some(why) => Fault::forbidden(why).into_response(),
        None => next.run(request).await,
    }
}

/// Who asks, if they may; else who it was, as far as that is known, and why not.
fn admit(state: &AdminState, request: &Request) -> Result<Caller, (String, Fault)> {
    let unknown = |fault| (UNKNOWN.to_owned(), fault);
    let tokens = state.tokens();
    if let Some(why) = origin::stranger(request.headers(), !tokens.is_empty()) {
        return Err(unknown(Fault::forbidden(why)));
    }
    let caller = access::identify(request.headers(), &tokens, state.open).map_err(|fault| {
        if let Some(more) = state.denied.count() {
            let (peer, path) = (peer(request), request.uri().path());
            warn!(peer, path, more, "admin request without a valid token");
        }
        unknown(fault)
    })?;
    match access::authorize(&caller, access::needed(request.method())) {
        Ok(()) => Ok(caller),
        Err(fault) => Err((caller.who().to_owned(), fault)),
    }
}

fn peer(request: &Request) -> String {
    request.extensions().get::<Origin>().map_or_else(String::new, |origin| origin.peer.to_string())
}
