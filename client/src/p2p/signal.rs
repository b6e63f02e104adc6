//! What agents say to each other on the way to a connection, once it is proven to be theirs and to us.
//!
//! The only maker is [`Signal::read`]; its caller has verified the signature. What is left to judge is
//! whether it is new (`freshness`) and what it is about (`negotiation`).

use conexus_protocol::{AgentKey, IceCandidate, Message, Payload, Timestamp};

/// A message about a connection, of an agent, to us.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Signal {
    pub(crate) key: AgentKey,
    /// The sender, as it spells itself.
    pub(crate) from: String,
    pub(crate) id: String,
    pub(crate) correlation_id: Option<String>,
    pub(crate) written: Option<Timestamp>,
    pub(crate) word: Word,
}

/// What it says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Word {
    /// A description that asks.
    Offer(String),
    /// A description that answers.
    Answer(String),
    Candidate(IceCandidate),
}

/// Why a message about a connection does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSignal {
    /// Of another type.
    OtherType,
    /// Signed for somebody else, and passed on.
    NotForUs,
}

impl Signal {
    /// Reads a message whose signature is proven to be that of `key`.
    pub(crate) fn read(message: &Message, key: AgentKey, us: AgentKey) -> Result<Self, NoSignal> {
        let word = match &message.payload {
            Payload::Offer(offer) => Word::Offer(offer.sdp.clone()),
            Payload::Answer(answer) => Word::Answer(answer.sdp.clone()),
            Payload::IceCandidate(candidate) => Word::Candidate(candidate.clone()),
            _ => return Err(NoSignal::OtherType),
        };
        if !is_for(message, us) {
            return Err(NoSignal::NotForUs);
        }
        Ok(Self {
            key,
            from: message.from.clone(),
            id: message.id.clone(),
            correlation_id: message.correlation_id.clone(),
            written: message.timestamp,
            word,
        })
    }
}

/// Whether a message is addressed to this key, in either spelling of its DID.
pub(crate) fn is_for(message: &Message, us: AgentKey) -> bool {
    AgentKey::parse_did(&message.to).is_ok_and(|to| to == us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use conexus_protocol::{Draft, Identity, Offer, Ping, Rules};

    fn message(to: &str, payload: impl Into<Payload>) -> Message {
        let text = Draft::new(to, payload).sign(&Identity::from_seed(&[1; 32]));
        Message::parse(&text, Rules::V1_1).unwrap()
    }

    #[test]
    fn what_was_signed_for_somebody_else_is_refused() {
        let us = Identity::from_seed(&[2; 32]);
        let offer = || Offer { sdp: "v=0".into() };
        let key = Identity::from_seed(&[1; 32]).key();
        for (to, is_ours) in [
            (us.key().did(), true),
            (us.key().legacy_did(), true),
            (Identity::from_seed(&[3; 32]).did().to_owned(), false),
            ("did:key:gateway".to_owned(), false),
            ("bob".to_owned(), false),
        ] {
            let read = Signal::read(&message(&to, offer()), key, us.key());
            match is_ours {
                true => assert_eq!(read.unwrap().word, Word::Offer("v=0".into()), "{to}"),
                false => assert_eq!(read.unwrap_err(), NoSignal::NotForUs, "{to}"),
            }
        }
        let ping = message(us.did(), Ping::default());
        assert_eq!(Signal::read(&ping, key, us.key()).unwrap_err(), NoSignal::OtherType);
    }
}
