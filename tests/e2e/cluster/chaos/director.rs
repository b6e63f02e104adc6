//! Has things fail, a round after the other, and waits after each until they work again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_protocol::Identity;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::time::sleep;

use super::{LEASE, Mood, NODES, Stage, book::Connected, figures::Times};
use crate::{
    cluster::nodes::{Cluster, Node},
    support::fault_proxy::Network,
};

/// How long it may take until all is well again: far longer than it does on a quiet machine, which is
/// what the figures say.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing is wrong between two rounds.
const CALM: Duration = Duration::from_millis(400);

/// What fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// A node is killed, and started anew.
    Kill(usize),
    /// A node stands still.
    Stop(usize),
    /// The way between a node and Redis fails.
    Network(usize, Network),
    /// Redis is killed, and started with nothing.
    RestartRedis,
    /// Redis stands still.
    StopRedis,
}

impl Fault {
    /// Which node it is about, if it is about one.
    const fn node(self) -> Option<usize> {
        match self {
            Self::Kill(node) | Self::Stop(node) | Self::Network(node, _) => Some(node),
            Self::RestartRedis | Self::StopRedis => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "node killed",
            Self::Stop(_) => "node stopped",
            Self::Network(_, Network::Cut) => "node cut off",
            Self::Network(_, Network::Silent) => "node's network silent",
            Self::Network(..) => "node's network slow",
            Self::RestartRedis => "redis restarted empty",
            Self::StopRedis => "redis stopped",
        }
    }
}

const KINDS: usize = 7;

/// See the [module](self).
pub(super) struct Director {
    cluster: Cluster,
    stage: Arc<Stage>,
    rng: StdRng,
    /// Kinds of faults that are next, so that each has its turn.
    next: Vec<usize>,
    history: Vec<String>,
    /// From the end of a fault until everybody is there for everybody, by what failed.
    convergence: BTreeMap<&'static str, Times>,
    /// From a kill until the node's agents were gone everywhere.
    gone: Times,
}

impl Director {
    pub(super) fn new(cluster: Cluster, stage: Arc<Stage>) -> Self {
        Self {
            cluster,
            rng: StdRng::seed_from_u64(stage.seed),
            stage,
            next: Vec::new(),
            history: Vec::new(),
            convergence: BTreeMap::new(),
            gone: Times::default(),
        }
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.cluster.nodes
    }

    pub(super) fn agents(&self) -> &[Identity] {
        &self.stage.agents
    }

    pub(super) fn history(&self) -> &[String] {
        &self.history
    }

    pub(super) fn figures(&self) -> String {
        let mut told = format!("agents of killed nodes gone: {}, lease {LEASE:?}\n", self.gone);
        for (kind, times) in &self.convergence {
            told += &format!("all well after {kind}: {times}\n");
        }
        told
    }

    fn notes(&mut self, what: &str) {
        let at = self.stage.book.at(Instant::now());
        let clock = conexus_protocol::Timestamp::now();
        let line = format!("{at:8.3} {clock} {what}");
        println!("{line}");
        self.history.push(line);
    }

    fn mood(&self, mood: Mood) {
        self.stage.mood.send_replace(mood);
    }

    /// Shows agents where nodes are.
    fn opens(&self, node: usize) {
        let addr = self.cluster.nodes[node].process().addr;
        self.stage.addresses.lock().unwrap()[node] = Some(addr);
    }

    pub(super) async fn begin(&mut self) {
        (0..NODES).for_each(|node| self.opens(node));
        self.converges("start").await;
    }

