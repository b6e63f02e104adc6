//! Agents that go from one node to another: when theirs is drained, and when mail waits for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use conexus_client::{
    Client, ClientError, ConnectionState, Handle, Identity, Message, protocol::Offer,
};
use tokio::{task::JoinSet, time::sleep};

use super::nodes::{Cluster, Setup};
use crate::{
    drain::{balancer::Balancer, ledger::Ledger},
    support::{soon, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_agent_is_first_and_in_order_wherever_it_comes_back() {
    let cluster = Cluster::with(3, Setup::default().with("mailbox.hold=60s")).await;
    let me = Identity::generate();
    let mut senders = Vec::new();
    for node in &cluster.nodes {
        senders.push(node.agent().await);
    }
    // It was there once, and moves on each time.
    for home in [0, 1, 2, 1] {
        let mut texts = Vec::new();
        for sender in &mut senders {
            let mut held = Vec::new();
            for _ in 0..20 {
                held.push(sender.send_offer(me.did(), "v=0").await.1);
            }
            // A PONG says that all of them were judged.
            sender.ping().await;
            texts.push(held);
        }
        let waits = async {
            loop {
                let mut held = 0;
                for node in &cluster.nodes {
                    held += node.messages().await[3];
                }
                if held == 60 {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        soon("all to be held", waits).await;
        let mut agent = cluster.nodes[home].agent_of(&me).await;
        for (sender, texts) in senders.iter_mut().zip(&mut texts) {
            texts.push(sender.send_offer(me.did(), "v=0").await.1);
        }
        for _ in 0..63 {
            let text = agent.text().await;
            let from = texts.iter_mut().find(|texts| texts.first() == Some(&text));
            from.expect("the next one of its sender").remove(0);
        }
        agent.socket.close(None).await.unwrap();
        drop(agent);
        cluster.lists(&senders).await;
    }
}

/// What agents of the SDK saw.
struct Seen {
    ledger: Ledger,
    /// How many messages of those that stay where they are came back.
    returned: AtomicU64,
}

/// An agent of the SDK whose messages are in the ledger.
async fn agent(url: String, seen: &Arc<Seen>, stays: bool) -> Client {
    let mut client = Client::builder(url, Identity::generate()).build().unwrap();
    let [delivered, refused, registered] = [(); 3].map(|()| Arc::clone(seen));
    client.on_message(move |message: &Message| delivered.ledger.delivered(&message.id));
    client.on_error(move |error| match error {
        ClientError::Refused(refusal) => {
            refused.ledger.refused(refusal.correlation_id.as_deref(), refusal.reason);
            refused.returned.fetch_add(stays.into(), Relaxed);
        }
        ClientError::ConnectionLost(loss) => refused.ledger.closed(loss.close()),
        ClientError::Attempt { .. } => refused.ledger.failed_attempt(),
        other => refused.ledger.fault(format!("{other:?}")),
    });
    client.on_state(move |state| {
        if state == ConnectionState::Connected {
            registered.ledger.registered();
        }
    });
    soon("a client to connect", client.connect()).await.unwrap();
    client
}

/// Sends to others, one after the other, as long as it is let; not while its connection is away.
async fn talk(client: Handle, peers: Arc<[String]>, seen: Arc<Seen>, first: usize) {
    let states = client.states();
    for turn in first.. {
        sleep(Duration::from_millis(20)).await;
        if *states.borrow() != ConnectionState::Connected {
            continue;
        }
        seen.ledger.send();
        // What does not get out is about to be noticed.
        let _ = client.send(peers[turn % peers.len()].clone(), Offer { sdp: "v=0".into() }).await;
    }
}

/// How many agents are on the node that is drained, and how many on another one.
const MOVE: usize = 20;
const STAY: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_hands_its_agents_to_the_others_and_nothing_is_lost() {
    let (moving, staying) = (Balancer::listen().await, Balancer::listen().await);
    let urls = [moving.url(), staying.url()];
    let setup = Setup { audience: Some(moving.url()), ..Setup::default() }
        .with(format!("server.public_urls={urls:?}"))
        .with("server.drain_delay=300ms")
        .with("server.drain_spread=500ms")
        .with("server.drain_timeout=10s")
        .with("server.reconnect_spread=500ms")
        .with("mailbox.hold=20s")
        .with("limits.outbox_messages=4096");
    let mut cluster = Cluster::with(3, setup).await;
    let addresses = |order: [usize; 3]| order.map(|n| cluster.nodes[n].process().addr).to_vec();
    // Whoever comes is sent to the first node that is ready.
    moving.serve(addresses([0, 1, 2]));
    staying.serve(addresses([2, 1, 0]));
    let seen = Arc::new(Seen { ledger: Ledger::default(), returned: AtomicU64::new(0) });
    let mut clients = Vec::new();
    for _ in 0..MOVE {
        clients.push(agent(moving.url(), &seen, false).await);
    }
    for _ in 0..STAY {
        clients.push(agent(staying.url(), &seen, true).await);
    }
    let peers: Arc<[String]> = clients.iter().map(|client| client.did().to_owned()).collect();
    let mut talks = JoinSet::new();
    for (first, client) in clients.iter().enumerate() {
        talks.spawn(talk(client.handle(), Arc::clone(&peers), Arc::clone(&seen), first));
    }
    let much = u64::try_from(3 * peers.len()).unwrap();
    until("some traffic", || seen.ledger.delivered_so_far() > much).await;

    let drained = cluster.nodes[0].stop().await;
    for client in &clients {
        let mut states = client.states();
        let back = states.wait_for(|state| *state == ConnectionState::Connected);
        soon("an agent to be back", back).await.unwrap();
    }
    let everybody = peers.iter().cloned().collect();
    for node in &cluster.nodes[1..] {
        node.lists(&everybody).await;
    }
    let now = seen.ledger.delivered_so_far();
    until("traffic to go on", || seen.ledger.delivered_so_far() > now + much).await;
    talks.shutdown().await;

    // Every message that a node took has come to its end, and whatever counts as delivered has arrived.
    let counted = soon("the accounts to balance", async {
        loop {
            let mut sum = drained;
            for node in &cluster.nodes[1..] {
                let messages = node.messages().await;
                sum.iter_mut().zip(messages).for_each(|(sum, count)| *sum += count);
            }
            let [received, delivered, refused, held] = sum;
            let arrived = seen.ledger.delivered_so_far();
            if received == delivered + refused && held == 0 && delivered == arrived {
                break sum;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let [received, delivered, refused, _] = counted.await;
    let summary = seen.ledger.summary();
    println!(
        "sent {}, received {received}, delivered {delivered}, refused {refused} {:?}",
        summary.sent, summary.refused_by_reason
    );
    assert_eq!(summary.faults, [""; 0]);
    assert!(received <= summary.sent, "nothing comes from nowhere");
    assert_eq!(summary.hints.len(), MOVE, "each was told to go, once");
    let returned = seen.returned.load(Relaxed);
    assert_eq!(returned, 0, "those that stay reach everybody all the time");
}
