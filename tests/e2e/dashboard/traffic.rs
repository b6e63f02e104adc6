//! Who signals whom, and how much of it.

use super::{assert_no_complaints, visit};
use crate::support::{
    browser::Browser,
    process::{Process, folder_with},
};

#[tokio::test]
async fn messages_are_seen_as_they_pass_and_are_accounted_for() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (mut alice, mut bob) = (gateway.agent().await, gateway.agent().await);
    let nobody = conexus_protocol::Identity::generate();
    let browser = Browser::start().await;
    visit(&browser, &gateway, "flow", "Flow").await;
    browser.find_saying("#state", "Live").await;
    browser.find_saying(".empty", "Nobody has signalled anybody").await;
    alice.send_offer(&bob.did(), "hello").await;
    bob.text().await;
    alice.send_offer(nobody.did(), "hello?").await;
    alice.refusal().await;
    browser.find_saying("tbody tr", "unknown_agent 1").await;
    let nodes = browser.script("return document.querySelectorAll('.nodes a').length").await;
    assert_eq!(nodes, 3);
    let kinds = "return [...document.querySelectorAll('.edge')].map((e) => e.classList[1]).sort()";
    assert_eq!(browser.script(kinds).await, serde_json::json!(["delivered", "refused"]));

    visit(&browser, &gateway, "", "Overview").await;
    browser.find_saying(".account div:first-child", "1 (50").await;
    browser.find_saying("section[aria-label='What became of every message']", "2 received").await;
    let line = browser.find(".plot path.line.received").await;
    assert!(line.attr("d").await.unwrap().is_some_and(|path| path.starts_with('M')));

    // What a chart says to who cannot see it, and to who has no mouse.
    let summary = "return document.querySelector('.chart p.unseen').textContent";
    let summary = browser.script(summary).await;
    assert!(summary.as_str().unwrap().contains("The last 10 minutes. received: now"), "{summary}");
    let told = "const plot = document.querySelector('.plot'); plot.focus();
        plot.dispatchEvent(new KeyboardEvent('keydown', { key: 'Home', bubbles: true }));
        return plot.getAttribute('aria-valuetext')";
    let told = browser.script(told).await;
    assert!(told.as_str().unwrap().contains("received"), "{told}");

    visit(&browser, &gateway, &format!("agents/{}", bob.did()), "…").await;
    browser.find_saying("section[aria-label='Messages as they pass']", "None since").await;
    alice.send_offer(&bob.did(), "again").await;
    bob.text().await;
    let passed =
        browser.find_saying("section[aria-label='Messages as they pass'] tbody tr", "OFFER");
    assert!(passed.await.text().await.unwrap().contains("delivered"));
    assert_no_complaints(&browser).await;
    browser.quit().await;
}
