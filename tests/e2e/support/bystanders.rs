//! Two agents that go on talking whatever a third one does.

use conexus_protocol::Subprotocol;

use super::{agent::Agent, gateway::TestGateway};

/// Two registered agents, one of each subprotocol.
pub(crate) struct Bystanders {
    older: Agent,
    newer: Agent,
}

impl Bystanders {
    pub(crate) async fn register(gateway: &TestGateway) -> Self {
        Self {
            older: Agent::registered(gateway, Subprotocol::V1).await,
            newer: Agent::registered(gateway, Subprotocol::V1_1).await,
        }
    }

    /// An OFFER each way, delivered to the letter and as the next thing that arrives.
    pub(crate) async fn exchange(&mut self) {
        let Self { older, newer } = self;
        let (_, there) = older.send_offer(&newer.did(), "are you still there?").await;
        assert_eq!(newer.text().await, there);
        let (_, back) = newer.send_offer(&older.did(), "I am.").await;
        assert_eq!(older.text().await, back);
    }
}