    /// Everybody says no more, and hears what is left.
    pub(super) async fn end(&mut self) {
        self.mood(Mood::Silent);
        self.stage.book.closes();
        let deadline = Instant::now() + PATIENCE;
        while self.stage.book.open() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Something fails, and is mended.
    pub(super) async fn round(&mut self) {
        self.mood(Mood::Wild);
        self.waits(300..1500).await;
        let first = self.chooses();
        let second = self.rng.random_ratio(1, 3).then(|| self.chooses());
        let kind = match second {
            Some(second) if second.node() != first.node() => {
                let trouble = self.strikes(first).await;
                self.waits(0..700).await;
                let more = self.strikes(second).await;
                self.waits(100..2000).await;
                self.mends(first, trouble).await;
                self.waits(0..700).await;
                self.mends(second, more).await;
                "two at once"
            }
            _ => {
                let trouble = self.strikes(first).await;
                if matches!(first, Fault::Kill(_)) && self.rng.random_ratio(2, 3) {
                    self.are_gone().await;
                } else {
                    self.waits(50..2500).await;
                }
                self.mends(first, trouble).await;
                first.name()
            }
        };
        self.mood(Mood::Calm);
        self.converges(kind).await;
        self.former_members_are_gone().await;
        self.is_calm().await;
    }

    async fn waits(&mut self, milliseconds: std::ops::Range<u64>) {
        let time = Duration::from_millis(self.rng.random_range(milliseconds));
        sleep(time).await;
    }

    fn chooses(&mut self) -> Fault {
        if self.next.is_empty() {
            self.next.extend(0..KINDS);
            self.next.shuffle(&mut self.rng);
        }
        let node = self.rng.random_range(0..NODES);
        match self.next.pop().expect("just filled") {
            0 => Fault::Kill(node),
            1 => Fault::Stop(node),
            2 => Fault::Network(node, Network::Cut),
            3 => Fault::Network(node, Network::Silent),
            4 => {
                let delay = Duration::from_millis(self.rng.random_range(5..200));
                Fault::Network(node, Network::Slow(delay))
            }
            5 => Fault::RestartRedis,
            _ => Fault::StopRedis,
        }
    }

    async fn strikes(&mut self, fault: Fault) -> usize {
        self.notes(&format!("{fault:?} begins"));
        let forgets = matches!(fault, Fault::RestartRedis);
        let trouble = self.stage.book.trouble_begins(fault.node(), forgets);
        match fault {
            Fault::Kill(node) => {
                self.stage.addresses.lock().unwrap()[node] = None;
                self.cluster.nodes[node].kill().await;
            }
            Fault::Stop(node) => self.cluster.nodes[node].process().signal("STOP").await,
            Fault::Network(node, network) => self.cluster.nodes[node].network.set(network),
            Fault::RestartRedis => self.cluster.redis.kill(),
            Fault::StopRedis => self.cluster.redis.pause(),
        }
        trouble
    }

    async fn mends(&mut self, fault: Fault, trouble: usize) {
        match fault {
            Fault::Kill(node) => {
                self.cluster.nodes[node].run().await;
                self.opens(node);
            }
            Fault::Stop(node) => self.cluster.nodes[node].process().signal("CONT").await,
            Fault::Network(node, _) => self.cluster.nodes[node].network.set(Network::Open),
            Fault::RestartRedis => self.cluster.redis.start_again(),
            Fault::StopRedis => self.cluster.redis.resume(),
        }
        self.stage.book.trouble_ends(trouble);
        self.notes(&format!("{fault:?} is over"));
    }

    /// Waits until nobody lists the agents of a node that was just killed; those who were there stay
    /// away meanwhile, and nobody else moves.
    async fn are_gone(&mut self) {
        self.mood(Mood::Still);
        let began = Instant::now();
        while !self.lists_are_right().await {
            if began.elapsed() > PATIENCE {
                let shown = self.shows().await;
                return self.stage.book.violation(format!("ghosts: {shown}"));
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.gone.push(began.elapsed());
        self.notes(&format!("gone after {:?}", began.elapsed()));
    }

    /// Waits until everybody is connected once, and every node knows it.
    async fn converges(&mut self, kind: &'static str) {
        let began = Instant::now();
        loop {
            let connected = self.stage.book.connected();
            if connected.iter().all(|sessions| sessions.len() == 1) && self.lists_are_right().await
            {
                break;
            }
            if began.elapsed() > PATIENCE {
                let shown = self.shows().await;
                return self.stage.book.violation(format!("not well after {kind}: {shown}"));
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.convergence.entry(kind).or_default().push(began.elapsed());
        self.notes(&format!("all well after {:?}", began.elapsed()));
    }

    /// Whether each node that runs lists exactly those who are connected.
    async fn lists_are_right(&self) -> bool {
        let expected = self.expected();
        for node in self.cluster.nodes.iter().filter(|node| node.is_running()) {
            if node.listed().await != (expected.clone(), true) {
                return false;
            }
        }
        expected == self.expected()
    }

    fn expected(&self) -> BTreeSet<String> {
        let connected = self.stage.book.connected();
        let is_there = |open: &Vec<Connected>| open.iter().any(|one| one.is_registered);
        let agents = connected.iter().zip(&self.stage.agents);
        let there = agents.filter(|(open, _)| is_there(open));
        there.map(|(_, agent)| agent.did().to_owned()).collect()
    }

    /// Who is where, and who lists whom.
    async fn shows(&self) -> String {
        let number = |did: &String| self.stage.agents.iter().position(|agent| agent.did() == did);
        let mut told = format!("connected {:?}", self.stage.book.connected());
        for node in self.cluster.nodes.iter().filter(|node| node.is_running()) {
            let (listed, whole) = node.listed().await;
            let listed: BTreeSet<_> = listed.iter().map(number).collect();
            let expected = self.expected();
            let expected: BTreeSet<_> = expected.iter().map(number).collect();
            let (missing, ghosts): (Vec<_>, Vec<_>) =
                (expected.difference(&listed).collect(), listed.difference(&expected).collect());
            told += &format!("; {} (whole: {whole}) lacks {missing:?}, has {ghosts:?}", node.name);
        }
        told
    }

    /// Waits until no node has anybody on its roster who is no more: what others still send to the member that a
    /// node was before it stood still is refused until then.
    async fn former_members_are_gone(&self) {
        let began = Instant::now();
        while !self.rosters_are_right().await {
            if began.elapsed() > PATIENCE {
                return self.stage.book.violation("a member that is no more is never gone".into());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether each node reaches all others, and knows of nobody else.
    async fn rosters_are_right(&self) -> bool {
        for node in &self.cluster.nodes {
            let known = node.known().await;
            if known.len() != NODES || known.iter().any(|node| node["reachable"] != true) {
                return false;
            }
        }
        true
    }

    /// For a while nothing is wrong, and everything arrives.
    async fn is_calm(&self) {
        let book = &self.stage.book;
        let from = Instant::now();
        sleep(CALM).await;
        let to = Instant::now();
        loop {
            let (waiting, refused) = book.calm(from, to);
            if !refused.is_empty() {
                book.violation(format!("refused though nothing was wrong: {refused:?}"));
            }
            if waiting == 0 || !refused.is_empty() {
                return;
            }
            if to.elapsed() > PATIENCE {
                return book.violation(format!("{waiting} of a calm time have not arrived"));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}
