//! What happens to the connection, and how it is kept.

use super::*;

impl Session {
    pub(super) async fn happened(
        &mut self,
        event: LiveEvent,
    ) -> Result<std::ops::ControlFlow<()>, PeerError> {
        use std::ops::ControlFlow::{Break, Continue};
        match event {
            LiveEvent::Stack(ConnectionEvent::Candidate(candidate)) => self.gathered(candidate),
            LiveEvent::Stack(ConnectionEvent::State(PathState::Closed))
                if self.phase == Phase::Open && self.has_said_farewell().await =>
            {
                return Ok(Break(()));
            }
            LiveEvent::Stack(ConnectionEvent::State(path)) => self.stands(path).await?,
            LiveEvent::Stack(ConnectionEvent::Channel(raw)) => {
                let connection = self.connection();
                let offered = connection.and_then(|live| self.core.channels.offered(raw, &live));
                // Dropped: then it is closed.
                if offered.is_some() {
                    tracing::debug!(
                        peer = self.core.did(),
                        "nobody takes a channel, and it is closed"
                    );
                }
            }
            LiveEvent::Control(ControlEvent::Opened) => self.opened(),
            LiveEvent::Control(ControlEvent::Ended(end)) if self.phase == Phase::Open => {
                return match end {
                    None | Some(ChannelError::Closed) => Ok(Break(())),
                    Some(error) => Err(PeerError::Broken(Arc::new(error))),
                };
            }
            LiveEvent::Control(ControlEvent::Ended(_)) => {}
            LiveEvent::Ended => {
                self.live = None;
                let error = PeerError::Lost { restarts: self.upkeep.restarts() };
                match self.phase {
                    Phase::Open => return Err(error),
                    _ => self.attempt_failed(self.no_path()).await?,
                }
            }
        }
        Ok(Continue(()))
    }

    /// Whether the other side has closed the control channel before its connection, which may be seen later.
    pub(super) async fn has_said_farewell(&mut self) -> bool {
        let Some(live) = &mut self.live else { return false };
        let last = timeout(LAST_WORD, live.control.recv()).await;
        matches!(last, Ok(Some(ControlEvent::Ended(None | Some(ChannelError::Closed)))))
    }

    pub(super) async fn stands(&mut self, path: PathState) -> End {
        if self.phase != Phase::Open {
            return match path {
                PathState::Failed | PathState::Closed => self.attempt_failed(self.no_path()).await,
                _ => Ok(()),
            };
        }
        self.upkeep.path(path, self.negotiation.is_initiator(), Instant::now());
        match path {
            PathState::Closed => {
                return Err(PeerError::Lost { restarts: self.upkeep.restarts() });
            }
            PathState::Connected => self.core.enter(ConnectionState::Connected),
            PathState::Disconnected | PathState::Failed => {
                self.core.enter(ConnectionState::Connecting);
            }
            PathState::New | PathState::Connecting => {}
        }
        Ok(())
    }

    pub(super) fn no_path(&self) -> PeerError {
        PeerError::NoPath(self.core.options.open_timeout)
    }

    pub(super) fn opened(&mut self) {
        if self.phase == Phase::Open {
            return;
        }
        self.phase = Phase::Open;
        self.said.clear();
        self.again = None;
        self.outgoing = None;
        self.core.note_connect_time(self.began.elapsed());
        self.note();
        self.ready(PeerPath::Direct);
        self.note_success();
        if let Some(listener) = self.listener.take() {
            self.peers.hand_over(listener, &self.core);
        }
    }

    pub(super) fn ready(&self, path: PeerPath) {
        self.core.set_path(path);
        self.core.enter(ConnectionState::Connected);
        self.core.progress.send_replace(Progress::Ready);
    }

    /// How the search for a way came out is known here and in [`note_failure`](Self::note_failure).
    pub(super) fn note_success(&mut self) {
        let Some(connection) = self.connection() else { return };
        let took = self.began.elapsed();
        let peers = Arc::clone(&self.peers);
        self.tasks.spawn(async move {
            if let Some(pair) = connection.path().await {
                let PathStats { local, remote, protocol, .. } = pair;
                peers.note_outcome(IceOutcome::Connected { local, remote, protocol, took });
            }
        });
    }

    pub(super) fn note_failure(&mut self) {
        if std::mem::take(&mut self.found_none) {
            let took = self.began.elapsed();
            self.peers.note_outcome(IceOutcome::Failed { took });
        }
    }

    /// Seeks the way anew.
    pub(super) async fn restart(&mut self) -> End {
        let Some(connection) = self.connection() else { return Ok(()) };
        let is_waiting = self.negotiation.is_waiting();
        let made = self
            .step(async move {
                if is_waiting {
                    // Nobody has answered the one before.
                    let _ = connection.rollback().await;
                }
                connection.offer(true).await
            })
            .await;
        self.core.note_restarts(self.upkeep.restarts());
        match (made, self.negotiation.connection()) {
            (Ok(sdp), Some(id)) => {
                let draft = self.draft(Offer { sdp }).in_reply_to(id);
                self.negotiation.restart_ours(draft.id.clone());
                let until = Instant::now() + self.core.options.open_timeout;
                self.describe(draft, until).await
            }
            (Ok(_), None) => Ok(()),
            (Err(error), _) => self.failed(error).await,
        }
    }

    /// They seek it anew.
    pub(super) async fn restarted(&mut self, offer: Offered, rollback: bool) -> End {
        let Some(connection) = self.connection() else { return Ok(()) };
        let sdp = offer.sdp;
        let made = self
            .step(async move {
                if rollback {
                    connection.rollback().await?;
                }
                connection.answer(sdp).await
            })
            .await;
        match made {
            Ok(sdp) => {
                self.upkeep.answered_theirs(Instant::now());
                self.answer(&offer.id, sdp).await
            }
            Err(error) => self.failed(error).await,
        }
    }
}
