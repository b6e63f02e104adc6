//! The way to an open connection: attempts, answers, and giving up.

use super::*;

impl Session {
    /// Begins with an OFFER of ours.
    pub(super) async fn attempt(&mut self) -> End {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.attempt += 1;
        }
        let mut draft = self.draft(Offer { sdp: String::new() });
        self.negotiation.begin_ours(draft.id.clone(), draft.timestamp);
        let made = match self.begin_connection().await {
            Ok(connection) => self.step(async move { connection.offer(false).await }).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(sdp) => {
                draft.payload = Offer { sdp }.into();
                let until = Instant::now() + self.core.options.answer_timeout;
                self.phase = Phase::Offering(until);
                self.describe(draft, until).await
            }
            Err(error) => self.attempt_failed(error).await,
        }
    }

    /// Theirs is the connection.
    pub(super) async fn accept(&mut self, offer: Offered) -> End {
        let made = match self.begin_connection().await {
            Ok(connection) => {
                let sdp = offer.sdp;
                self.step(async move { connection.answer(sdp).await }).await
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(sdp) => self.answer(&offer.id, sdp).await,
            Err(error) => self.attempt_failed(error).await,
        }
    }

    pub(super) async fn answer(&mut self, offer: &str, sdp: String) -> End {
        let draft = self.draft(Answer { sdp }).in_reply_to(offer);
        let until = Instant::now() + self.core.options.open_timeout;
        if self.phase != Phase::Open {
            self.phase = Phase::Opening(until);
        }
        let waited = self.negotiation.answered_theirs(draft.id.clone());
        self.describe(draft, until).await?;
        self.apply(waited).await
    }

    /// A new connection of the stack's, in place of any that there is.
    pub(super) async fn begin_connection(&mut self) -> Result<Arc<dyn Connection>, PeerError> {
        self.discard();
        let peers = Arc::clone(&self.peers);
        let (relay_only, max_channels) =
            (self.core.options.relay_only, self.core.options.max_channels);
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let connection = self
            .step(async move {
                let ice_servers = peers.gateway().ice_servers().await;
                let config = ConnectionConfig { ice_servers, relay_only, max_channels };
                peers.transport().connect(config, sender).await
            })
            .await?;
        let ear = self.peers.ear(&self.core);
        let (control, happens, work) = control::serve(Channel::control(&connection), ear);
        let mut task = JoinSet::new();
        task.spawn(work);
        self.core.set_connection(Some(Arc::clone(&connection)));
        self.core.set_control(Some(control));
        self.live =
            Some(Live { connection: Arc::clone(&connection), events, control: happens, task });
        Ok(connection)
    }

    /// Ends a connection that came to nothing.
    pub(super) fn discard(&mut self) {
        self.said.clear();
        self.again = None;
        self.core.set_control(None);
        self.core.set_connection(None);
        let Some(mut live) = self.live.take() else { return };
        live.task.abort_all();
        let patience = self.core.options.close_timeout;
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(async move {
            let _ = timeout(patience, live.connection.close()).await;
        });
    }

    /// One attempt has come to nothing: another one, or the fallback, or the end.
    pub(super) async fn attempt_failed(&mut self, error: PeerError) -> End {
        if self.core.closing.is_cancelled() {
            return Err(PeerError::Closed);
        }
        self.found_none |= matches!(error, PeerError::NoPath(_));
        let others_may_come = error.is_unknown_agent() && self.gateway_was_lost;
        let is_pointless = error.is_pointless() && !others_may_come;
        match &self.outgoing {
            _ if self.core.path() == PeerPath::Gateway => {
                self.phase = Phase::Fallback;
                Ok(())
            }
            None => {
                self.note_failure();
                Err(error)
            }
            Some(outgoing) if outgoing.attempt < self.core.options.attempts && !is_pointless => {
                let pause = pause_after(outgoing.attempt);
                tracing::debug!(peer = self.core.did(), %error, ?pause, "an attempt to connect failed");
                self.phase = Phase::Resting(Instant::now() + pause);
                Ok(())
            }
            Some(_) => self.give_up(error, is_pointless),
        }
    }

    /// No attempts, or no time, are left: by the gateway, where the application allows that.
    pub(super) fn give_up(&mut self, error: PeerError, is_absent: bool) -> End {
        self.outgoing = None;
        self.note_failure();
        if !self.core.options.fallback || is_absent || !self.peers.carries_requests() {
            self.withdraw();
            return Err(error);
        }
        tracing::debug!(peer = self.core.did(), %error, "requests go by way of the gateway");
        self.phase = Phase::Fallback;
        self.core.note_connect_time(self.began.elapsed());
        self.ready(PeerPath::Gateway);
        Ok(())
    }

    /// Tells the other side that nothing will come of it.
    pub(super) fn withdraw(&mut self) {
        if let Some(connection) = self.negotiation.connection() {
            self.peers.refuse(self.core.did(), connection, "withdrawn");
        }
    }
}
