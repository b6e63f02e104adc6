//! Several gateways in this process, over one engine in memory, with agents that come, go and move.

mod claims;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_plugin_api::{
    Point,
    host::{Disconnect, Event},
};
use conexus_protocol::{AgentKey, Identity};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::super::trial::{Agent, LEASE, Node, Trial, until};
use crate::{
    cluster::{
        backplane::{Backplane as _, Claim, Claimed, Release},
        claims::{granted, place_running, verify},
        ids::MemberId,
    },
    hooks::Judge,
    session::handle::tests::session_of,
};

/// Remembers how sessions ended.
#[derive(Default)]
struct Witness {
    ends: Mutex<Vec<Arc<Disconnect>>>,
    replaced: AtomicUsize,
    registered: AtomicUsize,
}

impl Judge for Witness {
    fn asks(&self, point: Point) -> bool {
        matches!(point, Point::Disconnect | Point::Replaced | Point::Registered)
    }

    fn observe(self: Arc<Self>, event: Event) {
        match event {
            Event::Disconnect(end) => self.ends.lock().push(end),
            Event::Replaced(_) => {
                self.replaced.fetch_add(1, SeqCst);
            }
            _ => {
                self.registered.fetch_add(1, SeqCst);
            }
        }
    }
}

impl Witness {
    fn reasons(&self) -> Vec<String> {
        self.ends.lock().iter().map(|end| end.reason.to_string()).collect()
    }
}

/// The one node among these that has the agent, which the directory agrees with.
async fn owner<'a>(trial: &Trial, nodes: &'a [Node], agent: &Agent) -> &'a Node {
    let owners = || nodes.iter().filter(|node| node.has(agent)).count();
    until("one owner", || owners() == 1).await;
    let owner = nodes.iter().find(|node| node.has(agent)).unwrap();
    assert_eq!(trial.entry(agent).unwrap().member, owner.joined().await);
    owner
}

