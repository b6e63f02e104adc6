//! What arrives, by a control channel or by the gateway: an answer, a question, or word that something is not
//! wanted any more.

use super::*;

impl Calls {
    /// Whether a message that came by the gateway is for here.
    pub(crate) fn would_take(&self, kind: MessageType, message: &Message, key: AgentKey) -> bool {
        let table = self.table();
        match kind {
            MessageType::ExecRequest => table.on_request.is_some(),
            MessageType::Intent if message.correlation_id.is_none() => table.on_intent.is_some(),
            MessageType::ExecResponse | MessageType::Intent | MessageType::Pong => {
                let id = message.correlation_id.as_deref();
                id.and_then(|id| table.inquiries.get(id)).is_some_and(|known| known.is(key, None))
            }
            _ => false,
        }
    }

    /// Whether an ERROR that came by the gateway is about something that is under way by it. `key` is none
    /// for the gateway's own.
    pub(crate) fn is_concerned(&self, id: Option<&str>, key: Option<AgentKey>) -> bool {
        let Some(id) = id else { return false };
        let table = self.table();
        let inquiry = table.inquiries.get(id).filter(|known| known.way.is_none());
        match key {
            None => inquiry.is_some(),
            Some(key) => {
                inquiry.is_some_and(|known| known.key == key)
                    || table.tasks.contains_key(&(key, id.to_owned()))
            }
        }
    }

    /// An ERROR that came by the gateway.
    pub(crate) fn refused(&self, id: Option<&str>, key: Option<AgentKey>, refusal: Refusal) {
        let Some(id) = id else { return };
        let mut table = self.table();
        let is_ours = table
            .inquiries
            .get(id)
            .is_some_and(|known| known.way.is_none() && key.is_none_or(|key| known.key == key));
        let inquiry = if is_ours { table.inquiries.remove(id) } else { None };
        if let Some(inquiry) = inquiry {
            drop(table);
            inquiry.what.end(Err(RequestError::Refused(Box::new(refusal))));
        } else if let Some(task) = key.and_then(|key| table.tasks.get(&(key, id.to_owned()))) {
            task.what.cancel();
        }
    }

    /// A text over a control channel: whose channel it is says who must have signed it.
    pub(crate) fn heard(
        &self,
        peers: &Peers,
        core: &Arc<Core>,
        message: ChannelMessage,
    ) -> Result<(), PeerFault> {
        let ChannelMessage::Text(text) = message else { return Err(PeerFault::Bytes) };
        let envelope = Envelope::parse(&text, Rules::V1_1).map_err(PeerFault::Malformed)?;
        match AgentKey::parse_did(&envelope.from) {
            Ok(key) if key == core.key => {}
            Ok(_) => return Err(PeerFault::AnothersWord),
            Err(error) => return Err(PeerFault::Unverified(UnverifiedReason::Sender(error))),
        }
        crate::incoming::verify(&envelope, &core.id).map_err(PeerFault::Unverified)?;
        let message = Message::try_from(&envelope).map_err(PeerFault::Malformed)?;
        if !is_for(&message, peers.identity().key()) {
            return Err(PeerFault::NotForUs);
        }
        match message.kind() {
            MessageType::Intent
            | MessageType::ExecRequest
            | MessageType::ExecResponse
            | MessageType::Error
            | MessageType::Ping
            | MessageType::Pong => self.take(peers, message, core.key, Some(core)),
            other => return Err(PeerFault::OutOfPlace(other)),
        }
        Ok(())
    }

    /// A verified message; `core` is the peer over whose channel it came, none is the gateway.
    pub(crate) fn take(
        &self,
        peers: &Peers,
        message: Message,
        key: AgentKey,
        core: Option<&Arc<Core>>,
    ) {
        let way = core.map_or(Way::Gateway, |core| Way::Direct(Arc::clone(core)));
        match &message.payload {
            Payload::Ping(ping) => {
                let pong = Pong { sequence: ping.sequence.clone() };
                way.answer_later(peers, (&message.from, &message.id), pong);
            }
            Payload::ExecRequest(_) => {
                let served = self.table().on_request.clone();
                self.asked(peers, (message, key), way, served);
            }
            Payload::Intent(_) if message.correlation_id.is_none() => {
                let served = self.table().on_intent.clone();
                self.asked(peers, (message, key), way, served);
            }
            Payload::Error(_) => self.told_no(&message, key, way.serial()),
            // One that came too late finds nobody.
            _ => self.answered(peers, message, key, &way),
        }
    }

