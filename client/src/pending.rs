//! The messages whose answers somebody waits for.

use std::collections::HashMap;

use conexus_protocol::{AgentKey, Message, MessageType, Subprotocol};
use tokio::sync::oneshot;

use crate::{
    Refusal,
    incoming::{Incoming, Origin},
};

/// What became of a message.
pub(crate) type Answer = Result<Message, Box<Refusal>>;

/// Forget abandoned entries when this many are kept, and each time their number doubles.
const FIRST_SWEEP: usize = 64;

#[derive(Debug)]
struct Waiting {
    /// Who may answer beside the gateway.
    peer: Option<AgentKey>,
    answer: oneshot::Sender<Answer>,
}

/// By message id: who waits. Dropping it tells them that the connection is lost.
#[derive(Debug)]
pub(crate) struct Pending {
    subprotocol: Subprotocol,
    waiting: HashMap<String, Waiting>,
    sweep_at: usize,
}

impl Pending {
    pub(crate) fn new(subprotocol: Subprotocol) -> Self {
        Self { subprotocol, waiting: HashMap::new(), sweep_at: FIRST_SWEEP }
    }

    pub(crate) fn insert(
        &mut self,
        id: String,
        peer: Option<AgentKey>,
        answer: oneshot::Sender<Answer>,
    ) {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|_, waiting| !waiting.answer.is_closed());
            self.sweep_at = FIRST_SWEEP.max(self.waiting.len() * 2);
        }
        self.waiting.insert(id, Waiting { peer, answer });
    }

    /// Gives the message to the one who waits for it, or back when nobody does.
    pub(crate) fn claim(&mut self, incoming: Incoming) -> Option<Incoming> {
        let Some(waiting) = self.answered_by(&incoming) else { return Some(incoming) };
        let answer = match Refusal::read(&incoming.message) {
            Some(refusal) => Err(Box::new(refusal)),
            None => Ok(incoming.message),
        };
        let origin = incoming.origin;
        // Whoever gave up waiting learns of the answer as of any other message.
        match waiting.answer.send(answer) {
            Ok(()) | Err(Err(_)) => None,
            Err(Ok(message)) => Some(Incoming { message, origin }),
        }
    }

    fn answered_by(&mut self, incoming: &Incoming) -> Option<Waiting> {
        let id = incoming.message.correlation_id.as_deref()?;
        let peer = self.waiting.get(id)?.peer;
        let entitled = match incoming.origin {
            Origin::Gateway => true,
            Origin::Agent(key) => Some(key) == peer || self.may_be_gateway(&incoming.message),
        };
        entitled.then(|| self.waiting.remove(id))?
    }

    /// On `ioap.v1` the gateway's key is not known. An id is known to its recipient alone, so
    /// nobody else can pose as the gateway here.
    fn may_be_gateway(&self, message: &Message) -> bool {
        self.subprotocol == Subprotocol::V1
            && matches!(message.kind(), MessageType::Error | MessageType::Pong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conexus_protocol::{Answer as AnswerPayload, Draft, Identity, Rules};

    fn answer(from: &Identity, id: &str) -> Incoming {
        let draft = Draft::new("did:key:any", AnswerPayload { sdp: "v=0".into() }).in_reply_to(id);
        let message = Message::parse(&draft.sign(from), Rules::V1_1).unwrap();
        Incoming { message, origin: Origin::Agent(from.key()) }
    }

    #[test]
    fn only_the_recipient_and_the_gateway_may_answer() {
        let (peer, other) = (Identity::generate(), Identity::generate());
        let mut pending = Pending::new(Subprotocol::V1_1);
        let (sender, mut receiver) = oneshot::channel();
        pending.insert("1".into(), Some(peer.key()), sender);

        assert!(pending.claim(answer(&peer, "2")).is_some(), "another id");
        assert!(pending.claim(answer(&other, "1")).is_some(), "another sender");
        assert!(receiver.try_recv().is_err());
        assert!(pending.claim(answer(&peer, "1")).is_none());
        assert_eq!(receiver.try_recv().unwrap().unwrap().from, peer.did());
        assert!(pending.claim(answer(&peer, "1")).is_some(), "answered already");
    }

    #[test]
    fn an_answer_after_the_timeout_is_an_ordinary_message() {
        let peer = Identity::generate();
        let mut pending = Pending::new(Subprotocol::V1_1);
        pending.insert("1".into(), Some(peer.key()), oneshot::channel().0);
        assert!(pending.claim(answer(&peer, "1")).is_some());
        assert!(pending.waiting.is_empty());
    }

    #[test]
    fn abandoned_entries_are_swept() {
        let mut pending = Pending::new(Subprotocol::V1_1);
        for id in 0..10 * FIRST_SWEEP {
            pending.insert(id.to_string(), None, oneshot::channel().0);
        }
        assert!(pending.waiting.len() <= FIRST_SWEEP);
    }
}
