//! An agent in Rust and one in Chromium, by the client in JavaScript as the demo page has it.

use conexus_client::{AcceptOptions, CandidateKind, PeerOptions};
use serde_json::Value;

use super::{agent, asks, comes_back, echo, open, twice};
use crate::support::{
    browser::Browser,
    process::{Process, folder_with},
    soon,
};

/// Makes an agent of the page, beside the page's own: it echoes on channels, and does what it is asked.
const BEGIN: &str = "
    const { Client, Identity } = await import('/demo/client/index.js');
    const client = new Client(`ws://${location.host}/ws`, await Identity.generate(), { minProtocol: 'ioap.v1.1' });
    window.client = client;
    window.errors = [];
    client.onError((error) => window.errors.push(error.message));
    client.onRequest(({ args }) => ({ twice: 2 * args.n }));
    window.adopt = (peer) => {
      window.peer = peer;
      peer.onChannel((channel) => channel.onMessage((data) => channel.send(data)));
    };
    client.onPeer(window.adopt);
    await client.connect();
    return client.did;";

/// Opens a channel, and returns what comes back of a text and of 300,000 bytes.
const SAY: &str = "
    const channel = await window.peer.openChannel('from the page');
    const heard = [];
    const both = new Promise((resolve) => channel.onMessage((data) => heard.push(data) === 2 && resolve()));
    await channel.send('grüß dich');
    await channel.send(new Uint8Array(300_000).fill(7));
    await both;
    const sum = new Uint8Array(heard[1]).reduce((sum, byte) => sum + byte, 0);
    await channel.close();
    return `${heard[0]} ${heard[1].byteLength} ${sum}`;";

async fn page(browser: &Browser, body: &str) -> Value {
    // The driver waits for a promise.
    browser.script(&format!("return (async () => {{ {body} }})()")).await
}

#[tokio::test]
async fn an_agent_in_rust_and_one_in_a_browser_connect_talk_and_ask_whoever_offers() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "http.demo=true"]).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/demo/", gateway.addr)).await;
    let theirs = page(&browser, BEGIN).await.as_str().unwrap().to_owned();
    let client = agent(&format!("ws://{}/ws", gateway.addr)).await;
    client.on_request(twice);

    let connecting = client.connect_peer(&theirs, PeerOptions::default());
    let peer = soon("the connection", connecting).await.unwrap();
    let pair = peer.stats().await.pair.unwrap();
    assert!(pair.local != CandidateKind::Relay && pair.remote != CandidateKind::Relay, "{pair:?}");
    talk(&browser, &peer).await;
    // An end that one side wants is an orderly one to the other.
    peer.close().await;
    assert_eq!(page(&browser, "return await window.peer.closed").await, Value::Null);

    let mut incoming = client.accept_peers(AcceptOptions::new());
    let connect = format!("window.adopt(await window.client.connectPeer('{}'))", client.did());
    page(&browser, &connect).await;
    let peer = soon("the page to connect", incoming.recv()).await.unwrap();
    assert_eq!(peer.did(), theirs);
    talk(&browser, &peer).await;
    page(&browser, "await window.peer.close()").await;
    soon("an orderly end", peer.closed()).await.unwrap();

    assert_eq!(page(&browser, "return window.errors").await, serde_json::json!([]));
    client.close().await;
    browser.quit().await;
}

/// Channels and requests, opened and asked by both.
async fn talk(browser: &Browser, peer: &conexus_client::Peer) {
    echo(peer);
    let channel = open(peer, "from rust").await;
    comes_back(&channel, "grüß dich").await;
    comes_back(&channel, vec![7; 300_000]).await;
    comes_back(&channel, "").await;
    channel.close().await;
    assert_eq!(page(browser, SAY).await, "grüß dich 300000 2100000");
    asks(peer, 21).await;
    let answer = page(browser, "return (await window.peer.request({ n: 4 })).twice").await;
    assert_eq!(answer, 8);
}
