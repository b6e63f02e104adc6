//! Clients that send without end and read nothing: the gateway stops listening to them, ends them
//! after a while, and nobody else notices.

use std::time::Duration;

use conexus_protocol::{Identity, Ping, Subprotocol};
use tokio::{io::AsyncWriteExt as _, net::TcpSocket, task::JoinHandle};

use crate::support::{
    agent::Agent,
    bystanders::Bystanders,
    frames::{FIN, PING, TEXT, frame},
    gateway::TestGateway,
    soon,
};

/// More than the kernel's buffers hold in both directions: who takes this much without having its
/// answers read keeps them somewhere.
const TOO_MUCH: usize = 64 << 20;

/// A connection that takes little before it has to read.
async fn connect(gateway: &TestGateway, subprotocol: Subprotocol) -> Agent {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    Agent::connect_over(gateway, subprotocol, Identity::generate(), socket).await
}

/// Sends the same frame again and again until the connection ends: how many bytes that took.
fn flood(mut agent: Agent, frame: &[u8]) -> JoinHandle<usize> {
    let many = frame.repeat(32 * 1024 / frame.len() + 1);
    tokio::spawn(async move {
        let mut sent = 0;
        while sent < TOO_MUCH && agent.socket.get_mut().write_all(&many).await.is_ok() {
            sent += many.len();
        }
        sent
    })
}

/// The others go on until every flood has ended, none of which may have been taken whole.
async fn outlive(bystanders: &mut Bystanders, floods: Vec<JoinHandle<usize>>) {
    for flood in floods {
        soon("a flood to end", async {
            while !flood.is_finished() {
                bystanders.exchange().await;
            }
        })
        .await;
        let sent = flood.await.unwrap();
        assert!(sent < TOO_MUCH, "{sent} bytes were taken");
    }
}

/// Over what, and the frame that an agent floods with.
type Flood = (Subprotocol, fn(&Agent) -> Vec<u8>);

/// Floods registered sessions, all at once, until the gateway ends them.
async fn are_ended_and_harm_nobody(floods: &[Flood]) {
    let gateway = TestGateway::start_with(|s| {
        s.limits.write_timeout = Duration::from_millis(500);
        s.limits.bad_messages_per_minute = u32::MAX;
    })
    .await;
    let mut bystanders = Bystanders::register(&gateway).await;
    bystanders.exchange().await;
    let mut flooding = Vec::new();
    for (subprotocol, frame) in floods {
        let mut agent = connect(&gateway, *subprotocol).await;
        agent.register().await;
        let frame = frame(&agent);
        flooding.push(flood(agent, &frame));
    }
    outlive(&mut bystanders, flooding).await;
    gateway.has_agents(2).await;
    bystanders.exchange().await;
    gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_messages_whose_answers_nobody_reads_is_ended() {
    are_ended_and_harm_nobody(&[
        (Subprotocol::V1, |agent| {
            let (_, ping) = agent.sign("anyone", Ping { sequence: None });
            frame(FIN | TEXT, ping.as_bytes())
        }),
        (Subprotocol::V1_1, |_| frame(FIN | TEXT, b"nonsense")),
        (Subprotocol::V1, |agent| {
            let (_, offer) = agent.offer(Identity::generate().did(), "x");
            frame(FIN | TEXT, offer.as_bytes())
        }),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_websocket_pings_whose_pongs_nobody_reads_is_ended() {
    let ping = |_: &Agent| frame(FIN | PING, &[b'p'; 125]);
    are_ended_and_harm_nobody(&[(Subprotocol::V1, ping), (Subprotocol::V1_1, ping)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_before_registering_fills_no_memory() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.register_timeout = Duration::from_secs(3);
    })
    .await;
    let mut bystanders = Bystanders::register(&gateway).await;
    let agent = connect(&gateway, Subprotocol::V1_1).await;
    let flood = flood(agent, &frame(FIN | PING, &[b'p'; 125]));
    outlive(&mut bystanders, vec![flood]).await;
    bystanders.exchange().await;
}
