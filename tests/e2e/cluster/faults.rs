//! Nodes, Redis and the networks between them fail; what is not touched by that goes on.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use conexus_protocol::Identity;
use tokio::{sync::watch, time::sleep};

use super::{
    LEASE,
    nodes::{Cluster, Node, Setup},
    talking::says,
};
use crate::{
    support::{agent::Agent, fault_proxy::Network, gateway::Background, soon},
    watching::{offline, online, seen, watched},
};

/// What a busy machine may take longer than the rules have it.
const SLACK: Duration = Duration::from_secs(4);

/// A script that logs who is told to be gone with a node.
const LOST: &str = r#"
fn on_disconnect(event) {
    if event.reason == "node_lost" {
        log("info", `lost ${event.agent.did} with epoch ${event.epoch}`);
    }
}
"#;

const WITH_LOST: &str = r#"
[hook.lost]
use = "script:lost"

[[chain.on_disconnect]]
hook = "lost"
"#;

fn noting_the_lost() -> Setup {
    let files = vec![("gateway.toml", WITH_LOST), ("scripts/lost.rhai", LOST)];
    Setup { files, ..Setup::default() }
}

/// What came of one message.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Arrived,
    Refused(String),
}

/// Sends a message and waits for what becomes of it. What is left of earlier ones is read over: one
/// that was refused as `node_unreachable` may have arrived all the same.
async fn fate(from: &mut Agent, to: &mut Agent) -> Fate {
    let (id, text) = from.send_offer(&to.did(), "v=0").await;
    loop {
        tokio::select! {
            arrived = to.text() => if arrived == text {
                return Fate::Arrived;
            },
            refusal = from.refusal() => if refusal.correlation_id.as_ref() == Some(&id) {
                return Fate::Refused(refusal.reason.unwrap_or_default());
            },
        }
    }
}

