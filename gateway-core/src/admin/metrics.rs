//! What a scraper reads.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{fault::Fault, state::AdminState};
use crate::telemetry::exposition::{CLASSIC, OPEN_METRICS};

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Metrics for Prometheus
///
/// In Prometheus's own text format, or as OpenMetrics where the `Accept` header asks for it.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "metrics",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn metrics(State(state): State<AdminState>, headers: HeaderMap) -> Result<Response, Fault> {
    let accepts = |wanted: &str| {
        let accepted = headers.get_all(header::ACCEPT).iter();
        accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains(wanted))
    };
    let (text, content_type) = if accepts("application/openmetrics-text") {
        (state.exposition.open_metrics(), OPEN_METRICS)
    } else {
        (state.exposition.classic(), CLASSIC)
    };
    let text = text.map_err(|_| Fault::internal("the metrics could not be written"))?;
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
