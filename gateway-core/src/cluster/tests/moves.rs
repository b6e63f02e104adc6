//! What becomes of a stream of messages while its target moves.

use std::sync::Arc;

use conexus_protocol::Identity;

use super::node::{Node, quiet, takes, takes_some};
use crate::{cluster::memory::MemoryEngine, session::handle::SessionHandle};

/// Three nodes, a sender on the first, and a target that moves about.
struct World {
    nodes: [Node; 3],
    sender: Arc<SessionHandle>,
    target: Arc<Identity>,
    sent: u32,
    got: Vec<u32>,
}

impl World {
    async fn new() -> Self {
        let engine = MemoryEngine::new();
        let nodes =
            [Node::start(&engine).await, Node::start(&engine).await, Node::start(&engine).await];
        let sender = nodes[0].comes(&Identity::generate()).await;
        Self { nodes, sender, target: Arc::new(Identity::generate()), sent: 0, got: Vec::new() }
    }

    async fn sends(&mut self, count: u32) {
        for _ in 0..count {
            self.sent += 1;
            let text = self.sent.to_string();
            self.nodes[0].sends(&self.sender, self.target.key(), &text).await;
        }
    }

    fn gets(&mut self, session: &SessionHandle, most: usize) {
        let texts = takes_some(session, most);
        self.got.extend(texts.into_iter().map(|text| text.parse::<u32>().unwrap()));
    }

    fn assert_all_in_order(&self) {
        assert_eq!(self.got, (1..=self.sent).collect::<Vec<_>>());
        let counts = self.nodes[0].counts();
        assert_eq!(counts.delivered, u64::from(self.sent), "{counts:?}");
        assert!(self.nodes[0].is_even(), "{counts:?}");
        assert!(takes(&self.sender).is_empty(), "nothing was refused");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_follows_its_target_from_node_to_node_and_home() {
    let mut world = World::new().await;
    let me = Arc::clone(&world.target);
    let mut session = world.nodes[1].comes(&me).await;
    let mut at = 1;
    for to in [2, 0, 1, 0, 2, 1] {
        world.sends(5).await;
        quiet().await;
        world.gets(&session, 2);
        world.sends(3).await;
        // It registers elsewhere before its older session knows.
        let newer = world.nodes[to].comes(&me).await;
        world.sends(3).await;
        quiet().await;
        world.nodes[at].leaves(&session).await;
        world.sends(3).await;
        quiet().await;
        (session, at) = (newer, to);
        world.gets(&session, usize::MAX);
    }
    quiet().await;
    world.gets(&session, usize::MAX);
    quiet().await;
    world.assert_all_in_order();
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_older_node_goes_ahead_of_what_the_newer_one_gets() {
    let mut world = World::new().await;
    let me = Arc::clone(&world.target);
    let far = world.nodes[1].comes(&me).await;
    world.sends(3).await;
    quiet().await;
    // Here again, while three are under way: nothing overtakes them.
    let near = world.nodes[0].comes(&me).await;
    world.sends(2).await;
    quiet().await;
    assert!(near.outbox.is_empty());
    world.nodes[1].leaves(&far).await;
    quiet().await;
    world.sends(1).await;
    world.gets(&near, usize::MAX);
    world.assert_all_in_order();
}

#[tokio::test(start_paused = true)]
async fn mail_comes_ahead_of_what_is_in_a_lane_when_its_agent_comes_home() {
    let mut world = World::new().await;
    let me = Arc::clone(&world.target);
    world.sends(2).await;
    quiet().await;
    assert_eq!(world.nodes[0].counts().held, 2);
    // The directory is being asked for this one.
    world.sends(1).await;
    let near = world.nodes[0].comes(&me).await;
    world.sends(1).await;
    quiet().await;
    world.gets(&near, usize::MAX);
    world.assert_all_in_order();
}

#[tokio::test(start_paused = true)]
async fn what_a_session_leaves_behind_follows_its_agent_to_another_node() {
    let mut world = World::new().await;
    let me = Arc::clone(&world.target);
    let near = world.nodes[0].comes(&me).await;
    world.sends(3).await;
    world.gets(&near, 1);
    let far = world.nodes[1].comes(&me).await;
    world.nodes[0].leaves(&near).await;
    world.sends(2).await;
    quiet().await;
    world.gets(&far, usize::MAX);
    quiet().await;
    world.assert_all_in_order();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_anew_gets_what_is_sent_to_it_then() {
    let mut world = World::new().await;
    let me = Arc::clone(&world.target);
    let far = world.nodes[1].comes(&me).await;
    world.sends(2).await;
    quiet().await;
    world.gets(&far, usize::MAX);
    quiet().await;
    world.nodes[1].rejoin().await;
    world.sends(2).await;
    quiet().await;
    world.gets(&far, usize::MAX);
    quiet().await;
    world.assert_all_in_order();
}
