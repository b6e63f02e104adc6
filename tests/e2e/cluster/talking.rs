//! Agents on different nodes do not notice that they are.

use std::collections::{BTreeMap, BTreeSet};

use conexus_protocol::{Envelope, Identity, MessageType, Rules};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::{
    LEASE,
    nodes::{Cluster, Setup},
};
use crate::{
    support::{agent::Agent, soon},
    watching::{absent, offline, online, seen, watched},
};

/// A message arrives as it was sent.
pub(super) async fn says(from: &mut Agent, to: &mut Agent) {
    let (_, text) = from.send_offer(&to.did(), "v=0").await;
    assert_eq!(to.text().await, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pairs_talk_both_ways_and_every_node_lists_everybody() {
    let cluster = Cluster::of(3).await;
    let mut agents = Vec::new();
    for node in &cluster.nodes {
        for _ in 0..3 {
            agents.push(node.agent().await);
        }
    }
    cluster.lists(&agents).await;
    for from in 0..agents.len() {
        for to in (0..agents.len()).filter(|to| *to != from) {
            let [from, to] = agents.get_disjoint_mut([from, to]).unwrap();
            says(from, to).await;
        }
    }

    // One list: the same pages everywhere, and a cursor of one node's goes on at another.
    let mut cursor = String::new();
    let mut seen = BTreeSet::new();
    for turn in 0.. {
        let query = format!("limit=2{cursor}");
        let page = cluster.nodes[turn % 3].page(&query).await;
        for node in &cluster.nodes {
            let same = node.page(&query).await;
            let dids = |page: &serde_json::Value| -> Vec<_> {
                let agents = page["agents"].as_array().unwrap().iter();
                agents.map(|agent| agent["did"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(dids(&same), dids(&page));
            assert_eq!(same["next_cursor"], page["next_cursor"]);
        }
        for agent in page["agents"].as_array().unwrap() {
            assert!(seen.insert(agent["did"].as_str().unwrap().to_owned()));
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, agents.iter().map(Agent::did).collect());
}

/// How many messages each agent sends to each other one.
const MESSAGES: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_pair_holds_under_load_and_every_node_accounts_for_its_own() {
    // Longer, since all that a busy machine has is taken here.
    let setup = Setup { lease: 4 * LEASE, ..Setup::default() }
        .with("limits.outbox_messages=8192")
        .with("limits.outbox_bytes=64MiB");
    let cluster = Cluster::with(3, setup).await;
    let before = counted(&cluster).await;
    let mut agents = Vec::new();
    for node in cluster.nodes.iter().cycle().take(12) {
        agents.push(node.agent().await);
    }
    let dids: Vec<_> = agents.iter().map(Agent::did).collect();
    let mut talks = JoinSet::new();
    for agent in agents {
        talks.spawn(talk(agent, dids.clone()));
    }
    let agents = soon("everybody to have everything", talks.join_all()).await;

    let all = (dids.len() * (dids.len() - 1) * MESSAGES) as u64;
    let added = |now: [u64; 4]| [0, 1, 2, 3].map(|n| now[n] - before[n]);
    let mut now = counted(&cluster).await;
    // A confirmation is on its way back when its message is read already.
    soon("the accounts to balance", async {
        while added(now) != [all, all, 0, 0] {
            now = counted(&cluster).await;
        }
    })
    .await;
    drop(agents);
}

async fn counted(cluster: &Cluster) -> [u64; 4] {
    let mut sum = [0; 4];
    for node in &cluster.nodes {
        let messages = node.messages().await;
        sum.iter_mut().zip(messages).for_each(|(sum, count)| *sum += count);
    }
    sum
}

/// Sends to all others as fast as that goes, and reads what they send, which has to come in order.
async fn talk(agent: Agent, dids: Vec<String>) -> Agent {
    let me = agent.did();
    let Agent { identity, socket, subprotocol, nonce, url } = agent;
    let (mut sending, mut receiving) = socket.split();
    let others: Vec<_> = dids.iter().filter(|did| **did != me).cloned().collect();
    let expected = others.len() * MESSAGES;
    let send = async {
        for number in 0..MESSAGES {
            for to in &others {
                let text = format!(
                    r#"{{"from":"{me}","id":"{number}","payload":{{"sdp":"v=0"}},"signature":"","to":"{to}","type":"OFFER"}}"#
                );
                sending.send(Message::text(text)).await.unwrap();
            }
        }
    };
    let receive = async {
        let mut next: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..expected {
            let text = loop {
                match receiving.next().await.unwrap().unwrap() {
                    Message::Text(text) => break text,
                    Message::Ping(_) | Message::Pong(_) => {}
                    other => panic!("{other:?}"),
                }
            };
            let envelope = Envelope::parse(&text, Rules::V1_1).unwrap();
            assert_eq!(envelope.kind, MessageType::Offer, "{text}");
            let expected = next.entry(envelope.from.to_string()).or_default();
            assert_eq!(*envelope.id, expected.to_string(), "{text}");
            *expected += 1;
        }
    };
    tokio::join!(send, receive);
    let socket = sending.reunite(receiving).unwrap();
    Agent { identity, socket, subprotocol, nonce, url }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nowhere_is_unknown_and_who_watches_is_told_of_all_nodes() {
    let cluster = Cluster::of(2).await;
    let mut watcher = cluster.nodes[0].agent().await;
    let identity = Identity::generate();
    let (id, _) = watcher.send_offer(identity.did(), "v=0").await;
    let refusal = watcher.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    assert_eq!(refusal.reason.as_deref(), Some("unknown_agent"));

    let did = identity.did();
    assert_eq!(watched(&mut watcher, &[did]).await, [absent(did)]);
    let mut agent = cluster.nodes[1].agent_of(&identity).await;
    assert_eq!(seen(&mut watcher).await, online(did));
    // Where it merely moves nothing is told: what comes next is something else.
    for node in [0, 1] {
        let newer = cluster.nodes[node].agent_of(&identity).await;
        let mut older = std::mem::replace(&mut agent, newer);
        assert_eq!(older.close().await.0, 4003);
        says(&mut agent, &mut watcher).await;
    }
    agent.socket.close(None).await.unwrap();
    assert_eq!(seen(&mut watcher).await, offline(did, "closed"));
}
