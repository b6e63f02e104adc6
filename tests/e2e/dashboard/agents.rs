//! Finding one agent among others, and sending it away.

use conexus_protocol::{Identity, Metadata, Subprotocol};

use super::{assert_no_complaints, page, visit};
use crate::support::{
    browser::Browser,
    process::{Process, folder_with},
};

/// A name that would be an alert if it were ever taken for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='broken into'\">";

#[tokio::test]
async fn an_operator_finds_an_agent_by_its_name_and_sends_it_away() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let _bystander = gateway.agent().await;
    let mut agent = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    let named = Metadata { name: Some(HOSTILE.to_owned()), ..Metadata::default() };
    agent.register_with(agent.with_metadata(named)).await;
    let browser = Browser::start().await;
    visit(&browser, &gateway, "", "Overview").await;
    browser.find_saying("#problems", "Nothing is wrong").await;

    // By keyboard: the pages' links, then the search.
    browser.press_in("nav", "Agents").await;
    browser.find_saying("h1", "Agents").await;
    assert_eq!(browser.focus().await, ("h1".to_owned(), "Agents".to_owned()));
    browser.find_saying(".heading", "2 agents").await;
    browser.keys("/").await;
    assert_eq!(browser.focus().await.0, "input");
    browser.keys("onerror").await;
    browser.find_saying(".heading", "1 agent").await;
    browser.find_saying("td", "<img src=x").await;

    browser.press_in("tbody", &agent.did()[8..16]).await;
    browser.find_saying(".full-did", &agent.did()).await;
    browser.find_saying("dd", "<img src=x onerror").await;
    browser.press("Disconnect …").await;
    browser.find_saying("dialog", "Disconnect this agent?").await;
    browser.escape().await;
    browser.gone("dialog").await;
    browser.press("Disconnect …").await;
    browser.keys("it misbehaves").await;
    browser.press_in("dialog", "Disconnect").await;
    assert_eq!(agent.close().await.0, 4009);
    browser.find_saying(".note", "Disconnected.").await;
    browser.find_saying(".badge", "not here").await;
    browser.find_saying("section[aria-label=History] tbody", "left").await;

    browser.press("Ban …").await;
    browser.press_in("dialog", "Ban").await;
    browser.find_saying(".badge", "banned").await;
    browser.press("Lift the ban …").await;
    browser.press_in("dialog", "Lift the ban").await;
    browser.find_saying(".note", "The ban is lifted.").await;

    visit(&browser, &gateway, "audit", "Audit").await;
    for action in ["disconnect", "ban", "unban"] {
        browser.find_saying("tbody tr", action).await;
    }
    visit(&browser, &gateway, "history", "History").await;
    browser.find_saying("tbody tr", "registered").await;
    assert_ne!(browser.script("return document.title").await, "broken into");
    assert_no_complaints(&browser).await;
    browser.quit().await;
}

#[tokio::test]
async fn no_page_is_wider_than_a_phone() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let agent = gateway.agent().await;
    let browser = Browser::start().await;
    browser.resize(390, 844).await;
    let one = format!("agents/{}", agent.did());
    for route in
        ["", "agents", &one, "flow", "hooks", "decisions", "history", "audit", "nodes", "config"]
    {
        browser.open(&page(&gateway, route)).await;
        browser.find("h1").await;
        browser.find(".panel, .table-box, .decisions").await;
        let widths = "return [document.documentElement.scrollWidth, innerWidth]";
        assert_eq!(browser.script(widths).await, serde_json::json!([390, 390]), "{route}");
    }
    assert_no_complaints(&browser).await;
    browser.quit().await;
}