#[tokio::test(start_paused = true)]
async fn a_node_joins_stays_and_leaves() {
    let trial = Trial::new();
    let [a, mut b] = trial.nodes().await;
    let ids = (a.joined().await, b.joined().await);
    sleep(2 * LEASE).await;
    assert_eq!(a.members().len(), 2);
    assert_eq!((a.joined().await, b.joined().await), ids, "both stay who they were");
    assert!(a.cluster.is_trusted());
    b.stop().await;
    sleep(LEASE / 2).await;
    assert_eq!(a.members(), [ids.0], "nobody waits for the end of a lease");
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_without_its_engine_and_joins_when_it_is_there() {
    let trial = Trial::new();
    trial.engine.set_away(true);
    let node = trial.node("a").await;
    let me = Identity::generate();
    let agent = node.register(&me).await;
    sleep(3 * LEASE).await;
    assert!(node.cluster.joined().is_err());
    assert!(node.has(&agent), "it serves all the same");
    trial.engine.set_away(false);
    let first = timeout(Duration::from_secs(1), node.joined()).await.unwrap();
    assert_eq!(trial.entry(&agent).unwrap().member, first);

    trial.engine.cut(first);
    node.apart().await;
    assert_eq!(node.joined().await, first, "the others have not given it up");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_started_empty_knows_all_agents_within_two_seconds() {
    let trial = Trial::new();
    let nodes: [Node; 3] = trial.nodes().await;
    let mut agents = Vec::new();
    for number in 0..30 {
        agents.push(nodes[number % 3].register(&Identity::generate()).await);
    }
    let before: Vec<_> = agents.iter().map(|agent| trial.entry(agent).unwrap().epoch).collect();
    trial.engine.set_away(true);
    trial.engine.forget();
    sleep(2 * LEASE).await;
    let late = nodes[0].register(&Identity::generate()).await;
    trial.engine.set_away(false);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(trial.engine.agents(), 31);
    for (number, (agent, epoch)) in agents.iter().zip(before).enumerate() {
        let entry = trial.entry(agent).unwrap();
        assert_eq!(entry.member, nodes[number % 3].joined().await);
        assert_eq!(entry.epoch, epoch, "a registration keeps its epoch");
    }
    assert_eq!(trial.entry(&late).unwrap().member, nodes[0].joined().await);
    assert_eq!(nodes[1].members().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn renewals_do_not_grow_with_the_agents() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let writes = async || {
        let before = trial.engine.writes();
        sleep(10 * LEASE).await;
        trial.engine.writes() - before
    };
    let alone = writes().await;
    let mut agents = Vec::new();
    for _ in 0..50 {
        agents.push(node.register(&Identity::generate()).await);
    }
    sleep(LEASE).await;
    assert_eq!(writes().await, alone);
    assert!((29..=31).contains(&alone), "three for each lease: {alone}");
}

#[tokio::test(start_paused = true)]
async fn whoever_registers_elsewhere_is_moved_and_told_so() {
    let (trial, witness) = (Trial::new(), Arc::new(Witness::default()));
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(trial.judged_node(name, Arc::clone(&witness)).await);
    }
    for node in &nodes {
        node.joined().await;
    }
    let me = Identity::generate();
    let mut agent = nodes[0].register(&me).await;
    let mut epoch = trial.entry(&agent).unwrap().epoch;
    for moves in 1..=6 {
        let next = &nodes[moves % 3];
        let newer = next.register(&me).await;
        // When REGISTERED comes, nobody else has the agent any more.
        assert_eq!(nodes.iter().filter(|node| node.has(&newer)).count(), 1);
        assert_eq!(agent.closed().await, 4003);
        let entry = trial.entry(&newer).unwrap();
        assert_eq!(entry.member, next.joined().await);
        assert!(entry.epoch > std::mem::replace(&mut epoch, entry.epoch));
        agent = newer;
    }
    until("ends told", || witness.ends.lock().len() == 6).await;
    assert_eq!(witness.reasons(), ["replaced"; 6]);
    assert!(witness.ends.lock().iter().all(|end| end.epoch.is_some()));
    let (registered, replaced) = (&witness.registered, &witness.replaced);
    assert_eq!((registered.load(SeqCst), replaced.load(SeqCst)), (7, 6));
}

#[tokio::test(start_paused = true)]
async fn registrations_at_once_on_all_nodes_end_with_one_owner() {
    let trial = Trial::new();
    let nodes: [Node; 3] = trial.nodes().await;
    for _ in 0..20 {
        let me = Identity::generate();
        let mut tasks = tokio::task::JoinSet::new();
        let agents =
            [nodes[0].registering(&me), nodes[1].registering(&me), nodes[2].registering(&me)];
        let agents = futures_util::future::join_all(agents).await;
        let owner = owner(&trial, &nodes, &agents[0]).await.joined().await;
        let mut others = 0;
        for (agent, node) in agents.into_iter().zip(&nodes) {
            let is_owner = node.joined().await == owner;
            others += usize::from(!is_owner);
            tasks.spawn(async move {
                let mut agent = agent;
                if is_owner {
                    agent.registered().await
                } else {
                    assert_eq!(agent.closed().await, 4003)
                }
                agent
            });
        }
        assert_eq!(others, 2);
        let _open = tasks.join_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_moved_while_a_node_was_cut_off_stays_where_it_is() {
    let trial = Trial::new();
    let nodes: [Node; 2] = trial.nodes().await;
    let [a, b] = &nodes;
    let (moves, stays) = (Identity::generate(), Identity::generate());
    let mut old = a.register(&moves).await;
    let staying = a.register(&stays).await;
    let member = a.joined().await;
    a.cut_off(true);
    sleep(2 * LEASE).await;
    assert_eq!(b.members().len(), 1);
    let new = b.register(&moves).await;
    assert!(a.has(&old), "it does not know better");
    a.cut_off(false);
    assert_eq!(old.closed().await, 4003);
    assert_ne!(a.joined().await, member, "the others gave that one up");
    assert!(b.has(&new) && !a.has(&new));
    assert_eq!(trial.entry(&new).unwrap().member, b.joined().await);
    assert_eq!(trial.entry(&staying).unwrap().member, a.joined().await);
    assert!(a.has(&staying));
}

#[tokio::test(start_paused = true)]
async fn a_registration_made_while_apart_counts_from_its_proof() {
    let trial = Trial::new();
    let nodes: [Node; 2] = trial.nodes().await;
    let [a, b] = &nodes;
    let (first, second) = (Identity::generate(), Identity::generate());
    a.cut_off(true);
    a.apart().await;
    // One comes here before it goes to the other node, the other one comes here after.
    let mut lost = a.register(&first).await;
    let mut stale = b.register(&second).await;
    sleep(Duration::from_secs(1)).await;
    let stays = b.register(&first).await;
    let comes = a.register(&second).await;
    sleep(Duration::from_secs(1)).await;
    a.cut_off(false);
    assert_eq!(lost.closed().await, 4003);
    assert_eq!(stale.closed().await, 4003);
    assert!(b.has(&stays) && a.has(&comes));
    assert_eq!(trial.entry(&stays).unwrap().member, b.joined().await);
    assert_eq!(trial.entry(&comes).unwrap().member, a.joined().await);
}

#[tokio::test(start_paused = true)]
async fn a_dead_nodes_agents_are_told_to_observers_and_taken_out() {
    let (trial, witness) = (Trial::new(), Arc::new(Witness::default()));
    let a = trial.node("a").await;
    let b = trial.judged_node("b", Arc::clone(&witness)).await;
    let c = trial.judged_node("c", Arc::clone(&witness)).await;
    let mut agents = Vec::new();
    for node in [&a, &b, &c] {
        node.joined().await;
        for _ in 0..10 {
            agents.push(node.register(&Identity::generate()).await);
        }
    }
    sleep(2 * LEASE).await;
    let mut lost: BTreeMap<_, _> = agents[..10]
        .iter()
        .map(|agent| (agent.key(), trial.entry(agent).unwrap().epoch.0))
        .collect();
    a.kill();
    sleep(LEASE + Duration::from_millis(100)).await;
    assert_eq!((b.members().len(), c.members().len()), (2, 2));
    assert_eq!(trial.engine.agents(), 20);
    let ends = witness.ends.lock().clone();
    assert_eq!(ends.len(), 10, "by one of the two");
    for end in ends {
        let key = AgentKey::from_bytes(end.agent.key);
        assert_eq!((&*end.reason, end.epoch), ("node_lost", lost.remove(&key)));
        // Since its last renewal.
        assert!((13_000..=15_200).contains(&end.lasted_ms), "{}", end.lasted_ms);
    }
    let noted =
        |node: &Node| node.core.router.telemetry.history.latest(Some(agents[0].key()), None, 9);
    let noted: Vec<_> = [&b, &c].into_iter().flat_map(noted).collect();
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].reason.as_deref(), Some("node_lost"));
}

#[tokio::test(start_paused = true)]
async fn a_burial_that_was_begun_is_finished_by_another() {
    let (trial, witness) = (Trial::new(), Arc::new(Witness::default()));
    let a = trial.node("a").await;
    let b = trial.judged_node("b", Arc::clone(&witness)).await;
    let member = a.joined().await;
    b.joined().await;
    let _agent = a.register(&Identity::generate()).await;
    sleep(2 * LEASE).await;
    a.kill();
    b.cut_off(true);
    sleep(LEASE).await;
    // A third one strikes it off, and dies over that.
    let undertaker = trial.node("c").await;
    let link = undertaker.joined().await;
    assert!(undertaker.cluster.joined().unwrap().link.strike(member, LEASE).await.unwrap());
    trial.engine.cut(link);
    undertaker.kill();
    assert_eq!((trial.engine.agents(), witness.ends.lock().len()), (1, 0));
    b.cut_off(false);
    sleep(3 * LEASE).await;
    assert_eq!(witness.reasons(), ["node_lost"]);
    assert_eq!(trial.engine.agents(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_buried_because_the_engine_was_away() {
    let (trial, witness) = (Trial::new(), Arc::new(Witness::default()));
    let a = trial.judged_node("a", Arc::clone(&witness)).await;
    let b = trial.judged_node("b", Arc::clone(&witness)).await;
    let agents = [a.register(&Identity::generate()).await, b.register(&Identity::generate()).await];
    a.joined().await;
    b.joined().await;
    for _ in 0..5 {
        trial.engine.set_away(true);
        sleep(2 * LEASE).await;
        trial.engine.set_away(false);
        sleep(Duration::from_secs(2)).await;
        assert_eq!((trial.engine.agents(), a.members().len(), b.members().len()), (2, 2, 2));
    }
    sleep(3 * LEASE).await;
    assert_eq!(witness.reasons(), [""; 0]);
    assert!(a.has(&agents[0]) && b.has(&agents[1]));
    // Who they were before has left nothing behind.
    assert_eq!((a.members().len(), a.cluster.members.load().iter().count()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_leaves_nothing_behind_and_is_not_buried() {
    let (trial, witness) = (Trial::new(), Arc::new(Witness::default()));
    let mut a = trial.node("a").await;
    let b = trial.judged_node("b", Arc::clone(&witness)).await;
    let mut agents = Vec::new();
    for _ in 0..10 {
        agents.push(a.register(&Identity::generate()).await);
    }
    let member = a.joined().await;
    b.joined().await;
    sleep(2 * LEASE).await;
    let ids = Identity::generate();
    let (stopped, draining) = tokio::join!(a.stop(), async {
        until("it is draining", || {
            b.cluster.members.load().get(member).is_some_and(|member| member.info.draining)
        })
        .await;
        b.register(&ids).await
    });
    let () = stopped;
    assert_eq!(trial.engine.agents(), 1);
    assert!(b.has(&draining));
    sleep(3 * LEASE).await;
    assert_eq!(witness.reasons(), [""; 0]);
    assert_eq!(b.members().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_is_taken_out_and_whoever_renews_is_described_anew() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let mut agent = node.register(&Identity::generate()).await;
    let first = trial.entry(&agent).unwrap();
    assert_eq!(first.agent.metadata.name.as_deref(), Some("first"));
    agent.register("second").await;
    agent.registered().await;
    let name = || trial.entry(&agent).unwrap().agent.metadata.name.clone();
    until("it is described anew", || name().as_deref() == Some("second")).await;
    assert_eq!(trial.entry(&agent).unwrap().epoch, first.epoch);
    agent.unregister().await;
    until("it is taken out", || trial.engine.agents() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_on_the_same_node_keeps_the_entry_up_to_date() {
    let trial = Trial::new();
    let nodes: [Node; 2] = trial.nodes().await;
    let me = Identity::generate();
    let mut agent = nodes[0].register(&me).await;
    let mut epoch = trial.entry(&agent).unwrap().epoch;
    for _ in 0..5 {
        let newer = nodes[0].register(&me).await;
        assert_eq!(agent.closed().await, 4003);
        let entry = trial.entry(&newer).unwrap();
        assert!(entry.epoch > std::mem::replace(&mut epoch, entry.epoch));
        agent = newer;
    }
    let newer = nodes[1].register(&me).await;
    assert_eq!(agent.closed().await, 4003);
    assert!(nodes[1].has(&newer) && !nodes[0].has(&newer));
}

#[tokio::test(start_paused = true)]
async fn the_newest_registration_counts_also_after_the_engines_clock_was_set_back() {
    let trial = Trial::new();
    let nodes: [Node; 2] = trial.nodes().await;
    let me = Identity::generate();
    let mut agent = nodes[0].register(&me).await;
    trial.engine.set_clock_back(Duration::from_secs(3600));
    for moves in 1..=4 {
        let newer = nodes[moves % 2].register(&me).await;
        assert_eq!(agent.closed().await, 4003);
        assert!(nodes[moves % 2].has(&newer));
        agent = newer;
    }
    assert_eq!(nodes[0].members().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_comes_back_as_a_new_member() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let agent = node.register(&Identity::generate()).await;
    let member = node.joined().await;
    tokio::time::advance(2 * LEASE).await;
    assert!(!node.cluster.is_trusted(), "it takes nothing from others");
    until("it is another member", || {
        node.cluster.joined().is_ok_and(|joined| joined.member != member)
    })
    .await;
    assert!(node.cluster.is_trusted());
    assert_eq!(trial.entry(&agent).unwrap().member, node.joined().await);
    sleep(LEASE).await;
    assert_eq!(node.cluster.members.load().iter().count(), 1, "the former one is off the roster");
}

#[tokio::test(start_paused = true)]
async fn two_nodes_of_one_name_are_noticed() {
    let trial = Trial::new();
    let (a, b) = (trial.node("same").await, trial.node("same").await);
    let c = trial.node("other").await;
    for node in [&a, &b, &c] {
        node.joined().await;
    }
    sleep(LEASE).await;
    assert_eq!(a.cluster.namesake().as_deref(), Some("same"));
    assert_eq!(b.cluster.namesake().as_deref(), Some("same"));
    assert_eq!(c.cluster.namesake(), None);
    b.kill();
    sleep(2 * LEASE).await;
    assert_eq!(a.cluster.namesake(), None);
}
