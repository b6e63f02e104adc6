//! Who is told that an agent comes or goes, wherever it and its watcher are.

use std::time::{Duration, Instant};

use conexus_protocol::{Identity, Unregister};

use super::{LEASE, nodes::Cluster};
use crate::{
    support::{agent::Agent, fault_proxy::Network},
    watching::{absent, offline, online, seen, watched},
};

/// What a busy machine may take longer than the rules have it.
const SLACK: Duration = Duration::from_secs(4);

/// Whoever was told everything is told nothing but this.
async fn is_told_nothing(watcher: &mut Agent) {
    // A PONG comes behind what waits for the agent.
    watcher.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_an_agent_come_and_go_on_other_nodes_and_not_that_it_moves() {
    let mut cluster = Cluster::of(3).await;
    let mut watcher = cluster.nodes[0].agent().await;
    let me = Identity::generate();
    let did = me.did().to_owned();
    assert_eq!(watched(&mut watcher, &[&did]).await, [absent(&did)]);

    let mut on_b = cluster.nodes[1].agent_of(&me).await;
    assert_eq!(seen(&mut watcher).await, online(&did));
    let mut on_c = cluster.nodes[2].agent_of(&me).await;
    assert_eq!(on_b.close().await.0, 4003);
    let mut on_a = cluster.nodes[0].agent_of(&me).await;
    assert_eq!(on_c.close().await.0, 4003);
    let mut again = cluster.nodes[1].agent_of(&me).await;
    assert_eq!(on_a.close().await.0, 4003);
    cluster.lists([&watcher, &again]).await;
    is_told_nothing(&mut watcher).await;

    let mut late = cluster.nodes[2].agent().await;
    assert_eq!(watched(&mut late, &[&did]).await, [online(&did)]);
    let (_, unregister) = again.sign(&did, Unregister { reason: None });
    again.send(unregister).await;
    for watcher in [&mut watcher, &mut late] {
        assert_eq!(seen(watcher).await, offline(&did, "unregistered"));
    }

    let _lost = cluster.nodes[1].agent_of(&me).await;
    assert_eq!(seen(&mut watcher).await, online(&did));
    assert_eq!(seen(&mut late).await, online(&did));
    let killed = Instant::now();
    cluster.nodes[1].kill().await;
    assert_eq!(seen(&mut watcher).await, offline(&did, "node_lost"));
    assert_eq!(seen(&mut late).await, offline(&did, "node_lost"));
    assert!(killed.elapsed() < LEASE + SLACK, "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_nothing_to_tell_of() {
    let mut cluster = Cluster::of(2).await;
    let mut watcher = cluster.nodes[0].agent().await;
    let mut agent = cluster.nodes[1].agent().await;
    let did = agent.did();
    assert_eq!(watched(&mut watcher, &[&did]).await, [online(&did)]);
    cluster.redis.restart_empty();
    cluster.lists([&watcher, &agent]).await;
    // Beyond the moment until which those who are not back yet are waited for.
    tokio::time::sleep(2 * LEASE).await;
    is_told_nothing(&mut watcher).await;
    let (_, unregister) = agent.sign(&did, Unregister { reason: None });
    agent.send(unregister).await;
    assert_eq!(seen(&mut watcher).await, offline(&did, "unregistered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_apart_counts_the_others_as_gone_until_it_is_back() {
    let cluster = Cluster::of(2).await;
    let mut watcher = cluster.nodes[0].agent().await;
    let agent = cluster.nodes[1].agent().await;
    let did = agent.did();
    assert_eq!(watched(&mut watcher, &[&did]).await, [online(&did)]);
    cluster.nodes[0].network.set(Network::Cut);
    assert_eq!(seen(&mut watcher).await, offline(&did, "node_unreachable"));
    cluster.nodes[0].network.set(Network::Open);
    assert_eq!(seen(&mut watcher).await, online(&did));
    cluster.lists([&watcher, &agent]).await;
    is_told_nothing(&mut watcher).await;
}
