//! What every engine does: the same tests over each of them.
//!
//! Those of the engine in memory have a clock that moves as fast as they wait; those of Redis and a Redis
//! Cluster start servers of their own.

mod bans;
mod directory;
mod members;
mod messages;
mod shared_state;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conexus_plugin_api::Agent;
use conexus_protocol::{AgentKey, Identity};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    backplane::{Backplane, Change, Claim, Claimed, Link, LinkEvent, NodeInfo},
    ids::{Epoch, MemberId},
    redis::{
        RedisBackplane,
        server::{RedisCluster, RedisServer},
    },
};
use crate::{
    config::{ClusterSettings, RedisSettings, Settings},
    session::handle::tests::session,
};

/// Long enough for a machine that is busy with other tests, and soon over where it counts.
const LEASE: Duration = Duration::from_millis(400);
const A: MemberId = MemberId(0xa);
const B: MemberId = MemberId(0xb);

/// Runs a test over each engine.
macro_rules! over_each_engine {
    ($($name:ident),+ $(,)?) => { $(
        mod $name {
            #[tokio::test(start_paused = true)]
            async fn in_memory() {
                let engine = crate::cluster::memory::MemoryEngine::new();
                super::$name(crate::cluster::conformance::Engine::new(engine)).await;
            }

            #[tokio::test]
            async fn in_redis() {
                let server = crate::cluster::conformance::RedisServer::start();
                super::$name(crate::cluster::conformance::Engine::at(&server.url(), "single")).await;
            }

            #[tokio::test]
            async fn in_a_redis_cluster() {
                let servers = crate::cluster::conformance::RedisCluster::start();
                super::$name(crate::cluster::conformance::Engine::at(&servers.url(), "cluster")).await;
            }
        }
    )+ };
}
use over_each_engine;

struct Engine(Arc<dyn Backplane>);

impl Engine {
    fn new(backplane: impl Backplane + 'static) -> Self {
        Self(Arc::new(backplane))
    }

    fn at(url: &str, mode: &str) -> Self {
        let cluster = ClusterSettings { lease: LEASE, ..Settings::default().cluster };
        let redis = RedisSettings {
            mode: serde_json::from_value(mode.into()).unwrap(),
            timeout: Duration::from_secs(10),
            ..Settings::default().cluster_redis
        };
        Self::new(RedisBackplane::new(url, &cluster, &redis).unwrap())
    }

    async fn link(&self, member: MemberId) -> Node {
        let (events, heard) = mpsc::channel(1000);
        Node { link: self.0.connect(member, events).await.unwrap(), heard, member }
    }
}

/// A member and its link.
struct Node {
    link: Arc<dyn Link>,
    heard: mpsc::Receiver<LinkEvent>,
    member: MemberId,
}

impl Node {
    async fn event(&mut self) -> LinkEvent {
        timeout(Duration::from_secs(20), self.heard.recv()).await.unwrap().unwrap()
    }

    async fn change(&mut self) -> Change {
        match self.event().await {
            LinkEvent::Change(change) => change,
            other => panic!("{other:?} is no change"),
        }
    }

    /// Puts an agent down whose proof was seen so long ago.
    async fn claim(&self, agent: &Arc<Agent>, age: Duration) -> Claimed {
        let claim = Claim { member: self.member, agent: Arc::clone(agent), age };
        self.link.claim(&claim).await.unwrap()
    }

    /// The same just now, and nobody else has it.
    async fn won(&self, agent: &Arc<Agent>) -> Epoch {
        match self.claim(agent, Duration::ZERO).await {
            Claimed::Won { epoch, .. } => epoch,
            lost => panic!("{lost:?}"),
        }
    }

    async fn renew(&self) -> super::backplane::Roster {
        self.link.renew(self.member, &info(self.member), LEASE).await.unwrap()
    }
}

fn info(member: MemberId) -> NodeInfo {
    NodeInfo {
        node_id: format!("node {member}"),
        did: "did:key:z".to_owned(),
        version: "1".to_owned(),
        frames: 1,
        started_ms: 5,
        agents: 7,
        draining: false,
        lease_ms: 0,
    }
}

/// An agent whose key begins with this byte, which says in which part of the directory it is.
fn agent(first: u8) -> Arc<Agent> {
    let mut agent = Agent::clone(&session().facts());
    agent.key = *Identity::generate().key().as_bytes();
    agent.key[0] = first;
    agent.labels = BTreeMap::from([("team".to_owned(), "a b".to_owned())]);
    Arc::new(agent)
}

fn key(agent: &Agent) -> AgentKey {
    AgentKey::from_bytes(agent.key)
}

/// Waits for what only the engine's clock brings about.
async fn pass() {
    sleep(Duration::from_millis(20)).await;
}