/// Sends messages until one has this fate; how long that took.
async fn comes_to(from: &mut Agent, to: &mut Agent, wanted: Fate) -> Duration {
    let began = Instant::now();
    soon(&format!("a message to be {wanted:?}"), async {
        while fate(from, to).await != wanted {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    began.elapsed()
}

fn unreachable() -> Fate {
    Fate::Refused("node_unreachable".into())
}

/// Sends a message to somebody who is not there; why it was refused.
async fn refused(from: &mut Agent, did: &str) -> String {
    let (id, _) = from.send_offer(did, "v=0").await;
    let refusal = from.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    refusal.reason.unwrap_or_default()
}

/// Two agents of one node that talk all the time.
struct Chat {
    dids: [String; 2],
    exchanges: watch::Receiver<(u64, Duration)>,
    _talking: Background,
}

impl Chat {
    async fn on(node: &Node) -> Self {
        let (mut a, mut b) = (node.agent().await, node.agent().await);
        let dids = [a.did(), b.did()];
        let (tell, exchanges) = watch::channel((0, Duration::ZERO));
        let talking = Background::spawn(async move {
            loop {
                let began = Instant::now();
                says(&mut a, &mut b).await;
                says(&mut b, &mut a).await;
                tell.send_modify(|(count, longest)| {
                    *count += 1;
                    *longest = began.elapsed().max(*longest);
                });
                sleep(Duration::from_millis(1)).await;
            }
        });
        Self { dids, exchanges, _talking: talking }
    }

    /// They still talk; the longest that a message and its answer took so far.
    async fn goes_on(&mut self) -> Duration {
        let now = self.exchanges.borrow().0;
        let next = soon("local traffic", self.exchanges.wait_for(|(count, _)| *count > now + 1));
        next.await.expect("they talk").1
    }
}

/// Somebody on each node, and two more on each who talk to each other all the time.
struct Scene {
    agents: Vec<Agent>,
    chats: Vec<Chat>,
}

impl Scene {
    async fn on(cluster: &Cluster) -> Self {
        let mut scene = Self { agents: Vec::new(), chats: Vec::new() };
        for node in &cluster.nodes {
            scene.agents.push(node.agent().await);
            scene.chats.push(Chat::on(node).await);
        }
        for node in &cluster.nodes {
            node.lists(&scene.dids(|_| true)).await;
        }
        scene
    }

    /// Everybody on these nodes.
    fn dids(&self, on: impl Fn(usize) -> bool) -> BTreeSet<String> {
        let everybody = self.agents.iter().zip(&self.chats).enumerate().filter(|(n, _)| on(*n));
        everybody.flat_map(|(_, (agent, chat))| [&[agent.did()][..], &chat.dids].concat()).collect()
    }

    fn pair(&mut self, from: usize, to: usize) -> (&mut Agent, &mut Agent) {
        self.agents.get_disjoint_mut([from, to]).map(|[from, to]| (from, to)).unwrap()
    }

    /// Waits until everybody reaches everybody; how long that took.
    async fn all_reach_all(&mut self) -> Duration {
        let began = Instant::now();
        for from in 0..self.agents.len() {
            for to in (0..self.agents.len()).filter(|to| *to != from) {
                let (from, to) = self.pair(from, to);
                comes_to(from, to, Fate::Arrived).await;
            }
        }
        began.elapsed()
    }

    /// Local traffic went on all the time, on all nodes.
    async fn local_traffic_goes_on(&mut self) {
        for chat in &mut self.chats {
            let longest = chat.goes_on().await;
            println!("the longest that a local message and its answer took: {longest:?}");
            assert!(longest < SLACK, "{longest:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_of_a_killed_node_are_gone_for_everyone_and_a_survivor_tells_hooks() {
    let mut cluster = Cluster::with(3, noting_the_lost()).await;
    let mut scene = Scene::on(&cluster).await;
    let mut lost = scene.agents.pop().unwrap();
    let chat = scene.chats.pop().unwrap();
    let dead = [&[lost.did()][..], &chat.dids].concat();
    let did = lost.did();
    let [watcher, other] = &mut scene.agents[..] else { unreachable!() };
    assert_eq!(watched(watcher, &[&did]).await, [online(&did)]);

    let began = Instant::now();
    cluster.nodes[2].kill().await;
    assert!(lost.frame().await.is_err());
    // Nobody knows yet: what is sent meanwhile comes back all the same.
    assert_eq!(refused(other, &did).await, "node_unreachable");
    assert_eq!(seen(watcher).await, offline(&did, "node_lost"));
    for node in &cluster.nodes[..2] {
        node.lists(&scene.dids(|_| true)).await;
    }
    let gone = began.elapsed();
    println!("gone for everyone {gone:?} after the kill, with a lease of {LEASE:?}");
    assert!(gone < LEASE + SLACK);
    let [watcher, other] = &mut scene.agents[..] else { unreachable!() };
    for agent in [watcher, other] {
        assert_eq!(refused(agent, &did).await, "unknown_agent");
    }
    for did in &dead {
        let told = soon("a survivor to tell hooks", async {
            loop {
                let told = cluster.nodes[..2].iter().flat_map(|node| node.process().log());
                let lost = format!("lost {did} with epoch ");
                let mut lines = told.filter(|line| line.contains(&lost));
                if let Some(line) = lines.next() {
                    break line.split(&lost).nth(1).unwrap().to_owned();
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        let epoch = told.await;
        let digits: String = epoch.chars().take_while(char::is_ascii_digit).collect();
        assert!(digits.parse::<u64>().unwrap() > 0, "{epoch}");
    }

    // One that comes back is another member, and its agents are whoever registers there.
    cluster.nodes[2].run().await;
    let mut back = cluster.nodes[2].agent_of(&lost.identity).await;
    assert_eq!(seen(&mut scene.agents[0]).await, online(&did));
    for agent in &mut scene.agents {
        comes_to(agent, &mut back, Fate::Arrived).await;
        comes_to(&mut back, agent, Fate::Arrived).await;
    }
    scene.local_traffic_goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_redis_was_killed_and_is_back_with_nothing_all_are_reachable_again() {
    let mut cluster = Cluster::with(3, noting_the_lost()).await;
    let mut scene = Scene::on(&cluster).await;
    scene.all_reach_all().await;
    cluster.redis.kill();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (from, to) = scene.pair(from, to);
        comes_to(from, to, unreachable()).await;
    }
    // Whoever comes meanwhile is there for its own node, and for all later.
    let mut newcomer = cluster.nodes[0].agent().await;
    says(&mut scene.agents[0], &mut newcomer).await;
    assert_eq!(refused(&mut scene.agents[1], &newcomer.did()).await, "node_unreachable");
    scene.local_traffic_goes_on().await;

    cluster.redis.start_again();
    let began = Instant::now();
    scene.all_reach_all().await;
    comes_to(&mut scene.agents[2], &mut newcomer, Fate::Arrived).await;
    let took = began.elapsed();
    println!("all reached all {took:?} after Redis was back");
    assert!(took < Duration::from_secs(2) + SLACK);
    let mut everybody = scene.dids(|_| true);
    everybody.insert(newcomer.did());
    for node in &cluster.nodes {
        node.lists(&everybody).await;
    }
    scene.local_traffic_goes_on().await;
    nobody_was_lost(&cluster);
}

/// No node was taken for dead.
fn nobody_was_lost(cluster: &Cluster) {
    for node in &cluster.nodes {
        let lost: Vec<_> =
            node.process().log().into_iter().filter(|it| it.contains("lost did:")).collect();
        assert_eq!(lost, [""; 0], "{}", node.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_stands_still_local_traffic_goes_on_and_nobody_is_lost() {
    let cluster = Cluster::with(3, noting_the_lost()).await;
    let mut scene = Scene::on(&cluster).await;
    for pause in [LEASE / 10, LEASE * 2] {
        cluster.redis.pause();
        sleep(pause).await;
        scene.local_traffic_goes_on().await;
        if pause > LEASE {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                let (from, to) = scene.pair(from, to);
                comes_to(from, to, unreachable()).await;
            }
        }
        cluster.redis.resume();
        let took = scene.all_reach_all().await;
        println!(
            "all reached all {took:?} after Redis went on, which had stood still for {pause:?}"
        );
        assert!(took < LEASE + SLACK);
        for node in &cluster.nodes {
            node.lists(&scene.dids(|_| true)).await;
        }
        scene.local_traffic_goes_on().await;
    }
    nobody_was_lost(&cluster);
}

/// A node that does not reach Redis any more: what it does itself, what the others do about it, and
/// what happens when it is back.
async fn is_cut_off(network: Network) {
    let cluster = Cluster::with(3, noting_the_lost()).await;
    let mut scene = Scene::on(&cluster).await;
    let moving = Identity::generate();
    let mut older = cluster.nodes[0].agent_of(&moving).await;
    let staying = scene.agents[0].did();
    let [cut, watcher, _] = &mut scene.agents[..] else { unreachable!() };
    assert_eq!(watched(watcher, &[&staying]).await, [online(&staying)]);
    comes_to(cut, watcher, Fate::Arrived).await;

    let began = Instant::now();
    cluster.nodes[0].network.set(network);
    let (from, to) = scene.pair(0, 2);
    comes_to(from, to, unreachable()).await;
    says(&mut scene.agents[0], &mut older).await;
    assert_eq!(seen(&mut scene.agents[1]).await, offline(&staying, "node_lost"));
    for node in &cluster.nodes[1..] {
        node.lists(&scene.dids(|n| n != 0)).await;
    }
    let gone = began.elapsed();
    println!("the agents of a node that is cut off ({network:?}) were gone after {gone:?}");
    assert!(gone < LEASE + SLACK);
    let (from, to) = scene.pair(1, 2);
    comes_to(from, to, Fate::Arrived).await;
    assert_eq!(refused(&mut scene.agents[2], &staying).await, "unknown_agent");

    // One of its agents goes elsewhere. Its older session is all that those on its node know of.
    let mut newer = cluster.nodes[1].agent_of(&moving).await;
    comes_to(&mut scene.agents[2], &mut newer, Fate::Arrived).await;
    says(&mut scene.agents[0], &mut older).await;
    scene.local_traffic_goes_on().await;

    cluster.nodes[0].network.set(Network::Open);
    let began = Instant::now();
    assert_eq!(older.close().await.0, 4003);
    assert_eq!(seen(&mut scene.agents[1]).await, online(&staying));
    scene.all_reach_all().await;
    for agent in &mut scene.agents {
        comes_to(agent, &mut newer, Fate::Arrived).await;
    }
    println!("all reached all {:?} after it was back", began.elapsed());
    let mut everybody = scene.dids(|_| true);
    everybody.insert(newer.did());
    for node in &cluster.nodes {
        node.lists(&everybody).await;
    }
    scene.local_traffic_goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_to_redis_are_reset_keeps_its_agents_to_itself_until_it_is_back() {
    is_cut_off(Network::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_network_falls_silent_keeps_its_agents_to_itself_until_it_is_back() {
    is_cut_off(Network::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_to_redis_delays_and_loses_nothing() {
    let cluster = Cluster::with(2, noting_the_lost()).await;
    let mut scene = Scene::on(&cluster).await;
    cluster.nodes[0].network.set(Network::Slow(LEASE / 10));
    for _ in 0..3 {
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = scene.pair(from, to);
            assert_eq!(fate(from, to).await, Fate::Arrived);
        }
    }
    scene.local_traffic_goes_on().await;
    nobody_was_lost(&cluster);
}
