//! The demo page: two tabs of a real browser meet by a real gateway and chat peer to peer.

use crate::support::{
    browser::Browser,
    http,
    process::{Process, folder_with, run},
};

const TALK: &str = ".talk .log";

async fn gateway(settings: &[&str]) -> (tempfile::TempDir, Process) {
    let folder = folder_with(&[]);
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let gateway = Process::start(folder.path(), &arguments).await;
    (folder, gateway)
}

/// Says something in the conversation of the tab that is shown.
async fn say(browser: &Browser, words: &str) {
    browser.find(".talk form input:enabled").await.send_keys(words).await.unwrap();
    browser.find(".talk form button:enabled").await.click().await.unwrap();
    browser.find_saying(".talk .mine", words).await;
}

#[tokio::test]
async fn two_tabs_meet_and_chat_peer_to_peer_while_the_gateway_sees_no_word() {
    let (_folder, gateway) = gateway(&["http.demo=true"]).await;
    let page = format!("http://{}/demo/", gateway.addr);
    let browser = Browser::start().await;
    browser.open(&page).await;
    browser.find_saying("#state", "connected").await;
    let first = browser.find("#my-name").await.text().await.unwrap();
    browser.find_saying("#nobody", "Nobody else yet").await;

    browser.open_tab(&page).await;
    browser.find_saying("#state", "connected").await;
    let second = browser.find("#my-name").await.text().await.unwrap();
    browser.find_saying("#people li", &first).await;
    browser.press_in("#people", "Connect").await;
    browser.find_saying(".talk h3", &first).await;
    browser.find_saying(".talk .state", "connected").await;
    browser.find_saying(".talk .way", "Directly: ").await;
    say(&browser, "<b>hello</b> from the second").await;

    browser.go_to_tab(0).await;
    browser.find_saying(".talk h3", &second).await;
    browser.find_saying(".talk .theirs", "<b>hello</b> from the second").await;
    say(&browser, "and hello back").await;
    // Not even what signaling takes is more than that: OFFER, ANSWER, and candidates.
    let (_, health) = http::get(gateway.addr, "/health", &[]).await;
    let signaled = health["messages"]["received"].as_u64().unwrap();
    say(&browser, "one more").await;

    browser.go_to_tab(1).await;
    browser.find_saying(".talk .theirs", "one more").await;
    let (_, health) = http::get(gateway.addr, "/health", &[]).await;
    assert_eq!(health["messages"]["received"].as_u64().unwrap(), signaled);
    assert_eq!(browser.script("return document.querySelectorAll('.log b').length").await, 0);

    browser.press_in(".talk", "End").await;
    browser.find_saying(TALK, "The conversation is over").await;
    browser.go_to_tab(0).await;
    browser.find_saying(TALK, "The conversation is over").await;
    browser.find_saying(".talk .state", "disconnected").await;
    let complaints = browser.complaints().await;
    let complaints: Vec<_> = complaints.iter().filter(|line| !line.contains("favicon")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    browser.quit().await;
}

#[tokio::test]
async fn the_page_is_guarded_where_it_is_served_and_is_not_there_otherwise() {
    let (_folder, without) = gateway(&[]).await;
    for path in ["/demo", "/demo/", "/demo/app.js", "/demo/client/index.js"] {
        assert_eq!(http::get_raw(without.addr, path, &[]).await.0, 404, "{path}");
    }
    let (_folder, with) = gateway(&["http.demo=true"]).await;
    for (path, kind) in [
        ("/demo/", "text/html"),
        ("/demo/app.js", "text/javascript"),
        ("/demo/client/index.js", "text/javascript"),
        ("/demo/client/peer/peers.js", "text/javascript"),
    ] {
        let (status, head, _) = http::get_raw(with.addr, path, &[]).await;
        let head = head.to_ascii_lowercase();
        assert_eq!(status, 200, "{path}");
        for expected in [
            &format!("content-type: {kind}"),
            "content-security-policy: default-src 'none'; script-src 'self'",
            "x-content-type-options: nosniff",
        ] {
            assert!(head.contains(expected), "{path}: no {expected} in {head}");
        }
    }
    let (status, head, _) = http::get_raw(with.addr, "/demo", &[]).await;
    assert!(status == 308 && head.to_ascii_lowercase().contains("location: /demo/"), "{head}");
    assert_eq!(http::get_raw(with.addr, "/demo/index.html", &[]).await.0, 404);
}

#[tokio::test]
async fn beyond_loopback_the_page_is_refused_at_the_start() {
    let folder = folder_with(&[]);
    let ended =
        run(folder.path(), &["run", "--set", "http.demo=true", "--set", "server.listen=0.0.0.0:0"])
            .await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("http.demo needs server.listen"), "{}", ended.err);
}
