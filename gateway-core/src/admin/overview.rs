//! The gateway at a glance.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AdminState;
use crate::telemetry::overview::{Overview, Series};

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(overview))
}

/// The gateway now, and its last minutes.
#[derive(Debug, Serialize, ToSchema)]
struct Glance {
    /// As it was a second ago at most.
    now: Overview,
    /// The last ten minutes, for charts.
    series: Series,
}

/// The gateway at a glance, and what is wrong with it
#[utoipa::path(
    get,
    path = "/api/v1/overview",
    operation_id = "overview",
    tag = "gateway",
    responses((status = 200, body = Glance))
)]
async fn overview(State(state): State<AdminState>) -> Json<Glance> {
    let now = state.monitor.latest().overview.clone();
    Json(Glance { now, series: state.monitor.series() })
}
