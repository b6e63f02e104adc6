//! The dashboard, as an operator sees it: a real gateway, real agents, a real browser.

mod access;
mod agents;
mod files;
mod freshness;
mod policy;
mod traffic;

use crate::support::{browser::Browser, process::Process};

/// A page of the dashboard.
fn page(gateway: &Process, route: &str) -> String {
    format!("http://{}/#/{route}", gateway.admin)
}

/// Opens a page and waits for its heading.
pub(crate) async fn visit(browser: &Browser, gateway: &Process, route: &str, heading: &str) {
    browser.open(&page(gateway, route)).await;
    browser.find_saying("h1", heading).await;
}

/// The console has nothing to say, of the content security policy least of all.
pub(crate) async fn assert_no_complaints(browser: &Browser) {
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:#?}");
}
