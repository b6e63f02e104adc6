//! Connections that cost a place: many that never register, and one too many.

use std::{fs, sync::Arc, time::Duration};

use conexus_protocol::{Identity, Subprotocol};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_tungstenite::tungstenite::Error;

use crate::support::{
    agent::{Agent, Socket, dial},
    bystanders::Bystanders,
    gateway::TestGateway,
    http, soon, until,
};

/// How many files this process has open.
fn open_files() -> usize {
    fs::read_dir("/dev/fd").unwrap().count()
}

/// As many connections as the limit on open files allows with both ends in this process.
fn crowd() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    usize::try_from(files.saturating_sub(200) / 2).unwrap_or(usize::MAX).min(3000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_never_registers_is_closed_with_4002_and_leaves_nothing_behind() {
    let gateway = Arc::new(
        TestGateway::start_with(|s| s.limits.register_timeout = Duration::from_secs(4)).await,
    );
    let mut bystanders = Bystanders::register(&gateway).await;
    bystanders.exchange().await;
    let before = open_files();

    let mut idlers = JoinSet::new();
    // No more at once than the listener's backlog holds.
    let at_once = Arc::new(Semaphore::new(200));
    for n in 0..crowd() {
        let (gateway, at_once) = (Arc::clone(&gateway), Arc::clone(&at_once));
        let subprotocol = if n.is_multiple_of(2) { Subprotocol::V1 } else { Subprotocol::V1_1 };
        idlers.spawn(async move {
            let turn = at_once.acquire().await.unwrap();
            let mut idler = Agent::connect_as(&gateway, subprotocol, Identity::generate()).await;
            drop(turn);
            assert_eq!(idler.close().await.0, 4002);
        });
    }
    while !idlers.is_empty() {
        bystanders.exchange().await;
        while let Some(ended) = idlers.try_join_next() {
            ended.unwrap();
        }
    }
    until("all their sockets to be closed", || open_files() <= before).await;
    bystanders.exchange().await;
    gateway.has_agents(2).await;
}

/// Opens a WebSocket as soon as there is a place.
async fn dial_until_there_is_room(gateway: &TestGateway) -> Socket {
    soon("a place", async {
        loop {
            if let Ok((socket, _)) = dial(gateway.addr, &["ioap.v1"]).await {
                return socket;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

#[tokio::test]
async fn one_connection_too_many_gets_503_until_another_leaves() {
    let gateway = TestGateway::start_with(|s| s.limits.connections = 4).await;
    let mut bystanders = Bystanders::register(&gateway).await;
    // A place is a connection's, not an agent's.
    let unregistered = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let mut registered = Agent::v1(&gateway).await;
    for _ in 0..3 {
        let Err(error) = dial(gateway.addr, &["ioap.v1"]).await else { panic!("upgraded") };
        let Error::Http(response) = *error else { panic!("{error}") };
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        bystanders.exchange().await;
    }

    drop(unregistered);
    let third = dial_until_there_is_room(&gateway).await;
    registered.socket.close(None).await.unwrap();
    drop(registered);
    let fourth = dial_until_there_is_room(&gateway).await;
    assert!(dial(gateway.addr, &["ioap.v1"]).await.is_err(), "full again");
    bystanders.exchange().await;

    // A request takes a place for as long as it takes.
    drop((third, fourth));
    drop(dial_until_there_is_room(&gateway).await);
    for _ in 0..10 {
        soon("an answer", async { while http::get(gateway.addr, "/ready", &[]).await.0 != 200 {} })
            .await;
    }
    bystanders.exchange().await;
}

#[tokio::test]
async fn a_request_too_many_gets_its_503_whole() {
    let gateway = TestGateway::start_with(|s| s.limits.connections = 2).await;
    let _bystanders = Bystanders::register(&gateway).await;
    for _ in 0..20 {
        // Up to the end of the stream: a reset would be an error.
        let (status, body) = http::get(gateway.addr, "/agents", &[]).await;
        assert_eq!((status, body["error"].as_str()), (503, Some("too many connections")));
    }
}
