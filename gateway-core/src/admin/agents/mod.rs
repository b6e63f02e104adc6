//! Agents: who is here, and what an operator does about one.

mod actions;
mod list;
mod one;
mod search;
mod view;

use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) use self::view::unix_ms;
use super::state::AdminState;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(one::one))
        .routes(routes!(actions::disconnect))
        .routes(routes!(actions::send))
}
