//! Hooks: a mode changed, a candidate refused, a way back; and what was decided.

use super::{assert_no_complaints, visit};
use crate::support::{
    browser::Browser,
    process::{Process, folder_with, write},
};

const CONFIG: &str = r#"
[policy]
watch = false

[hook.guard]
use = "script:guard"

[[chain.on_route]]
hook = "guard"
mode = "shadow"
"#;
const SCRIPT: &str = "fn on_route(event) { deny(\"denied\", \"<b>not today</b>\") }\n";
const BROKEN: &str = "fn on_route(event) {\n    deny(\n}\n";

#[tokio::test]
async fn an_operator_enforces_a_hook_and_sees_what_it_decides_and_why_a_reload_was_refused() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/guard.rhai", SCRIPT)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut agent = gateway.agent().await;
    let did = agent.did();
    agent.send_offer(&did, "let through").await;
    agent.text().await;
    let browser = Browser::start().await;
    visit(&browser, &gateway, "hooks", "Hooks").await;
    browser.find_saying(".generation", "generation 1").await;
    let row = browser.find_saying("section[aria-label=on_route] tbody tr", "guard").await;
    assert!(row.text().await.unwrap().contains("shadow"));

    browser.press("Change …").await;
    let dialog = browser.find_saying("dialog", "Mode of guard").await.text().await.unwrap();
    assert!(dialog.contains("In 1 call it would have decided otherwise 1 time."), "{dialog}");
    browser.press_in("dialog", "Change the mode").await;
    browser.find_saying(".note", "guard is in enforce since generation 2.").await;
    browser.find_saying("section[aria-label=on_route] tbody tr", "enforce").await;
    browser.find_saying("section[aria-label=on_route] .badge", "configuration says shadow").await;
    agent.send_offer(&did, "refused").await;
    assert_eq!(agent.refusal_and_words().await.1, "<b>not today</b>");

    write(&folder.path().join("scripts/guard.rhai"), BROKEN);
    browser.press("Reload").await;
    browser.find_saying(".note.critical .reasons", "guard.rhai:3:1").await;
    browser.find_saying(".note.warning .reasons", "guard.rhai:3:1").await;
    browser.find_saying("#problems .problem", "Warning").await;
    browser.press("Roll back …").await;
    browser.press_in("dialog", "Roll back").await;
    browser.find_saying(".note", "Generation 1 runs.").await;
    // What was refused is to be expected to be complained about.
    browser.complaints().await;

    // One that is off stays where it can be switched on again.
    browser.press("Change …").await;
    browser.find_saying("dialog label", "It is not asked.").await.click().await.unwrap();
    browser.press_in("dialog", "Change the mode").await;
    browser.find_saying(".note", "guard is in off since generation 3.").await;
    browser.find_saying("section[aria-label=on_route] .badge", "configuration says shadow").await;
    browser.press("Change …").await;
    browser.press_in("dialog", "Change the mode").await;
    browser.find_saying(".note", "guard is in shadow since generation 4.").await;

    visit(&browser, &gateway, "decisions?ruling=deny", "Decisions").await;
    browser.find_saying("summary", "<b>not today</b>").await.click().await.unwrap();
    let steps = browser.find_saying(".steps", "guard").await.text().await.unwrap();
    assert!(steps.contains("enforce"), "{steps}");
    visit(&browser, &gateway, "config?search=chain", "Config").await;
    browser.find_saying("tbody", "guard").await;
    assert_no_complaints(&browser).await;
    browser.quit().await;
}
