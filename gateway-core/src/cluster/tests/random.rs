//! Whatever happens, in whichever order: each message ends once, and none overtakes another one.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use conexus_protocol::Identity;
use proptest::prelude::*;

use super::node::{Node, quiet, takes_some};
use crate::{cluster::memory::MemoryEngine, session::handle::SessionHandle};

const NODES: usize = 3;
const TARGETS: usize = 3;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Send {
        from: usize,
        to: usize,
        count: u32,
    },
    Move {
        target: usize,
        to: usize,
    },
    Leave {
        target: usize,
    },
    Take {
        target: usize,
        most: usize,
    },
    Quiet,
    Wait {
        millis: u64,
    },
    /// The link of a node fails; the next one comes at once.
    Cut {
        node: usize,
    },
    /// What comes to a node is lost, or is not any more.
    Deaf {
        node: usize,
        deaf: bool,
    },
    /// The engine is gone for a moment.
    Outage {
        millis: u64,
    },
    /// A node is a new member.
    Rejoin {
        node: usize,
    },
}

fn peaceful() -> impl Strategy<Value = Step> {
    let (node, target) = (0..NODES, 0..TARGETS);
    prop_oneof![
        6 => (node.clone(), target.clone(), 1..5_u32)
            .prop_map(|(from, to, count)| Step::Send { from, to, count }),
        3 => (target.clone(), node).prop_map(|(target, to)| Step::Move { target, to }),
        1 => target.clone().prop_map(|target| Step::Leave { target }),
        3 => (target, 1..9_usize).prop_map(|(target, most)| Step::Take { target, most }),
        3 => Just(Step::Quiet),
        1 => (1..2000_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

fn faulty() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        10 => peaceful(),
        1 => node.clone().prop_map(|node| Step::Cut { node }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, deaf)| Step::Deaf { node, deaf }),
        1 => (1..3000_u64).prop_map(|millis| Step::Outage { millis }),
        1 => node.prop_map(|node| Step::Rejoin { node }),
    ]
}

struct World {
    engine: MemoryEngine,
    nodes: Vec<Node>,
    senders: Vec<Arc<SessionHandle>>,
    targets: Vec<Target>,
    sent: u32,
}

struct Target {
    identity: Identity,
    at: Option<(usize, Arc<SessionHandle>)>,
    /// Of each sender.
    got: BTreeMap<usize, Vec<u32>>,
}

impl Target {
    fn takes(&mut self, most: usize) {
        let Some((_, session)) = &self.at else { return };
        for text in takes_some(session, most) {
            let (from, number) = text.split_once(' ').unwrap();
            self.got.entry(from.parse().unwrap()).or_default().push(number.parse().unwrap());
        }
    }
}

impl World {
    async fn new() -> Self {
        let engine = MemoryEngine::new();
        let (mut nodes, mut senders) = (Vec::new(), Vec::new());
        for _ in 0..NODES {
            let node = Node::start(&engine).await;
            senders.push(node.comes(&Identity::generate()).await);
            nodes.push(node);
        }
        let target = || Target { identity: Identity::generate(), at: None, got: BTreeMap::new() };
        let targets = std::iter::repeat_with(target).take(TARGETS).collect();
        Self { engine, nodes, senders, targets, sent: 0 }
    }

    async fn does(&mut self, step: Step) {
        match step {
            Step::Send { from, to, count } => {
                for _ in 0..count {
                    self.sent += 1;
                    let text = format!("{from} {}", self.sent);
                    let to = self.targets[to].identity.key();
                    self.nodes[from].sends(&self.senders[from], to, &text).await;
                }
            }
            Step::Move { target, to } => {
                let target = &mut self.targets[target];
                match target.at.take() {
                    Some((at, older)) if at == to => {
                        self.nodes[at].leaves(&older).await;
                        target.at = Some((to, self.nodes[to].comes(&target.identity).await));
                    }
                    older => {
                        target.at = Some((to, self.nodes[to].comes(&target.identity).await));
                        if let Some((at, older)) = older {
                            self.nodes[at].leaves(&older).await;
                        }
                    }
                }
            }
            Step::Leave { target } => {
                if let Some((at, session)) = self.targets[target].at.take() {
                    self.nodes[at].leaves(&session).await;
                }
            }
            Step::Take { target, most } => self.targets[target].takes(most),
            Step::Quiet => quiet().await,
            Step::Wait { millis } => tokio::time::sleep(Duration::from_millis(millis)).await,
            Step::Cut { node } => {
                self.engine.cut(self.nodes[node].member());
                quiet().await;
                self.nodes[node].join().await;
            }
            Step::Deaf { node, deaf } => self.nodes[node].deaf.store(deaf, Relaxed),
            Step::Outage { millis } => {
                self.engine.set_away(true);
                tokio::time::sleep(Duration::from_millis(millis)).await;
                self.engine.set_away(false);
                for node in &self.nodes {
                    node.join().await;
                }
            }
            Step::Rejoin { node } => self.nodes[node].rejoin().await,
        }
    }

    /// All faults end, and everybody takes what there is.
    async fn comes_to_rest(&mut self) {
        for node in &self.nodes {
            node.deaf.store(false, Relaxed);
        }
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for target in &mut self.targets {
                target.takes(usize::MAX);
            }
            quiet().await;
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for node in &self.nodes {
            prop_assert!(node.is_even(), "{:?}", node.counts());
            prop_assert!(node.delivery.is_settled());
            let lost = node.refused("abandoned");
            prop_assert_eq!(lost, 0, "each is told, or counted by whoever ends it");
        }
        let delivered: u64 = self.nodes.iter().map(|node| node.counts().delivered).sum();
        let got = self.targets.iter().flat_map(|target| &target.got);
        let got: usize = got.map(|(_, numbers)| numbers.len()).sum();
        prop_assert!(delivered <= got as u64, "{} delivered, {} got", delivered, got);
        for target in &self.targets {
            for numbers in target.got.values() {
                prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", numbers);
            }
        }
        Ok(())
    }
}

fn run(steps: Vec<Step>, may_refuse: bool) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        for step in steps {
            world.does(step).await;
        }
        world.comes_to_rest().await;
        if !may_refuse {
            for node in &world.nodes {
                prop_assert_eq!(node.counts().refused, 0, "{:?}", node.counts());
            }
        }
        world.check()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn without_faults_nothing_is_refused_and_all_keeps_its_order(
        steps in prop::collection::vec(peaceful(), 1..60),
    ) {
        run(steps, false)?;
    }

    #[test]
    fn whatever_fails_each_message_ends_once_and_none_overtakes_another(
        steps in prop::collection::vec(faulty(), 1..60),
    ) {
        run(steps, true)?;
    }
}
