//! Several gateways in this process, over one engine in memory.

use std::{sync::Arc, time::Duration};

use conexus_protocol::Identity;
use tokio::{sync::oneshot, task::JoinHandle};

use super::super::memory::MemoryEngine;
use crate::{
    cluster::{Cluster, Station, ids::MemberId},
    config::Settings,
    core::Core,
    gateway::Gateway,
    hooks::{EmptyChain, Fixed},
};

const LEASE: Duration = Duration::from_secs(5);

/// A gateway that runs until it is stopped, or dropped as if it were killed.
struct Node {
    core: Arc<Core>,
    cluster: Arc<Cluster>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Node {
    async fn start(engine: &MemoryEngine, name: &str) -> Self {
        let mut settings = Settings::default();
        settings.server.listen = ([127, 0, 0, 1], 0).into();
        settings.server.node_id = name.to_owned();
        settings.cluster.lease = LEASE;
        let policy = Arc::new(Fixed(Arc::new(EmptyChain)));
        let engine = Arc::new(engine.clone());
        let gateway = Gateway::bind_with_backplane(
            Arc::new(settings),
            Identity::generate(),
            policy,
            Some(engine),
        );
        let gateway = gateway.await.unwrap();
        let core = gateway.watch().core();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(gateway.run(async move {
            let _ = stopped.await;
        }));
        let cluster = core.cluster.clone().unwrap();
        Self { core, cluster, stop: Some(stop), running }
    }

    /// Waits until it is part of the cluster, and says as whom.
    async fn joined(&self) -> MemberId {
        let mut station = self.cluster.station.subscribe();
        let joined = station.wait_for(|station| matches!(station, Station::Joined(_))).await;
        let Station::Joined(joined) = &*joined.unwrap() else { unreachable!() };
        joined.member
    }

    async fn apart(&self) {
        let mut station = self.cluster.station.subscribe();
        station.wait_for(|station| matches!(station, Station::Apart(_))).await.unwrap();
    }

    /// Who counts by this node's knowledge.
    fn members(&self) -> Vec<MemberId> {
        let now = tokio::time::Instant::now();
        let members = self.cluster.members.load();
        members.iter().filter(|(_, member)| member.counts(now)).map(|(id, _)| id).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_joins_stays_and_leaves() {
    let engine = MemoryEngine::new();
    let (a, mut b) = (Node::start(&engine, "a").await, Node::start(&engine, "b").await);
    let ids = (a.joined().await, b.joined().await);
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(a.members().len(), 2);
    assert_eq!((a.joined().await, b.joined().await), ids, "both stay who they were");
    assert!(a.cluster.is_trusted());
    b.stop.take().unwrap().send(()).unwrap();
    (&mut b.running).await.unwrap();
    tokio::time::sleep(LEASE / 2).await;
    assert_eq!(a.members(), [ids.0], "nobody waits for the end of a lease");
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_without_its_engine_and_joins_when_it_is_there() {
    let engine = MemoryEngine::new();
    engine.set_away(true);
    let node = Node::start(&engine, "a").await;
    tokio::time::sleep(3 * LEASE).await;
    assert!(node.cluster.joined().is_err());
    assert_eq!(node.core.router.presence.online(), 0);
    engine.set_away(false);
    let first = tokio::time::timeout(Duration::from_secs(1), node.joined()).await.unwrap();

    engine.cut(first);
    node.apart().await;
    assert_eq!(node.joined().await, first, "the others have not given it up");

    engine.set_away(true);
    engine.forget();
    engine.set_away(false);
    node.apart().await;
    assert_ne!(node.joined().await, first, "the others may have given it up");
}
