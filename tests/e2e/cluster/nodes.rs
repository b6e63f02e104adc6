//! Nodes on one machine: each has its own way to the Redis that they share, which can fail alone.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use conexus_protocol::{Identity, Subprotocol};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::LEASE;
use crate::support::{
    PATIENCE,
    agent::Agent,
    fault_proxy::FaultProxy,
    http,
    process::{Process, conexus, folder_with},
    redis::RedisServer,
    soon,
};

/// What a node counts of messages.
const COUNTERS: [&str; 4] = ["received", "delivered", "refused", "held"];

/// What nodes are started with.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) lease: Duration,
    /// Files of each node's folder, `gateway.toml` among them.
    pub(super) files: Vec<(&'static str, &'static str)>,
    /// `KEY=VALUE`, of every node.
    pub(super) settings: Vec<String>,
    /// As what agents address a node, if not by its own address.
    pub(super) audience: Option<String>,
    /// Of the process, by node.
    pub(super) environment: fn(usize) -> Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            lease: LEASE,
            files: Vec::new(),
            settings: Vec::new(),
            audience: None,
            environment: |_| Vec::new(),
        }
    }
}

impl Setup {
    pub(super) fn with(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }
}

/// Several gateways and the Redis that they share. They end with this.
pub(super) struct Cluster {
    pub(super) redis: RedisServer,
    pub(super) nodes: Vec<Node>,
}

impl Cluster {
    pub(super) async fn of(count: usize) -> Self {
        Self::with(count, Setup::default()).await
    }

    pub(super) async fn with(count: usize, setup: Setup) -> Self {
        let redis = RedisServer::start();
        let mut nodes = Vec::new();
        for number in 0..count {
            nodes.push(Node::start(number, &redis, setup.clone()).await);
        }
        let cluster = Self { redis, nodes };
        cluster.is_whole().await;
        cluster
    }

    /// Waits until every node knows of all others: an agent of each is listed by each.
    async fn is_whole(&self) {
        let mut agents = Vec::new();
        for node in &self.nodes {
            agents.push(node.agent().await);
        }
        self.lists(&agents).await;
        drop(agents);
        self.lists(&[]).await;
    }

    /// Waits until each node that runs lists these and nobody else; how long that took.
    pub(super) async fn lists<'a>(&self, agents: impl IntoIterator<Item = &'a Agent>) -> Duration {
        let dids = agents.into_iter().map(Agent::did).collect();
        let began = Instant::now();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            node.lists(&dids).await;
        }
        began.elapsed()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                println!("{} logged:\n{}\n", node.name, node.log().join("\n"));
            }
        }
    }
}

/// See the [module](self).
pub(super) struct Node {
    pub(super) name: String,
    /// Between it and Redis.
    pub(super) network: FaultProxy,
    /// None once it was killed.
    process: Option<Process>,
    /// What its earlier processes logged.
    past: Vec<String>,
    number: usize,
    folder: TempDir,
    setup: Setup,
}

impl Node {
    async fn start(number: usize, redis: &RedisServer, setup: Setup) -> Self {
        let mut node = Self {
            name: format!("node-{number}"),
            network: FaultProxy::before(([127, 0, 0, 1], redis.port()).into()).await,
            process: None,
            past: Vec::new(),
            number,
            folder: folder_with(&setup.files),
            setup,
        };
        node.run().await;
        node
    }

    /// Starts it, again, at another address.
    pub(super) async fn run(&mut self) {
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
        let own = [
            "server.listen=127.0.0.1:0".to_owned(),
            "admin.listen=127.0.0.1:0".to_owned(),
            format!("server.node_id={}", self.name),
            format!("cluster.redis.url=redis://{}", self.network.addr()),
            format!("cluster.redis.timeout={}", milliseconds(self.setup.lease / 4)),
            format!("cluster.lease={}", milliseconds(self.setup.lease)),
            format!("cluster.takeover_timeout={}", milliseconds(self.setup.lease / 2)),
            "log.format=human".to_owned(),
        ];
        let settings: Vec<_> =
            own.iter().chain(&self.setup.settings).flat_map(|it| ["--set", it.as_str()]).collect();
        let mut command = conexus(self.folder.path(), &settings);
        command.envs((self.setup.environment)(self.number));
        self.process = Some(Process::spawn(command).await);
    }

