//! Who is part of the cluster: a process that stood still comes back as somebody new, and one that stops
//! leaves nothing behind.

use std::collections::BTreeSet;

use conexus_protocol::Identity;

use super::{
    nodes::{Cluster, Setup},
    talking::says,
};
use crate::support::agent::Agent;

fn dids<'a>(agents: impl IntoIterator<Item = &'a Agent>) -> BTreeSet<String> {
    agents.into_iter().map(Agent::did).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_gives_up_whoever_went_elsewhere_meanwhile() {
    let cluster = Cluster::of(2).await;
    let [frozen, other] = &cluster.nodes[..] else { unreachable!() };
    let (moves, stays) = (Identity::generate(), Identity::generate());
    let mut left_behind = frozen.agent_of(&moves).await;
    let mut staying = frozen.agent_of(&stays).await;
    let mut here = other.agent().await;
    other.lists(&dids([&left_behind, &staying, &here])).await;

    frozen.process().signal("STOP").await;
    // Its lease ends, and the other one strikes it off.
    other.lists(&dids([&here])).await;
    let mut moved = other.agent_of(&moves).await;
    says(&mut here, &mut moved).await;

    frozen.process().signal("CONT").await;
    assert_eq!(left_behind.close().await.0, 4003);
    cluster.lists([&moved, &staying, &here]).await;
    for _ in 0..3 {
        says(&mut here, &mut moved).await;
        says(&mut moved, &mut staying).await;
        says(&mut staying, &mut here).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_is_off_the_roster_at_once_and_leaves_no_agents_behind() {
    let setup = Setup::default().with("cluster.prefix=here");
    let mut cluster = Cluster::with(3, setup).await;
    let mut agents = Vec::new();
    for node in &cluster.nodes {
        for _ in 0..5 {
            agents.push(node.agent().await);
        }
    }
    cluster.lists(&agents).await;
    let redis = |parts: &[&str]| cluster.redis.must(parts);
    assert_eq!(redis(&["ZCARD", "{here}:roster"]).trim_end(), ":3");

    let mut stopping = cluster.nodes.pop().unwrap();
    stopping.stop().await;
    let redis = |parts: &[&str]| cluster.redis.must(parts);
    assert_eq!(redis(&["ZCARD", "{here}:roster"]).trim_end(), ":2");
    assert_eq!(redis(&["ZCARD", "{here}:unburied"]).trim_end(), ":0", "nobody is to bury it");
    let mut down = 0;
    for bucket in 0..256 {
        let agents = redis(&["HLEN", &format!("{{here:{bucket}}}:dir")]);
        down += agents.trim_start_matches(':').trim_end().parse::<usize>().unwrap();
    }
    assert_eq!(down, 10, "those of the other two");
    cluster.lists(&agents[..10]).await;
}
