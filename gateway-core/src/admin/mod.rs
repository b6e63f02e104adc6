//! The operator's own listener: the admin API.
//!
//! One module per concern. Each has a `router` on which its handlers are registered together with
//! their description; `routes` merges them and puts the `guard` before all of them. So whatever is
//! served is described (`/api/v1/openapi.json`), is asked for by someone who may, and, where it
//! changes something, is in the `audit`.

mod access;
mod agents;
mod assets;
mod audit;
mod audit_trail;
mod bans;
mod decisions;
mod drain;
mod events;
mod extract;
mod fault;
mod guard;
mod history;
mod hooks;
mod listener;
mod log;
mod metrics;
mod mode;
mod nodes;
mod openapi;
mod origin;
mod overview;
mod reload;
mod settings;
mod state;
mod whoami;

use axum::{Router, extract::DefaultBodyLimit, middleware::from_fn_with_state};
use utoipa_axum::router::OpenApiRouter;

use self::fault::Fault;
pub use self::{
    audit::{AuditEntry, Outcome},
    listener::Admin,
    state::{AdminState, DrainTrigger, Parts, Shared},
};
pub use crate::log_level::{LevelError, LogLevel};

/// The largest body of a request.
const BODY_BYTES: usize = 64 * 1024;

/// Everything that needs a token where there are tokens. A module that is added here is guarded,
/// audited and described.
fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::with_openapi(openapi::about())
        .merge(openapi::router())
        .merge(whoami::router())
        .merge(agents::router())
        .merge(bans::router())
        .merge(metrics::router())
        .merge(overview::router())
        .merge(hooks::router())
        .merge(mode::router())
        .merge(decisions::router())
        .merge(reload::router())
        .merge(settings::router())
        .merge(log::router())
        .merge(drain::router())
        .merge(nodes::router())
        .merge(audit_trail::router())
        .merge(history::router())
        .merge(events::router())
}

/// What anybody may have who reaches the listener: nothing that has data in it.
fn shell() -> Router<AdminState> {
    assets::routes()
}

/// All routes, and what they share.
fn routes(parts: Parts, on_loopback: bool) -> (AdminState, Router) {
    let (api, mut description) = api().split_for_parts();
    openapi::describe_guard(&mut description);
    let state = AdminState::new(parts, on_loopback, &description);
    let api = api
        .fallback(async || Fault::not_found("there is nothing here"))
        .method_not_allowed_fallback(async || Fault::wrong_method())
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), guard::guard));
    let shell = shell().layer(from_fn_with_state(state.clone(), guard::keep_strangers_out));
    let router = api.merge(shell).with_state(state.clone());
    (state, router)
}
