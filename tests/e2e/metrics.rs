//! What a gateway tells of itself: its metrics, what is wrong right now, and what is made for
//! Prometheus and Grafana of them.

mod accounts;
mod bounds;
mod counters;
pub(crate) mod deployed;
mod exposition;
mod hooks;
mod problems;

use serde_json::Value;

use crate::support::{http, process::Process, soon};

/// The gateway now, as `GET /api/v1/overview` tells it.
async fn overview(gateway: &Process) -> Value {
    let (status, glance) = http::get(gateway.admin, "/api/v1/overview", &[]).await;
    assert_eq!(status, 200, "{glance}");
    glance["now"].clone()
}

/// Waits for a problem of that kind.
pub(crate) async fn problem(gateway: &Process, kind: &str) -> Value {
    soon(kind, async {
        loop {
            let now = overview(gateway).await;
            let mut problems = now["problems"].as_array().unwrap().iter();
            if let Some(problem) = problems.find(|problem| problem["kind"] == kind) {
                return problem.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}
