//! What arrives: whose it is, whether it counts, and whether a stranger is welcome.

use super::*;

impl Peers {
    /// Takes what the gateway delivered, if it is for a peer; else it is told back. `prove` checks the signature where that has
    /// not been done; `key` is none for the gateway's own messages.
    pub(crate) fn claim(
        &self,
        message: Message,
        key: Option<AgentKey>,
        prove: impl FnOnce(&Message) -> Result<(), ClientError>,
    ) -> Option<Message> {
        let is_ours = match message.kind() {
            MessageType::Error => self.is_refusal_ours(&message, key),
            MessageType::Offer | MessageType::Answer | MessageType::IceCandidate => {
                key.is_some_and(|key| self.is_signal_ours(key))
            }
            kind => key.is_some_and(|key| self.calls.would_take(kind, &message, key)),
        };
        if !is_ours {
            return Some(message);
        }
        if key.is_some()
            && let Err(error) = prove(&message)
        {
            self.gateway.report(error);
            return None;
        }
        match (message.kind(), key) {
            _ if key.is_some() && !is_for(&message, self.identity.key()) => {
                self.report(&message.from, PeerFault::NotForUs);
            }
            (MessageType::Error, key) => self.take_refusal(&message, key),
            (MessageType::Offer | MessageType::Answer | MessageType::IceCandidate, Some(key)) => {
                self.take_signal(&message, key);
            }
            (_, Some(key)) => self.calls.take(self, message, key, None),
            (_, None) => {}
        }
        None
    }

    fn is_signal_ours(&self, key: AgentKey) -> bool {
        let mut known = self.known();
        if known.listener.as_ref().is_some_and(Listener::is_gone) {
            known.listener = None;
        }
        known.peers.contains_key(&key) || known.listener.is_some()
    }

    fn is_refusal_ours(&self, message: &Message, key: Option<AgentKey>) -> bool {
        let id = message.correlation_id.as_deref();
        self.concerned(id, key).is_some()
            || (key.is_none() && self.is_candidate(id))
            || self.calls.is_concerned(id, key)
    }

    fn concerned(&self, id: Option<&str>, key: Option<AgentKey>) -> Option<Arc<Core>> {
        id?;
        let known = self.known();
        match key {
            Some(key) => known.peers.get(&key).filter(|core| core.concerns(id)).cloned(),
            None => known.peers.values().find(|core| core.concerns(id)).cloned(),
        }
    }

    fn take_refusal(&self, message: &Message, key: Option<AgentKey>) {
        let id = message.correlation_id.as_deref();
        let Some(refusal) = Refusal::read(message) else { return };
        if let Some(core) = self.concerned(id, key) {
            self.hand(&core, Input::Refusal(refusal, key.is_none()));
        } else {
            self.calls.refused(id, key, refusal);
        }
    }

    fn take_signal(&self, message: &Message, key: AgentKey) {
        let signal = match Signal::read(message, key, self.identity.key()) {
            Ok(signal) => signal,
            Err(NoSignal::NotForUs) => return self.report(&message.from, PeerFault::NotForUs),
            Err(NoSignal::OtherType) => return,
        };
        let core = self.get(key);
        if !matches!(signal.word, Word::Offer(_)) {
            // Without a peer it comes after the end.
            if let Some(core) = core {
                self.hand(&core, Input::Signal(signal));
            }
            return;
        }
        let verdict = self.judge(key, message);
        if verdict != Verdict::Fresh {
            if let Some(reason) = verdict.told() {
                self.refuse(&signal.from, &signal.id, reason);
            }
            let is_known = core.is_some_and(|core| core.concerns(Some(&signal.id)));
            if !is_known {
                self.report(&signal.from, fault_of(verdict));
            }
            return;
        }
        match (&signal.correlation_id, core) {
            (None, _) => self.first_offer(signal),
            (Some(_), Some(core)) => self.hand(&core, Input::Signal(signal)),
            (Some(_), None) => self.refuse(&signal.from, &signal.id, "unknown_connection"),
        }
    }

    /// A first OFFER, which is new and for us.
    pub(crate) fn first_offer(&self, offer: Signal) {
        let mut known = self.known();
        let standing = known.peers.get(&offer.key).cloned();
        if let Some(core) = &standing {
            if core.path() != PeerPath::Direct && !core.is_over() {
                // Ours is under way, or there is no direct way yet: the same peer takes theirs.
                drop(known);
                return self.hand(core, Input::Signal(offer));
            }
            if !core.is_newer(offer.written) {
                drop(known);
                return self.report(&offer.from, PeerFault::Outdated);
            }
        }
        let Some(listener) = known.listener.clone().filter(|_| !known.is_closing) else {
            drop(known);
            return self.refuse(&offer.from, &offer.id, "declined");
        };
        let others = known.peers.len() - usize::from(standing.is_some());
        if others >= self.max || known.undecided >= MAX_UNDECIDED || !listener.has_room() {
            drop(known);
            return self.refuse(&offer.from, &offer.id, "busy");
        }
        // It has signed by that key.
        let Ok(id) = AgentId::parse(&offer.from) else { return };
        let options = listener.options().peer.clone();
        // Made before anybody is asked, so that candidates find their peer.
        self.begin(&mut known, id, options, |known| {
            known.undecided += 1;
            let welcome = self.welcome(&offer.from, &listener);
            Begin::Theirs { offer: Box::new(offer), welcome, listener }
        });
        drop(known);
        if let Some(core) = standing
            && core.end(None)
        {
            core.closing.cancel();
            self.calls.drop_peer(core.serial, None);
        }
    }

    fn welcome(&self, did: &str, listener: &Listener) -> BoxFuture<'static, bool> {
        let undecided = Undecided(self.own.clone());
        let asked = listener.options().welcome.clone().map(|ask| (ask, did.to_owned()));
        Box::pin(async move {
            let _undecided = undecided;
            let Some((ask, did)) = asked else { return true };
            let asking = AssertUnwindSafe(async { ask(did.clone()).await }).catch_unwind();
            match timeout(WELCOME, asking).await {
                Ok(Ok(is_welcome)) => is_welcome,
                Ok(Err(_)) => {
                    tracing::warn!(%did, "what was to say whether an agent is welcome panicked");
                    false
                }
                Err(_) => {
                    tracing::warn!(%did, "whether an agent is welcome was not said in time");
                    false
                }
            }
        })
    }

    /// What a peer's control channel delivers.
    pub(crate) fn ear(&self, core: &Arc<Core>) -> Ear {
        let (peers, core) = (self.own.clone(), Arc::downgrade(core));
        Arc::new(move |message| {
            let (Some(peers), Some(core)) = (peers.upgrade(), core.upgrade()) else { return };
            if let Err(fault) = peers.calls.heard(&peers, &core, message) {
                peers.report(core.did(), fault);
            }
        })
    }

    pub(crate) fn judge(&self, key: AgentKey, message: &Message) -> Verdict {
        let now = self.gateway.now();
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.judge(key, &message.id, message.timestamp, now)
    }

    fn hand(&self, core: &Core, input: Input) {
        if !core.hand(input) {
            self.report(core.did(), PeerFault::TooFast);
        }
    }
}
