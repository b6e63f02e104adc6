//! Who may look, and who may act.

use super::visit;
use crate::support::{
    browser::Browser,
    process::{Process, folder_with},
};

/// SHA-256 of `a token that may read`.
const CONFIG: &str = r#"
[admin_token.reader]
sha256 = "d991d6dfbed510f19f931ebaf4ae25a5884510cbf94b7ae1f42c769565d7bd99"
scope = "read"
"#;
const TOKEN: &str = "a token that may read";

#[tokio::test]
async fn a_token_that_may_read_shows_all_and_moves_nothing() {
    let folder = folder_with(&[("gateway.toml", CONFIG)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/#/nodes", gateway.admin)).await;
    browser.find_saying("dialog", "Admin token").await;
    // There is no way around it, and no token that could never be sent.
    browser.escape().await;
    browser.escape().await;
    browser.find_saying("dialog", "Admin token").await;
    browser.keys("töken").await;
    browser.press_in("dialog", "Continue").await;
    browser.find_saying("dialog", "That is no token").await;
    browser.keys("a wrong one").await;
    browser.press_in("dialog", "Continue").await;
    browser.find_saying("dialog", "does not know that token").await;
    browser.keys(TOKEN).await;
    browser.press_in("dialog", "Continue").await;
    browser.gone("dialog").await;

    browser.find_saying(".node", "reader").await;
    browser.find_saying("tbody", "running").await;
    browser.find_saying(".why-not", "Your token may only read").await;
    let drain = browser.find_saying("button", "Drain …").await;
    assert!(!drain.is_enabled().await.unwrap());
    visit(&browser, &gateway, "hooks", "Hooks").await;
    assert!(!browser.find_saying("button", "Reload").await.is_enabled().await.unwrap());
    // The tab keeps it; the page's own address does not.
    assert!(browser.lacks("dialog").await);
    browser.quit().await;
}
