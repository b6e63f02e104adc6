//! A page that is old must look old.

use super::{page, visit};
use crate::support::{
    browser::Browser,
    process::{Process, folder_with},
};

#[tokio::test]
async fn a_page_says_since_when_it_is_without_its_gateway_and_can_hold_still() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    visit(&browser, &gateway, "nodes", "Nodes").await;
    browser.find_saying("#state", "Live").await;
    browser.press("Pause").await;
    browser.find_saying("#state", "Paused since").await;
    browser.press("Resume").await;
    browser.find_saying("#state", "Live").await;

    // The theme stays.
    for theme in ["Light", "Dark"] {
        browser.find("#theme").await.click().await.unwrap();
        browser.find_saying("#theme", theme).await;
    }
    browser.open("about:blank").await;
    browser.open(&page(&gateway, "nodes")).await;
    browser.find_saying("#theme", "Dark").await;

    browser.press("Drain …").await;
    browser.press_in("dialog", "Drain and stop").await;
    browser.find_saying("#state", "Not connected since").await;
    browser.find_saying("#stale", "What you see is from then").await;
    browser.find("body.stale").await;
    browser.quit().await;
}

#[tokio::test]
async fn what_happened_while_the_tab_was_hidden_is_there_once_it_is_seen_again() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    visit(&browser, &gateway, "audit", "Audit").await;
    browser.find_saying("#state", "Live").await;
    browser.find_saying(".empty", "Nobody has done anything").await;
    hide(&browser, true).await;
    browser.script("return fetch('/api/v1/reload', { method: 'POST' }).then(() => null)").await;
    hide(&browser, false).await;
    browser.find_saying("tbody", "reload").await;
    browser.quit().await;
}

/// No driver can hide a tab; the page is told that it is.
async fn hide(browser: &Browser, hidden: bool) {
    let script = format!(
        "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});
         document.dispatchEvent(new Event('visibilitychange'));"
    );
    browser.script(&script).await;
}
