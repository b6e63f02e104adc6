//! What the end-to-end tests share: a gateway in this process, agents that speak the protocol by
//! hand over real sockets, and waiting for events with one patience for all.

pub(crate) mod agent;
pub(crate) mod backplane;
pub(crate) mod browser;
pub(crate) mod bystanders;
pub(crate) mod events;
pub(crate) mod fault_proxy;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod pki;
pub(crate) mod policy;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod scrape;

use std::{future::Future, time::Duration};

/// How long a test waits for something that must happen. Generous: it only costs time when
/// something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `event`, and fails the test when it does not happen.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits until `condition` holds, for what announces itself in no other way.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
