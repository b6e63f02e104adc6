//! Lists over several gateways in this process.

use std::collections::BTreeSet;

use conexus_protocol::Identity;
use tokio::sync::mpsc;

use super::*;
use crate::{
    cluster::{
        backplane::{Backplane as _, NodeInfo},
        frame::VERSION,
        trial::{LEASE, Node, Trial},
    },
    session::handle::tests::session_of,
};

/// An agent that has registered on a node, with a name.
async fn comes(node: &Node, identity: &Identity, name: &str) -> AgentKey {
    let session = session_of(identity);
    let mut facts = Agent::clone(&session.facts());
    facts.metadata.name = Some(name.to_owned());
    session.set_facts(Arc::new(facts));
    node.core.router.presence.claim(&session).await;
    identity.key()
}

async fn cluster() -> [Node; 3] {
    Trial::new().nodes().await
}

fn keys(list: &List) -> Vec<AgentKey> {
    list.agents.iter().map(|listed| AgentKey::from_bytes(listed.agent.key)).collect()
}

#[tokio::test(start_paused = true)]
async fn pages_of_any_node_cover_all_agents_once_in_the_order_of_their_keys() {
    let nodes = cluster().await;
    let mut all = BTreeSet::new();
    for number in 0..500 {
        // Most are on one node.
        let node = &nodes[if number % 5 == 0 { number % 3 } else { 0 }];
        all.insert(comes(node, &Identity::generate(), "n").await);
    }
    let all: Vec<_> = all.into_iter().collect();
    for limit in [1000, 500, 64] {
        let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let node = &nodes[pages % 3];
            let page = list(&node.core, after, limit, &AgentFilter::default()).await;
            assert_eq!((page.total, &page.missing), (500, &Vec::new()));
            listed.extend(keys(&page));
            pages += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(listed, all);
        assert_eq!(pages, 500_usize.div_ceil(limit));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_with_two_nodes_is_shown_as_the_newer_registration_has_it() {
    let nodes = cluster().await;
    let moving = Identity::generate();
    for (node, (name, epoch)) in nodes.iter().zip([("old", 1), ("new", 3), ("middle", 2)]) {
        let key = comes(node, &moving, name).await;
        let presence = &node.core.router.presence;
        let session = presence.holder(key).unwrap();
        assert!(presence.set_epoch(key, session.id, Epoch(epoch)));
    }
    for node in &nodes {
        let page = list(&node.core, None, 10, &AgentFilter::default()).await;
        let names: Vec<_> =
            page.agents.iter().map(|listed| listed.agent.metadata.name.as_deref()).collect();
        assert_eq!((names, page.total, page.next), (vec![Some("new")], 1, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_search_goes_over_all_nodes() {
    let nodes = cluster().await;
    let mut wanted = BTreeSet::new();
    for number in 0..60 {
        let name = if number % 4 == 0 { "wanted" } else { "other" };
        let key = comes(&nodes[number % 3], &Identity::generate(), name).await;
        if name == "wanted" {
            wanted.insert(key);
        }
    }
    let filter = AgentFilter { name: Some("wanted".into()), ..AgentFilter::default() };
    let page = list(&nodes[1].core, None, 100, &filter).await;
    assert_eq!(keys(&page), wanted.iter().copied().collect::<Vec<_>>());
    assert_eq!(page.total, 15);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_named_and_missing_alone() {
    let [a, b, c] = cluster().await;
    for node in [&a, &b, &c] {
        for _ in 0..10 {
            comes(node, &Identity::generate(), "n").await;
        }
    }
    c.kill();
    let began = Instant::now();
    let page = list(&a.core, None, 100, &AgentFilter::default()).await;
    assert!(began.elapsed() <= a.cluster.settings.takeover_timeout);
    assert_eq!((page.total, page.agents.len(), page.missing), (20, 20, vec!["node-2".to_owned()]));
    assert_eq!(a.cluster.tally.questions.partial_lists.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_at_once_is_bounded_and_a_page_is_whole_all_the_same() {
    let nodes = cluster().await;
    for number in 0..300 {
        comes(&nodes[number % 3], &Identity::generate(), &"x".repeat(8 * 1024)).await;
    }
    let page = list(&nodes[0].core, None, 300, &AgentFilter::default()).await;
    assert_eq!((page.agents.len(), page.total, page.next), (300, 300, None));
    let answer = answer(&nodes[1].core, None, usize::MAX, Filter::default()).await;
    let Answer::Page { agents, total: 100, more: true } = &answer else { panic!() };
    assert!(agents.len() > 20);
    assert!(postcard::to_allocvec(&answer).unwrap().len() < ANSWERED_BYTES + 16 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_speaks_in_another_way_is_missing_too() {
    let trial = Trial::new();
    let [a, b] = trial.nodes().await;
    for node in [&a, &b] {
        comes(node, &Identity::generate(), "n").await;
    }
    let member = MemberId(7);
    let link = trial.engine.connect(member, mpsc::channel(8).0).await.unwrap();
    let info = NodeInfo {
        node_id: "newer".into(),
        did: String::new(),
        version: String::new(),
        frames: VERSION + 1,
        started_ms: 0,
        agents: 1,
        draining: false,
        lease_ms: 5000,
    };
    link.renew(member, &info, 10 * LEASE).await.unwrap();
    tokio::time::sleep(LEASE).await;
    let page = list(&a.core, None, 10, &AgentFilter::default()).await;
    assert_eq!((page.total, page.missing), (2, vec!["newer".to_owned()]));
}
