//! What a connection to a peer leaves behind: no sockets and no tasks. Alone in its process, to count them.

#![cfg(feature = "p2p")]
#![allow(clippy::unwrap_used, reason = "clippy takes only the #[test] functions for tests")]

use std::{fs, net::Ipv4Addr, sync::Arc, time::Duration};

use conexus_client::p2p::{
    transport::{
        Connection, ConnectionConfig, ConnectionEvent, MAX_EVENTS, PathState, RawChannelOptions,
        Transport,
    },
    webrtc::WebRtc,
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, Receiver},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(30);

type End = (Arc<dyn Connection>, Receiver<ConnectionEvent>);

async fn end() -> End {
    let (sender, events) = mpsc::channel(MAX_EVENTS);
    let transport = WebRtc::on([Ipv4Addr::LOCALHOST.into()]);
    (transport.connect(ConnectionConfig::default(), sender).await.unwrap(), events)
}

/// Passes candidates on until the connection stands.
async fn trickle(events: &mut Receiver<ConnectionEvent>, to: &dyn Connection) {
    let (mut is_connected, mut is_told) = (false, false);
    while !(is_connected && is_told) {
        match timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            ConnectionEvent::Candidate(candidate) => {
                is_told = candidate.candidate.is_empty();
                to.add_candidate(candidate).await.unwrap();
            }
            ConnectionEvent::State(state) => is_connected |= state == PathState::Connected,
            ConnectionEvent::Channel(_) => {}
        }
    }
}

async fn connected() -> (End, End) {
    let (mut from, mut to) = (end().await, end().await);
    let offer = from.0.offer(false).await.unwrap();
    let answer = to.0.answer(offer).await.unwrap();
    from.0.answered(answer).await.unwrap();
    tokio::join!(trickle(&mut from.1, &*to.0), trickle(&mut to.1, &*from.0));
    (from, to)
}

/// Open files, and tasks that have not ended.
fn kept() -> (usize, usize) {
    let files = fs::read_dir("/proc/self/fd").unwrap().count();
    (files, Handle::current().metrics().num_alive_tasks())
}

async fn is_kept(expected: (usize, usize)) {
    let settled = async {
        while kept() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = timeout(PATIENCE, settled).await;
    assert!(in_time.is_ok(), "files and tasks: {:?} instead of {expected:?}", kept());
}

#[tokio::test]
async fn nothing_is_left_of_a_connection_that_ended() {
    // What is made once for all.
    let (from, to) = connected().await;
    let one = kept();
    tokio::join!(from.0.close(), to.0.close());
    drop((from, to));
    is_kept((kept().0, 0)).await;
    let none = kept();
    assert!(none.0 < one.0, "a connection has sockets");

    for is_dropped in [false, true] {
        let mut ends = Vec::new();
        for _ in 0..5 {
            let (from, to) = connected().await;
            let options = RawChannelOptions {
                ordered: true,
                reliability: None,
                protocol: String::new(),
                negotiated: None,
            };
            let channel = from.0.open_channel("kept".to_owned(), options).await.unwrap();
            ends.push((from, to, channel));
        }
        // One that nobody answered.
        let alone = end().await;
        alone.0.offer(false).await.unwrap();
        assert!(kept().0 > none.0 + 10);
        if !is_dropped {
            alone.0.close().await;
            for (from, to, _) in &ends {
                from.0.close().await;
                to.0.close().await;
            }
            // Also while somebody still has them.
            let closed = async {
                while kept().0 != none.0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, closed).await.unwrap();
        }
        drop((ends, alone));
        is_kept(none).await;
    }
}
