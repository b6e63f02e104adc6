//! What most tests of messages begin with.

use std::sync::Arc;

use conexus_protocol::{AgentKey, Identity};

use super::node::{Node, takes};
use crate::{cluster::memory::MemoryEngine, session::handle::SessionHandle};

/// Two nodes, an agent that sends on the first one, and one to whom it sends.
pub(super) struct Pair {
    pub(super) engine: MemoryEngine,
    pub(super) a: Node,
    pub(super) b: Node,
    /// On node a.
    pub(super) sender: Arc<SessionHandle>,
    pub(super) target: Identity,
}

impl Pair {
    pub(super) async fn new() -> Self {
        let engine = MemoryEngine::new();
        let (a, b) = (Node::start(&engine).await, Node::start(&engine).await);
        let sender = a.comes(&Identity::generate()).await;
        Self { engine, a, b, sender, target: Identity::generate() }
    }

    pub(super) fn key(&self) -> AgentKey {
        self.target.key()
    }

    pub(super) async fn sends(&self, texts: &[&str]) {
        for text in texts {
            self.a.sends(&self.sender, self.key(), text).await;
        }
    }

    /// What the sender was told, beside what it was sent.
    pub(super) fn complaints(&self) -> Vec<String> {
        takes(&self.sender)
    }

    pub(super) fn delivered_so_far(&self) -> u64 {
        self.a.counts().delivered
    }

    pub(super) fn assert_refused(&self, reason: &str, times: usize) {
        let complaints = self.complaints();
        assert_eq!(complaints.len(), times, "{complaints:?}");
        assert!(complaints.iter().all(|text| text.contains(reason)), "{complaints:?}");
        assert_eq!(self.a.refused(reason), times as u64);
        assert!(self.a.is_even(), "{:?}", self.a.counts());
    }
}
