//! What peers cost by a gateway, beside the bare WebRTC stack signaled in this process, as ratios of one run.
//!
//! `tests/bench peers` runs it. Both sides use the same crate `webrtc` on loopback and take turns; the baseline is that
//! of `client/benches/p2p`. Whatever else the machine does meanwhile is in the figures.
//!
//! - **open**: from `connect_peer` until the peer is connected, its control channel open, two agents being registered;
//!   against the endpoints' making, describing and opening a channel: with the client's own settings of the crate, and
//!   with the crate's (`defaults`).
//! - **request**: an EXEC_REQUEST and its result; against the same two texts on a bare channel, written, signed, verified
//!   and read by its two ends (`signed`), and against 100 bytes and back (`echo`).

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

#[expect(dead_code, reason = "throughput is measured there alone")]
#[path = "../../../client/benches/p2p/raw.rs"]
mod raw;
mod signed;
#[expect(dead_code, reason = "channels are measured there alone")]
#[path = "../../../client/benches/p2p/ours.rs"]
mod transport;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_client::{
    AcceptOptions, Client, Identity, IncomingPeers, PeerOptions, RequestOptions, WebRtc,
};
use conexus_gateway::{config::Settings, gateway::Gateway};
use serde_json::json;

/// Connections of each side.
const CONNECTS: usize = 30;
/// Requests of each side, in turns of [`TURN`].
const REQUESTS: usize = 3000;
const TURN: usize = 100;
/// What each side does first, uncounted.
const WARM_UP: usize = 3;
/// What is good enough.
const ALLOWED: f64 = 1.3;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let gateway = gateway().await;
    let (a, b) = (agent(&gateway).await, agent(&gateway).await);
    let mut incoming = b.accept_peers(AcceptOptions::new());

    let (mut ours, mut bare, mut defaults) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + CONNECTS {
        let took = connect(&a, &b, &mut incoming).await;
        let (took_bare, took_defaults) = (connect_bare().await, connect_by_defaults().await);
        if round >= WARM_UP {
            ours.push(took);
            bare.push(took_bare);
            defaults.push(took_defaults);
        }
    }
    report("open", &mut ours, &mut bare);
    report("defaults", &mut ours, &mut defaults);

    b.on_request(|request| async move { Ok(json!(request.args().map_or(0, |args| args.len()))) });
    let peer = a.connect_peer(b.did(), PeerOptions::default()).await.unwrap();
    let (pair, words) = (raw::Pair::connect().await, raw::Pair::connect().await);
    let (asker, answerer) = signed::ends(&words);
    let echoing = tokio::spawn(raw::echo(pair.to.clone()));
    let answering = tokio::spawn(answerer.answer());
    let (mut ours, mut signed, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..WARM_UP + REQUESTS / TURN {
        let is_counted = turn >= WARM_UP;
        for _ in 0..TURN {
            let began = Instant::now();
            peer.request(json!({ "n": 1 }), RequestOptions::new()).await.unwrap();
            ours.extend(is_counted.then(|| began.elapsed()));
        }
        for _ in 0..TURN {
            let began = Instant::now();
            asker.ask(1).await;
            signed.extend(is_counted.then(|| began.elapsed()));
        }
        for _ in 0..TURN {
            let began = Instant::now();
            raw::ask(&pair.from, 100).await;
            bare.extend(is_counted.then(|| began.elapsed()));
        }
    }
    report("signed", &mut ours, &mut signed);
    report("echo", &mut ours, &mut bare);
    echoing.abort();
    answering.abort();
    pair.close().await;
    words.close().await;
    peer.close().await;
}

/// In this process, until it ends; its URL.
async fn gateway() -> String {
    let mut settings = Settings::default();
    settings.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
    settings.admin.enabled = false;
    let gateway = Gateway::bind(Arc::new(settings), Identity::generate()).await.unwrap();
    let url = gateway.url();
    tokio::spawn(gateway.run(std::future::pending::<()>()));
    url
}

/// On the addresses that the baseline uses.
async fn agent(url: &str) -> Client {
    let transport = Arc::new(WebRtc::on([Ipv4Addr::LOCALHOST.into()]));
    Client::builder(url, Identity::generate()).transport(transport).connect().await.unwrap()
}

async fn connect(a: &Client, b: &Client, incoming: &mut IncomingPeers) -> Duration {
    let began = Instant::now();
    let there = a.connect_peer(b.did(), PeerOptions::default()).await.unwrap();
    let took = began.elapsed();
    let back = incoming.recv().await.unwrap();
    there.close().await;
    back.closed().await.unwrap();
    took
}

async fn connect_bare() -> Duration {
    let began = Instant::now();
    let (connections, _channels) = transport::open().await;
    let took = began.elapsed();
    transport::close(connections).await;
    took
}

async fn connect_by_defaults() -> Duration {
    let began = Instant::now();
    let pair = raw::Pair::connect().await;
    let took = began.elapsed();
    pair.close().await;
    took
}

/// Medians and their ratio.
fn report(what: &str, ours: &mut [Duration], bare: &mut [Duration]) {
    let millis = |times: &mut [Duration]| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let (ours, bare) = (millis(ours), millis(bare));
    let ratio = ours / bare;
    let verdict = if ratio <= ALLOWED { "fine" } else { "too much" };
    println!(
        "{what:8} p50 {ours:8.3} ms, bare {bare:8.3} ms: {ratio:.2} x, of {ALLOWED} at most: {verdict}"
    );
}
