//! Sentinels, and machines of a Redis Cluster.

use super::{super::server::RedisCluster, *};
use crate::cluster::ids::Bucket;
use redis::cluster_routing::Slot;

fn sentinel(master: &str) -> RedisSettings {
    RedisSettings {
        mode: RedisMode::Sentinel,
        sentinel_master: Some(master.to_owned()),
        ..settings()
    }
}

#[tokio::test]
async fn sentinels_lead_to_whoever_takes_writes() {
    let mut watched = Watched::start();
    let url = watched.sentinel.url();
    let node = connect(&url, &sentinel(Watched::NAME), A).await.unwrap();
    let agent = agent();
    node.renew().await.unwrap();
    node.claim(&agent).await.unwrap();
    watched.master.kill();
    node.lost().await;
    watched.has_failed_over();
    // Nothing of what the replica had is gone.
    let node = eventually(&url, &sentinel(Watched::NAME), A).await;
    node.renew().await.unwrap();
    node.claim(&agent).await.unwrap();
    assert!(node.knows(&agent).await);
    let seeds = vec![format!("127.0.0.1:{}", watched.sentinel.port())];
    let redis = RedisSettings { seeds, ..sentinel(Watched::NAME) };
    // The first one is away.
    let node = connect(&watched.master.url(), &redis, A).await.unwrap();
    node.renew().await.unwrap();
    let why = refused(&url, &sentinel("nobody")).await;
    assert!(why.contains("knows no master \"nobody\""), "{why}");
}

#[tokio::test]
async fn a_replica_is_none_to_write_to() {
    let watched = Watched::start();
    let why = refused(&watched.replica.url(), &settings()).await;
    assert!(why.contains("is a replica"), "{why}");
    // As when it becomes one: the old connection may be there still.
    let node = connect(&watched.master.url(), &settings(), A).await.unwrap();
    let port = watched.replica.port().to_string();
    watched.replica.must(&["REPLICAOF", "NO", "ONE"]);
    watched.master.must(&["REPLICAOF", "127.0.0.1", &port]);
    let why = match node.renew().await {
        Err(why) => why.to_string(),
        Ok(_) => panic!("a replica took a write"),
    };
    assert!(why.contains("replica") || why.contains("closed"), "{why}");
}

fn cluster() -> RedisSettings {
    RedisSettings { mode: RedisMode::Cluster, ..settings() }
}

#[tokio::test]
async fn the_directory_is_divided_over_the_machines_of_a_cluster() {
    let servers = RedisCluster::start();
    let node = connect(&servers.url(), &cluster(), A).await.unwrap();
    node.renew().await.unwrap();
    for bucket in Bucket::all() {
        let mut agent = Agent::clone(&agent());
        agent.key[0] = bucket.0;
        node.claim(&Arc::new(agent)).await.unwrap();
    }
    for server in &servers.servers {
        let parts =
            server.must(&["KEYS", "*:dir"]).lines().filter(|line| line.starts_with('{')).count();
        assert!((50..120).contains(&parts), "{parts} of 256 parts are there");
    }
    // By any of them.
    let seeds = vec![format!("127.0.0.1:{}", servers.servers[2].port())];
    let redis = RedisSettings { seeds, ..cluster() };
    let gone = RedisServer::start().url();
    connect(&gone, &redis, B).await.unwrap().renew().await.unwrap();
    let alone = RedisServer::start();
    let why = refused(&alone.url(), &cluster()).await;
    assert!(why.contains("cluster support disabled"), "{why}");
    // As if there were but one.
    let why = refused(&servers.url(), &settings()).await;
    assert!(why.contains("cluster.redis.mode must be"), "{why}");
}

#[tokio::test]
async fn a_part_that_moves_ends_the_link_and_is_found_by_the_next() {
    let servers = RedisCluster::start();
    let node = connect(&servers.url(), &cluster(), A).await.unwrap();
    let agent = agent();
    node.claim(&agent).await.unwrap();
    let part = format!("{{conexus:{}}}:dir", agent.key[0]);
    let slot = (0..16384).find(|slot| Slot::new(*slot) == Some(Slot::for_key(&part))).unwrap();
    node.link.follow(Bucket(agent.key[0])).await.unwrap();
    let to =
        servers.servers.iter().position(|server| !std::ptr::eq(server, servers.with_slot(slot)));
    servers.move_slot(slot, to.unwrap());
    let why = node.lost().await;
    assert!(why.contains("moved") || why.contains("MOVED"), "{why}");
    let node = eventually(&servers.url(), &cluster(), A).await;
    assert!(node.knows(&agent).await);
    node.claim(&agent).await.unwrap();
    // And one machine that dies ends it for all.
    let mut servers = servers;
    servers.servers[0].kill();
    node.lost().await;
}
