//! What hooks reach of the gateway: who is present, a message to one of them, the end of one.
//!
//! Called from within hooks, so from within decisions, wherever those are asked for: nothing here
//! waits unless it says so, and nobody asks policy anything while holding a lock that is taken here.
//! Who is not on this node may be [elsewhere] in its cluster.

pub(crate) mod elsewhere;

use std::sync::Arc;

use conexus_plugin_api::{
    Agent, AgentFilter, MAX_AGENTS,
    host::{Refused, StateError},
};
use conexus_protocol::{AgentKey, CloseReason, MessageType, Payload, Rules};
use futures_util::future::BoxFuture;

use crate::{
    core::Core,
    hooks::{SharedState, World},
    session::{
        handle::SessionHandle,
        inbound::is_between_agents,
        outbox::{self, Order, Parcel},
    },
    voice::{MAX_ERROR_BYTES, spoken},
};

/// What a close frame holds beside its code (RFC 6455, 5.5).
const MAX_CLOSE_TEXT: usize = 123;

impl World for Core {
    fn node_id(&self) -> Option<Arc<str>> {
        Some(self.node_id.as_str().into())
    }

    fn agent(&self, key: AgentKey) -> Option<Arc<Agent>> {
        let here = self.router.presence.facts(key, self.clock.now());
        here.or_else(|| elsewhere::remembered(self, key))
    }

    fn find_agent(&self, key: AgentKey) -> BoxFuture<'_, Result<Option<Arc<Agent>>, StateError>> {
        Box::pin(elsewhere::find(self, key))
    }

    fn find_agents<'a>(
        &'a self,
        filter: &'a AgentFilter,
    ) -> BoxFuture<'a, Result<Vec<Arc<Agent>>, StateError>> {
        Box::pin(elsewhere::search(self, filter))
    }

    fn agents(&self, filter: &AgentFilter) -> Vec<Arc<Agent>> {
        let limit = match filter.limit {
            0 => MAX_AGENTS,
            limit => limit.min(MAX_AGENTS),
        };
        let wanted = |session: &SessionHandle| filter.wants(&session.facts());
        let page = self.router.presence.page(None, limit, self.clock.now(), wanted);
        page.agents.iter().map(|session| session.facts()).collect()
    }

    fn shared_state(&self) -> Option<SharedState> {
        self.cluster.as_ref().map(SharedState::of)
    }

    fn send(&self, to: AgentKey, kind: &str, payload: &str) -> Result<(), Refused> {
        let kind = MessageType::parse(kind)
            .filter(|kind| is_between_agents(*kind))
            .ok_or_else(|| Refused::Invalid("not a type that agents send each other".into()))?;
        let most = match kind {
            MessageType::Error => MAX_ERROR_BYTES,
            _ => self.settings.limits.message_bytes,
        };
        let too_large = || Refused::Invalid(format!("over {most} bytes"));
        if payload.len() > most {
            return Err(too_large());
        }
        // What v1 allows, every agent understands.
        let payload = Payload::parse(kind, payload, Rules::V1_STRICT)
            .map_err(|fault| Refused::Invalid(fault.to_string()))?;
        let (router, now) = (&self.router, self.clock.now());
        let text = match (self.agent(to), &self.cluster) {
            (Some(agent), _) => router.voice.say(&agent.did, None, payload),
            // It may be on another node all the same.
            (None, Some(_)) => router.voice.say(&to.did(), None, payload),
            (None, None) => return Err(Refused::Absent),
        };
        if text.len() > most {
            return Err(too_large());
        }
        let offered = router.presence.offer_aside(to, Parcel::Word(text), now);
        offered.map_err(|refused| match refused {
            outbox::Refused::Full(_) => Refused::Full,
            outbox::Refused::Closed(_) => Refused::Absent,
        })
    }

    fn disconnect(&self, key: AgentKey, reason: &str) -> bool {
        match self.router.presence.live(key, self.clock.now()) {
            Some(session) => dismiss(&session, CloseReason::Denied, reason),
            None => elsewhere::disconnect(self, key, reason),
        }
    }
}

/// Has a session closed, with what may be said of the reason; false when it is ending already.
pub(crate) fn dismiss(session: &SessionHandle, close: CloseReason, reason: &str) -> bool {
    let text = match spoken(reason) {
        text if text.is_empty() => close.reason().to_owned(),
        text => cut(text, MAX_CLOSE_TEXT),
    };
    session.outbox.order(Order::Close(close, text))
}

/// At most so many bytes of a text, as whole characters.
fn cut(mut text: String, most: usize) -> String {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=most.min(text.len())).rev().find(fits).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("short".into(), 123), "short");
        assert_eq!(cut("x".repeat(200), 123).len(), 123);
        assert_eq!(cut("é".repeat(200), 123), "é".repeat(61));
    }
}