    /// It ends at once, without a word to anybody.
    pub(super) async fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal("KILL").await;
        soon("a killed node to end", process.wait()).await;
        self.past.extend(process.log());
    }

    /// All that it has logged, its earlier processes included.
    pub(super) fn log(&self) -> Vec<String> {
        let now = self.process.as_ref().map(Process::log).unwrap_or_default();
        [&self.past[..], &now].concat()
    }

    /// The process.
    pub(super) fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    pub(super) const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Stops it in order, and gives what it counted of messages: received, delivered, refused, held.
    pub(super) async fn stop(&mut self) -> [u64; 4] {
        let mut process = self.process.take().expect("it runs");
        process.signal("TERM").await;
        assert!(soon("a node to stop", process.wait()).await.success());
        let end = process.logged("stopped").await;
        COUNTERS.map(|name| {
            let value = end.split(&format!("{name}=")).nth(1).unwrap();
            value.split(' ').next().unwrap().parse().unwrap()
        })
    }

    /// A registered agent.
    pub(super) async fn agent(&self) -> Agent {
        self.agent_of(&Identity::generate()).await
    }

    pub(super) async fn agent_of(&self, identity: &Identity) -> Agent {
        let mut agent = self.connect(identity).await;
        agent.register().await;
        agent
    }

    /// An agent that has not registered yet.
    pub(super) async fn connect(&self, identity: &Identity) -> Agent {
        let mut agent = self.process().connect(Subprotocol::V1_1, identity.clone()).await;
        if let Some(audience) = &self.setup.audience {
            agent.url.clone_from(audience);
        }
        agent
    }

    /// Waits until it lists these agents and nobody else.
    pub(super) async fn lists(&self, dids: &BTreeSet<String>) {
        let listing = async {
            while self.listed().await != (dids.clone(), true) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, listing).await.is_err() {
            panic!("{} lists {:?}, not {dids:?}", self.name, self.listed().await);
        }
    }

    /// Whom it lists, and whether that is all.
    pub(super) async fn listed(&self) -> (BTreeSet<String>, bool) {
        let mut dids = BTreeSet::new();
        let mut whole = true;
        let mut query = "limit=1000".to_owned();
        loop {
            let page = self.page(&query).await;
            whole &= page["partial"] != true;
            for agent in page["agents"].as_array().unwrap() {
                let did = agent["did"].as_str().unwrap().to_owned();
                assert!(dids.insert(did), "{} lists somebody twice: {page}", self.name);
            }
            match page["next_cursor"].as_str() {
                Some(cursor) => query = format!("limit=1000&cursor={cursor}"),
                None => return (dids, whole),
            }
        }
    }

    /// A page of its list.
    pub(super) async fn page(&self, query: &str) -> Value {
        let (status, page) = http::get(self.process().addr, &format!("/agents?{query}"), &[]).await;
        assert_eq!(status, 200, "{page}");
        page
    }

    /// The nodes that it knows of, itself included.
    pub(super) async fn known(&self) -> Vec<Value> {
        let (status, answer) = http::get(self.process().admin, "/api/v1/nodes", &[]).await;
        assert_eq!(status, 200, "{answer}");
        answer["nodes"].as_array().unwrap().clone()
    }

    /// What it has counted of messages: received, delivered, refused, held.
    pub(super) async fn messages(&self) -> [u64; 4] {
        let (status, health) = http::get(self.process().addr, "/health", &[]).await;
        assert_eq!(status, 200);
        COUNTERS.map(|name| health["messages"][name].as_u64().unwrap())
    }
}
