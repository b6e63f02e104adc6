//! Judging what arrives: is it a message, and is it its sender's word?
//!
//! The gateway speaks under the key of its CHALLENGE, agents under the key in their DID. A
//! v1 gateway has neither: what it says itself, ERROR and PONG, carries a name without a key
//! and is taken as it is. No agent can have such a name.

use conexus_protocol::{
    AgentId, AgentKey, Envelope, Malformed, Message, MessageType, Rules, SignatureError,
    Subprotocol,
};

use crate::{ClientError, UnverifiedReason};

/// Whom to believe on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    pub(crate) rules: Rules,
    /// The sender of CHALLENGE; none on `ioap.v1`.
    pub(crate) gateway: Option<AgentId>,
    /// Whether agents' signatures are checked. The gateway's always is.
    pub(crate) verify_agents: bool,
    /// Whether agents' messages may have the reference client's quirks on any session: the
    /// gateway forwards them to the letter.
    pub(crate) tolerate_quirks: bool,
}

/// Who said it, as far as that is proven (or verification is off).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Gateway,
    /// On `ioap.v1` the gateway may be behind this as well.
    Agent(AgentKey),
}

/// A message, and who is behind it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Message,
    pub(crate) origin: Origin,
}

impl Trust {
    pub(crate) fn judge(&self, text: &str) -> Result<Incoming, ClientError> {
        let envelope = self.parse(text).map_err(ClientError::MalformedMessage)?;
        let origin = self.origin(&envelope).map_err(|reason| ClientError::UnverifiedMessage {
            from: envelope.from.to_string(),
            id: envelope.id.to_string(),
            reason,
        })?;
        let message = Message::try_from(&envelope).map_err(ClientError::MalformedMessage)?;
        Ok(Incoming { message, origin })
    }

    fn parse<'a>(&self, text: &'a str) -> Result<Envelope<'a>, Malformed> {
        Envelope::parse(text, self.rules).or_else(|malformed| match self.other_rules() {
            Some(rules) => Envelope::parse(text, rules).map_err(|_| malformed),
            None => Err(malformed),
        })
    }

    fn origin(&self, envelope: &Envelope<'_>) -> Result<Origin, UnverifiedReason> {
        let sender = match AgentId::parse(&envelope.from) {
            Ok(sender) => sender,
            Err(_) if self.is_keyless_gateway(envelope) => return Ok(Origin::Gateway),
            Err(error) => return Err(UnverifiedReason::Sender(error)),
        };
        if let Some(gateway) = &self.gateway {
            if gateway.key() == sender.key() {
                verify(envelope, gateway)?;
                return Ok(Origin::Gateway);
            }
            if is_the_gateways(envelope.kind) {
                return Err(UnverifiedReason::NotTheGateway);
            }
        }
        if self.verify_agents {
            self.verify_agent(envelope, &sender)?;
        }
        Ok(Origin::Agent(sender.key()))
    }

    /// Checks an agent's signature where `judge` was told not to.
    #[cfg(feature = "p2p")]
    pub(crate) fn prove(&self, message: &Message) -> Result<(), ClientError> {
        if self.verify_agents {
            return Ok(());
        }
        let envelope = self.parse(&message.text).map_err(ClientError::MalformedMessage)?;
        let sender = AgentId::parse(&envelope.from).map_err(UnverifiedReason::Sender);
        sender.and_then(|sender| self.verify_agent(&envelope, &sender)).map_err(|reason| {
            let (from, id) = (message.from.clone(), message.id.clone());
            ClientError::UnverifiedMessage { from, id, reason }
        })
    }

    fn is_keyless_gateway(&self, envelope: &Envelope<'_>) -> bool {
        self.rules.subprotocol == Subprotocol::V1
            && matches!(envelope.kind, MessageType::Error | MessageType::Pong)
    }

    fn verify_agent(
        &self,
        envelope: &Envelope<'_>,
        sender: &AgentId,
    ) -> Result<(), UnverifiedReason> {
        let verdict = verify(envelope, sender);
        let (Err(UnverifiedReason::Signature(_)), Some(rules)) = (&verdict, self.other_rules())
        else {
            return verdict;
        };
        match Envelope::parse(envelope.text(), rules) {
            Ok(envelope) => verify(&envelope, sender),
            Err(_) => verdict,
        }
    }

    /// The rules of agents that speak v1 with the quirks, where the session's are stricter.
    fn other_rules(&self) -> Option<Rules> {
        let stricter = self.rules.subprotocol != Subprotocol::V1;
        (self.tolerate_quirks && stricter).then_some(Rules::V1_COMPAT)
    }
}

/// Checks a message against one key.
pub(crate) fn verify(envelope: &Envelope<'_>, sender: &AgentId) -> Result<(), UnverifiedReason> {
    if !envelope.is_signed() {
        return Err(UnverifiedReason::Unsigned);
    }
    envelope
        .verify(sender.public_key())
        .map_err(|error: SignatureError| UnverifiedReason::Signature(error))
}

fn is_the_gateways(kind: MessageType) -> bool {
    matches!(kind, MessageType::Challenge | MessageType::Registered | MessageType::Presence)
}

#[cfg(all(test, feature = "p2p"))]
mod tests {
    use conexus_protocol::{Draft, Identity, Offer};

    use super::*;

    #[test]
    fn what_peers_say_is_verified_whatever_the_client_was_told() {
        let trust = |verify_agents| Trust {
            rules: Rules::V1_1,
            gateway: None,
            verify_agents,
            tolerate_quirks: true,
        };
        let (sender, other) = (Identity::generate(), Identity::generate());
        let signed = Draft::new("did:key:any", Offer { sdp: "mine".into() }).sign(&sender);
        let altered = signed.replace("mine", "hers");
        let renamed = signed.replace(sender.did(), other.did());
        let start = signed.find("\"signature\":\"").unwrap() + 13;
        let end = start + signed[start..].find('"').unwrap();
        let unsigned = format!("{}{}", &signed[..start], &signed[end..]);
        for (text, is_proven) in
            [(&signed, true), (&altered, false), (&renamed, false), (&unsigned, false)]
        {
            // The client takes them all, since it was told not to verify.
            let incoming = trust(false).judge(text).unwrap();
            assert_eq!(trust(false).prove(&incoming.message).is_ok(), is_proven, "{text}");
            assert_eq!(trust(true).judge(text).is_ok(), is_proven, "{text}");
        }
    }
}
