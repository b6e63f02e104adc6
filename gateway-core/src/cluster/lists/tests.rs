//! Lists over several gateways in this process, which ask each other without a network.

use std::{
    collections::BTreeSet,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_protocol::Identity;
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    cluster::{Questions, Station, backplane::Away, memory::MemoryEngine},
    config::Settings,
    gateway::Gateway,
    hooks::{EmptyChain, Fixed},
    session::handle::tests::session_of,
};

const LEASE: Duration = Duration::from_secs(5);

struct Node {
    core: Arc<Core>,
    cluster: Arc<Cluster>,
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
        let (settings, engine) = (Arc::new(settings), Arc::new(engine.clone()));
        let gateway =
            Gateway::bind_with_backplane(settings, Identity::generate(), policy, Some(engine));
        let gateway = gateway.await.unwrap();
        let core = gateway.watch().core();
        let running = tokio::spawn(gateway.run(std::future::pending()));
        let cluster = core.cluster.clone().unwrap();
        let mut station = cluster.station.subscribe();
        station.wait_for(|station| matches!(station, Station::Joined(_))).await.unwrap();
        Self { core, cluster, running }
    }

    fn member(&self) -> MemberId {
        self.cluster.joined().unwrap().member
    }

    /// An agent that has registered here, with metadata.
    async fn comes(&self, identity: &Identity, name: &str) -> AgentKey {
        let session = session_of(identity);
        let mut facts = Agent::clone(&session.facts());
        facts.metadata.name = Some(name.to_owned());
        session.set_facts(Arc::new(facts));
        self.core.router.presence.claim(&session).await;
        identity.key()
    }
}

/// Hands questions to the node that they are for.
#[derive(Default)]
struct Direct {
    nodes: OnceLock<Vec<(MemberId, Arc<Core>)>>,
    /// One that does not answer.
    silent: OnceLock<MemberId>,
    asked: AtomicUsize,
    largest: AtomicUsize,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direct")
    }
}

impl Questions for Direct {
    fn ask(&self, to: MemberId, question: Question) -> BoxFuture<'_, Result<Answer, Away>> {
        async move {
            if self.silent.get() == Some(&to) {
                return std::future::pending().await;
            }
            let nodes = self.nodes.get().unwrap();
            let core = &nodes.iter().find(|(member, _)| *member == to).unwrap().1;
            let Question::Page { after, limit, filter } = question else { panic!() };
            self.asked.fetch_add(1, SeqCst);
            let after = after.map(AgentKey::from_bytes);
            let answer = answer(core, after, limit as usize, filter).await;
            let bytes = postcard::to_allocvec(&answer).unwrap();
            self.largest.fetch_max(bytes.len(), SeqCst);
            Ok(postcard::from_bytes(&bytes).unwrap())
        }
        .boxed()
    }
}

/// Nodes that know each other.
async fn cluster() -> (Vec<Node>, Arc<Direct>) {
    let engine = MemoryEngine::new();
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::start(&engine, name).await);
    }
    let direct = Arc::new(Direct::default());
    let cores = nodes.iter().map(|node| (node.member(), Arc::clone(&node.core))).collect();
    assert!(direct.nodes.set(cores).is_ok());
    for node in &nodes {
        node.cluster.questions.set(Arc::clone(&direct) as _).unwrap();
    }
    // Until each has seen the others in the roster.
    tokio::time::sleep(LEASE).await;
    (nodes, direct)
}

fn keys(list: &List) -> Vec<AgentKey> {
    list.agents.iter().map(|listed| AgentKey::from_bytes(listed.agent.key)).collect()
}

#[tokio::test(start_paused = true)]
async fn pages_of_any_node_cover_all_agents_once_in_the_order_of_their_keys() {
    let (nodes, _) = cluster().await;
    let mut all = BTreeSet::new();
    for number in 0..500 {
        // Most are on one node.
        let node = &nodes[if number % 5 == 0 { number % 3 } else { 0 }];
        all.insert(node.comes(&Identity::generate(), "n").await);
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
    let (nodes, _) = cluster().await;
    let moving = Identity::generate();
    for (node, (name, epoch)) in nodes.iter().zip([("old", 1), ("new", 3), ("middle", 2)]) {
        let key = node.comes(&moving, name).await;
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
    let (nodes, _) = cluster().await;
    let mut wanted = BTreeSet::new();
    for number in 0..60 {
        let name = if number % 4 == 0 { "wanted" } else { "other" };
        let key = nodes[number % 3].comes(&Identity::generate(), name).await;
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
    let (nodes, direct) = cluster().await;
    for node in &nodes {
        for _ in 0..10 {
            node.comes(&Identity::generate(), "n").await;
        }
    }
    direct.silent.set(nodes[2].member()).unwrap();
    let began = Instant::now();
    let page = list(&nodes[0].core, None, 100, &AgentFilter::default()).await;
    assert_eq!(began.elapsed(), nodes[0].cluster.settings.takeover_timeout);
    assert_eq!((page.total, page.agents.len(), page.missing), (20, 20, vec!["c".to_owned()]));
    assert_eq!(nodes[0].cluster.tally.questions.partial_lists.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_at_once_is_bounded_and_a_page_is_whole_all_the_same() {
    let (nodes, direct) = cluster().await;
    for number in 0..300 {
        nodes[number % 3].comes(&Identity::generate(), &"x".repeat(8 * 1024)).await;
    }
    let page = list(&nodes[0].core, None, 300, &AgentFilter::default()).await;
    assert_eq!((page.agents.len(), page.total, page.next), (300, 300, None));
    assert!(direct.largest.load(SeqCst) < ANSWERED_BYTES + 16 * 1024);
    assert!(direct.asked.load(SeqCst) > 2, "in several turns");
}
