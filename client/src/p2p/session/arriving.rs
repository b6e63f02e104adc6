//! What agents and the gateway say about the connection.

use super::*;

impl Session {
    pub(super) async fn take(&mut self, input: Input) -> End {
        match input {
            Input::Signal(signal) => self.take_signal(signal).await,
            Input::Refusal(refusal, is_gateways) => self.refused(refusal, is_gateways).await,
        }
    }

    pub(super) async fn take_signal(&mut self, signal: Signal) -> End {
        let correlation_id = signal.correlation_id.as_deref();
        match signal.word {
            Word::Offer(_) => self.offered(signal).await,
            Word::Answer(sdp) => match self.negotiation.answered(correlation_id) {
                true => self.answered(sdp).await,
                false => Ok(()),
            },
            Word::Candidate(candidate) => {
                let candidate = self.negotiation.candidate(correlation_id, candidate);
                self.apply(candidate.into_iter().collect()).await
            }
        }
    }

    pub(super) async fn offered(&mut self, signal: Signal) -> End {
        let (Word::Offer(sdp), Some(written)) = (&signal.word, signal.written) else {
            return Ok(());
        };
        if signal.correlation_id.is_none() && self.phase == Phase::Open {
            // It opened meanwhile, so this is another peer's.
            self.peers.first_offer(signal);
            return Ok(());
        }
        let offer = Offered {
            id: signal.id.clone(),
            restarts: signal.correlation_id.clone(),
            written,
            sdp: sdp.clone(),
        };
        match self.negotiation.offered(offer) {
            OnOffer::Begin(offer) => self.accept(offer).await,
            OnOffer::Restart { offer, rollback } => self.restarted(offer, rollback).await,
            OnOffer::Unknown(id) => {
                self.peers.refuse(&signal.from, &id, "unknown_connection");
                Ok(())
            }
            OnOffer::Ignore => Ok(()),
        }
    }

    pub(super) async fn answered(&mut self, sdp: String) -> End {
        let Some(connection) = self.connection() else { return Ok(()) };
        let applied = self.step(async move { connection.answered(sdp).await }).await;
        if let Err(error) = applied {
            return self.failed(error).await;
        }
        if self.phase != Phase::Open {
            self.phase = Phase::Opening(Instant::now() + self.core.options.open_timeout);
        }
        let waited = self.negotiation.described();
        self.note();
        self.apply(waited).await
    }

    /// Gives the stack candidates. One that it does not take is one way less.
    pub(super) async fn apply(&mut self, candidates: Vec<IceCandidate>) -> End {
        for candidate in candidates {
            let Some(connection) = self.connection() else { return Ok(()) };
            let added = self.step(async move { connection.add_candidate(candidate).await }).await;
            match added {
                Err(PeerError::Transport(error)) => {
                    tracing::debug!(peer = self.core.did(), %error, "a candidate is ignored");
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn refused(&mut self, refusal: Refusal, is_gateways: bool) -> End {
        let names = refusal.correlation_id.as_deref();
        if is_gateways && self.phase != Phase::Open && self.is_our_answer(names) && passes(&refusal)
        {
            // Whoever offered is on its way back to the gateway, or has much to read.
            self.again.get_or_insert(Instant::now() + pause_after(1));
            return Ok(());
        }
        match self.negotiation.refused(names) {
            OnRefusal::Begin(offer) => self.accept(offer).await,
            OnRefusal::Ignore => Ok(()),
            OnRefusal::Refused if reason_of(&refusal) == Some("unknown_connection") => {
                match self.phase {
                    Phase::Open => Err(PeerError::BegunAnew),
                    _ => self.failed(PeerError::Refused(Box::new(refusal))).await,
                }
            }
            OnRefusal::Refused => self.failed(PeerError::Refused(Box::new(refusal))).await,
        }
    }

    pub(super) fn is_our_answer(&self, id: Option<&str>) -> bool {
        let answer = self.said.first().filter(|draft| matches!(draft.payload, Payload::Answer(_)));
        answer.is_some_and(|draft| Some(&*draft.id) == id)
    }

    pub(super) async fn not_sent(&mut self, id: &str, error: PeerError) -> End {
        match self.negotiation.refused(Some(id)) {
            OnRefusal::Begin(offer) => self.accept(offer).await,
            OnRefusal::Refused => self.failed(error).await,
            OnRefusal::Ignore => Ok(()),
        }
    }

    /// What was going on has come to nothing.
    pub(super) async fn failed(&mut self, error: PeerError) -> End {
        match self.phase {
            Phase::Open if self.core.closing.is_cancelled() => Err(PeerError::Closed),
            Phase::Open => {
                self.upkeep.failed(Instant::now());
                Ok(())
            }
            _ => self.attempt_failed(error).await,
        }
    }
}
