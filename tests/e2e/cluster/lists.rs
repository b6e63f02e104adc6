//! The list of agents: the same on every node, a page at a time.

use std::collections::BTreeSet;

use conexus_protocol::{Identity, Metadata};
use futures_util::future::join_all;

use super::nodes::Cluster;
use crate::support::{fault_proxy::Network, soon};

const AGENTS: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn one_cursor_goes_through_the_agents_of_all_nodes_whichever_is_asked() {
    let cluster = Cluster::of(3).await;
    let mut agents = Vec::new();
    while agents.len() < AGENTS {
        let coming = (0..50).map(|number| cluster.nodes[number % 3].agent());
        agents.extend(join_all(coming).await);
    }
    let dids: BTreeSet<_> = agents.iter().map(|agent| agent.did()).collect();
    for node in &cluster.nodes {
        node.lists(&dids).await;
    }
    let mut orders = Vec::new();
    for first in 0..3 {
        let (mut listed, mut query, mut asked) = (Vec::new(), "limit=70".to_owned(), first);
        loop {
            let page = cluster.nodes[asked % 3].page(&query).await;
            assert_eq!((&page["count"], page.get("partial")), (&AGENTS.into(), None));
            let shown = page["agents"].as_array().unwrap();
            listed.extend(shown.iter().map(|agent| agent["did"].as_str().unwrap().to_owned()));
            asked += 1;
            match page["next_cursor"].as_str() {
                Some(cursor) => query = format!("limit=70&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(listed.len(), AGENTS);
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), dids);
        orders.push(listed);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "all in the same order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_agents_of_all_nodes_and_a_node_that_is_apart_says_so() {
    let cluster = Cluster::of(3).await;
    let mut agents = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        for capability in ["sing", "dance"] {
            let mut agent = node.connect(&Identity::generate()).await;
            let metadata = Metadata {
                name: Some(format!("{capability}-{number}")),
                capabilities: vec![capability.to_owned()],
                ..Metadata::default()
            };
            agent.register_with(agent.with_metadata(metadata)).await;
            agents.push(agent);
        }
    }
    cluster.lists(&agents).await;
    for node in &cluster.nodes {
        let page = node.page("capability=sing").await;
        assert_eq!((&page["count"], &page["next_cursor"]), (&3.into(), &().into()));
        let names = page["agents"].as_array().unwrap();
        let names = names.iter().map(|agent| agent["metadata"]["name"].as_str().unwrap());
        assert_eq!(names.collect::<BTreeSet<_>>(), ["sing-0", "sing-1", "sing-2"].into());
        let page = node.page("name=dance-1").await;
        assert_eq!(
            (&page["count"], &page["agents"][0]["did"]),
            (&1.into(), &agents[3].did().into())
        );
    }
    cluster.nodes[0].network.set(Network::Cut);
    let apart = async {
        loop {
            let page = cluster.nodes[0].page("").await;
            if page["partial"] == true {
                return page;
            }
        }
    };
    let page = soon("a partial list", apart).await;
    assert_eq!(page["count"], 2, "its own are listed all the same");
    cluster.nodes[0].network.set(Network::Open);
    cluster.lists(&agents).await;
}