    fn told_no(&self, message: &Message, key: AgentKey, way: Option<u64>) {
        let (Some(id), Some(refusal)) = (&message.correlation_id, Refusal::read(message)) else {
            return;
        };
        let mut table = self.table();
        if table.inquiries.get(id).is_some_and(|known| known.is(key, way)) {
            let inquiry = table.inquiries.remove(id);
            drop(table);
            if let Some(inquiry) = inquiry {
                inquiry.what.end(Err(RequestError::Refused(Box::new(refusal))));
            }
        } else if let Some(task) = table.tasks.get(&(key, id.clone()))
            && task.way == way
        {
            task.what.cancel();
        }
    }

    fn answered(&self, peers: &Peers, message: Message, key: AgentKey, way: &Way) {
        let Some(id) = message.correlation_id else { return };
        let mut table = self.table();
        let Some(known) = table.inquiries.get(&id).filter(|known| known.is(key, way.serial()))
        else {
            return;
        };
        let kind = message.payload.kind();
        let outcome: Outcome = match message.payload {
            _ if kind != known.what.expects => Err(RequestError::OutOfTurn(kind)),
            Payload::Intent(intent) => Ok(Answered::Intent(intent)),
            Payload::Pong(_) => Ok(Answered::Pong),
            Payload::ExecResponse(response) => match read(response) {
                Heard::Word(word) => match known.what.word(word) {
                    true => return,
                    false => Err(Inquiry::too_fast()),
                },
                Heard::End(outcome) => outcome,
            },
            _ => Err(RequestError::OutOfTurn(kind)),
        };
        let inquiry = table.inquiries.remove(&id);
        drop(table);
        let is_given_up = matches!(outcome, Err(RequestError::SlowReader(_)));
        if let Some(inquiry) = inquiry {
            inquiry.what.end(outcome);
        }
        if is_given_up {
            let why = (ErrorCode::Timeout, "parts came faster than they were read", "cancelled");
            way.refuse(peers, (&message.from, &id), why);
        }
    }

    /// We are asked something.
    fn asked(&self, peers: &Peers, (message, key): (Message, AgentKey), way: Way, served: Served) {
        let no = |text: &str, reason: &str| {
            let why = (ErrorCode::ConnectionRefused, text, reason);
            way.refuse(peers, (&message.from, &message.id), why);
        };
        let Some((handler, work)) = served else {
            return no("nothing is done on request here", "not_served");
        };
        // The channel itself lets nothing through twice; the gateway could.
        let verdict = match way {
            Way::Direct(_) => Verdict::Fresh,
            Way::Gateway => peers.judge(key, &message),
        };
        if verdict != Verdict::Fresh {
            peers.report(&message.from, crate::p2p::peers::fault_of(verdict));
            return verdict.told().map_or((), |reason| no("the request is not accepted", reason));
        }
        let cancel = CancellationToken::new();
        let name = (key, message.id.clone());
        {
            let mut table = self.table();
            if table.tasks.contains_key(&name) {
                drop(table);
                return peers.report(&message.from, PeerFault::Replayed);
            }
            if is_crowded(table.tasks.len(), table.tasks.values(), key) {
                drop(table);
                return no("too many requests are under way", "busy");
            }
            let known = Known { key, way: way.serial(), what: cancel.clone() };
            table.tasks.insert(name.clone(), known);
        }
        let Some(peers) = peers.own() else { return };
        let entry = Entry { peers: Arc::clone(&peers), name };
        let request = IncomingRequest::new(Arc::clone(&peers), message, way, cancel);
        peers.spawn(async move {
            let _entry = entry;
            request.run(handler, work).await;
        });
    }
}
