//! The newest registration wins, wherever it is.

use std::time::Duration;

use conexus_protocol::{Envelope, Identity, MessageType, Rules};
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio_tungstenite::tungstenite::Message;

use super::{
    nodes::{Cluster, Node, Setup},
    talking::says,
};
use crate::support::{agent::Agent, scrape::Scrape};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_registers_on_another_node_is_replaced_on_the_older_one() {
    let cluster = Cluster::of(3).await;
    let mut others = Vec::new();
    for node in &cluster.nodes {
        others.push(node.agent().await);
    }
    let me = Identity::generate();
    let mut agent = cluster.nodes[0].agent_of(&me).await;
    for turn in 1..7 {
        for other in &mut others {
            says(other, &mut agent).await;
        }
        let newer = cluster.nodes[turn % 3].agent_of(&me).await;
        let mut older = std::mem::replace(&mut agent, newer);
        assert_eq!(older.close().await.0, 4003);
        // Whoever knew where it was sends to where it is now.
        for other in &mut others {
            says(other, &mut agent).await;
            says(&mut agent, other).await;
        }
    }
    cluster.lists(others.iter().chain([&agent])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_away_from_a_node_that_stands_still_waits_until_it_goes_on() {
    let setup = Setup { lease: Duration::from_secs(60), ..Setup::default() }
        .with("cluster.takeover_timeout=100ms");
    let cluster = Cluster::with(2, setup).await;
    let [frozen, other] = &cluster.nodes[..] else { unreachable!() };
    let me = Identity::generate();
    let mut older = frozen.agent_of(&me).await;
    frozen.process().signal("STOP").await;
    let mut newer = Contender::begin(other, &me).await;
    let name = "conexus_cluster_questions_total";
    Scrape::once(other.process(), "it to be asked more than once", |scrape| {
        scrape.count(name, &[("outcome", "unanswered")]) > 1
    })
    .await;
    // When it goes on it may hand the older session what it has for it.
    assert!(newer.agent.text().now_or_never().is_none());
    frozen.process().signal("CONT").await;
    assert_eq!(older.close().await.0, 4003);
    let mut agent = newer.registered().await;
    says(&mut other.agent().await, &mut agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_registrations_on_all_nodes_converge_to_one() {
    let cluster = Cluster::of(3).await;
    let mut others = Vec::new();
    for node in &cluster.nodes {
        others.push(node.agent().await);
    }
    for _ in 0..10 {
        let me = Identity::generate();
        let registering = cluster.nodes.iter().map(|node| Contender::begin(node, &me));
        let mut contenders = join_all(registering).await;
        // All but one are told that they are replaced; which one stays is nobody's promise.
        let mut ends: FuturesUnordered<_> =
            contenders.iter_mut().enumerate().map(|(at, it)| it.end().map(move |()| at)).collect();
        let mut ended = Vec::new();
        while ended.len() + 1 < cluster.nodes.len() {
            ended.push(ends.next().await.unwrap());
        }
        drop(ends);
        let stays = (0..contenders.len()).find(|at| !ended.contains(at)).unwrap();
        let mut agent = contenders.swap_remove(stays).registered().await;
        for other in &mut others {
            says(other, &mut agent).await;
            says(&mut agent, other).await;
        }
        cluster.lists(others.iter().chain([&agent])).await;
        drop(agent);
        cluster.lists(&others).await;
    }
}

/// One of several that register with one key.
struct Contender {
    agent: Agent,
    is_registered: bool,
}

impl Contender {
    /// Sends its REGISTER.
    async fn begin(node: &Node, me: &Identity) -> Self {
        let mut agent = node.connect(me).await;
        let (_, text) = agent.sign(me.did(), agent.registration());
        agent.send(text).await;
        Self { agent, is_registered: false }
    }

    /// Reads to its end, which has to be that it was replaced.
    async fn end(&mut self) {
        loop {
            match self.agent.frame().await {
                Ok(Message::Text(text)) => self.note(&text),
                Ok(Message::Close(Some(frame))) => return assert_eq!(u16::from(frame.code), 4003),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The one that stays.
    async fn registered(mut self) -> Agent {
        while !self.is_registered {
            let text = self.agent.text().await;
            self.note(&text);
        }
        self.agent
    }

    fn note(&mut self, text: &str) {
        let kind = Envelope::parse(text, Rules::V1_1).unwrap().kind;
        assert_eq!(kind, MessageType::Registered, "{text}");
        assert!(!self.is_registered, "once");
        self.is_registered = true;
    }
}
