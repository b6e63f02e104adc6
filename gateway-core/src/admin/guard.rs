//! What every request passes: where it comes from, who asks, whether they may; then the time that its
//! answer may take, and the audit.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    extract::{MatchedPath, RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::warn;

use super::{
    access::{self, Caller},
    audit::{Noted, Outcome},
    fault::Fault,
    origin,
    state::AdminState,
};
use crate::{
    config::{Scope, UNKNOWN},
    http::{Peer, patience::HTTP_LIFETIME},
};

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
    let change = Change::of(&state, path.as_ref(), parameters.ok().as_ref(), &request);
    match admitted {
        Ok(caller) => {
            if let Some(peer) = request.extensions().get::<Peer>() {
                peer.deadline.put_off(PATIENCE + HTTP_LIFETIME);
            }
            request.extensions_mut().insert(caller.clone());
            let answering = answer(next.run(request));
            match change {
                Some(change) => change.make(caller, answering).await,
                None => answering.await.0,
            }
        }
        Err((who, fault)) => {
            if let Some(Change { peer, action, target, .. }) = change {
                state.audit.turn_away(&who, peer, &action, target, fault.error());
            }
            fault.into_response()
        }
    }
}

/// A request that is to change something, as the audit has it.
struct Change {
    state: AdminState,
    peer: String,
    action: String,
    target: Option<String>,
}

impl Change {
    fn of(
        state: &AdminState,
        path: Option<&MatchedPath>,
        parameters: Option<&RawPathParams>,
        request: &Request,
    ) -> Option<Self> {
        if access::needed(request.method()) != Scope::Operate {
            return None;
        }
        let action = state.action(request.method(), path?.as_str())?.to_owned();
        let first = parameters.and_then(|parameters| parameters.iter().next());
        let target = first.map(|(_, value)| value.to_owned());
        Some(Self { state: state.clone(), peer: peer(request), action, target })
    }

    /// In a task of its own: a client that goes away takes what waits for it along, not what was
    /// begun, nor the entry. It ends with the answer, whose time is bounded.
    async fn make(
        self,
        caller: Caller,
        answering: impl Future<Output = (Response, Outcome)> + Send + 'static,
    ) -> Response {
        let made = tokio::spawn(async move {
            let (response, outcome) = answering.await;
            self.enter(caller.who(), &response, outcome);
            response
        });
        made.await.unwrap_or_else(|_| Fault::internal("the change broke").into_response())
    }

    fn enter(self, who: &str, response: &Response, outcome: Outcome) {
        let Self { state, peer, action, target } = self;
        let noted = response.extensions().get::<Noted>().cloned();
        let noted = noted.unwrap_or(Noted { target, detail: None });
        state.audit.enter(who, peer, &action, noted, outcome);
    }
}

/// The answer within its time. What takes longer goes on for all that is known, since threads are not
/// stopped; how far one came that panicked nobody knows either.
async fn answer(answering: impl Future<Output = Response>) -> (Response, Outcome) {
    match timeout(PATIENCE, AssertUnwindSafe(answering).catch_unwind()).await {
        Ok(Ok(response)) => {
            let outcome = outcome(&response);
            (response, outcome)
        }
        Ok(Err(_)) => {
            let broken = Fault::internal("panicked");
            (broken.into_response(), Outcome::Unknown("panicked".to_owned()))
        }
        Err(_) => {
            let late = Fault::new(StatusCode::GATEWAY_TIMEOUT, "took too long");
            (late.into_response(), Outcome::Unknown("took too long".to_owned()))
        }
    }
}

fn outcome(response: &Response) -> Outcome {
    match response.extensions().get::<Fault>() {
        Some(fault) => Outcome::Refused(fault.error().to_owned()),
        None => Outcome::Done,
    }
}

/// The way of every request for the shell: nothing in it needs a token.
pub(super) async fn keep_strangers_out(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    match origin::stranger(request.headers(), !state.is_open()) {
        Some(why) => Fault::forbidden(why).into_response(),
        None => next.run(request).await,
    }
}

/// Who asks, if they may; else who it was, as far as that is known, and why not.
fn admit(state: &AdminState, request: &Request) -> Result<Caller, (String, Fault)> {
    let unknown = |fault| (UNKNOWN.to_owned(), fault);
    let (open, tokens) = (state.is_open(), state.tokens());
    if let Some(why) = origin::stranger(request.headers(), !open) {
        return Err(unknown(Fault::forbidden(why)));
    }
    let caller = access::identify(request.headers(), &tokens, open).map_err(|fault| {
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
    request.extensions().get::<Peer>().map_or_else(String::new, |peer| peer.address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_may_still_happen() {
        let (response, outcome) = answer(std::future::pending()).await;
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(outcome, Outcome::Unknown("took too long".into()));
        let (response, outcome) = answer(async { panic!("on purpose") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(outcome, Outcome::Unknown("panicked".into()));
        let (_, outcome) = answer(async { Fault::conflict("full").into_response() }).await;
        assert_eq!(outcome, Outcome::Refused("full".into()));
    }
}
