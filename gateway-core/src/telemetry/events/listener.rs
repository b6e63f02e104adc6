//! One who listens: what it gets, and what it missed.

use std::sync::Arc;

use bytes::Bytes;
use conexus_protocol::AgentKey;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    frame::{LAGGED, Lagged, Published, frame},
    registry::TooManyListeners,
    topics::{Topic, Topics},
};
use crate::telemetry::Telemetry;

/// One who listens, until dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    telemetry: Arc<Telemetry>,
    topics: Topics,
    agent: Option<AgentKey>,
    events: Receiver<Arc<Published>>,
    messages: Receiver<Arc<Published>>,
}

impl Telemetry {
    /// Listens to topics; where an agent is named, only to what is about it or about nobody. The
    /// messages are that agent's, and without one there are none.
    pub(crate) fn listen(
        self: &Arc<Self>,
        topics: Topics,
        agent: Option<AgentKey>,
    ) -> Result<Listener, TooManyListeners> {
        let [events, messages] = self.hub.enter(topics, agent)?;
        Ok(Listener { telemetry: Arc::clone(self), topics, agent, events, messages })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.telemetry.hub.leave(self.topics, self.agent);
    }
}

impl Listener {
    /// The next frame. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            let Self { topics, events, messages, .. } = self;
            let received = tokio::select! {
                received = events.recv() => received,
                received = messages.recv(), if topics.contains(Topic::Message) => received,
            };
            match received {
                Ok(event) if self.wants(&event) => return event.frame.clone(),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    return frame(LAGGED, &Lagged { missed }).unwrap_or_default();
                }
                // The hub lives as long as its listeners.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    fn wants(&self, event: &Published) -> bool {
        let is_about = |agent| event.about == [None, None] || event.about.contains(&Some(agent));
        self.topics.contains(event.topic) && self.agent.is_none_or(is_about)
    }
}
