//! The driver: the one task that owns the socket, over all its connections.
//!
//! It serves a link until that is lost, waits, dials and registers again. It alone moves the
//! state. Dropped at any point, it leaves the state truthful.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    ClientError, Close, ConnectError, ConnectionState, Loss,
    backoff::Backoff,
    dispatch::{Event, EventQueue},
    link::{Ended, Link},
    register::establish,
    shared::{Online, Shared, Stop},
};

pub(crate) struct Driver {
    shared: Arc<Shared>,
    events: EventQueue,
    stop: Stop,
    backoff: Option<Backoff>,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, events: EventQueue, stop: Stop) -> Self {
        let backoff = shared.config.reconnect.clone().map(Backoff::new);
        Self { shared, events, stop, backoff }
    }

    /// The first connection, in the caller's own task: nothing is left behind when it stops
    /// waiting.
    pub(crate) async fn first_link(&mut self) -> Result<Link, ConnectError> {
        let retries = self.shared.config.retry_first && self.backoff.is_some();
        let link = match self.attempt().await {
            Err(error) if retries && !error.is_final() => {
                let wait = error.close().and_then(Close::reconnect_in);
                self.events.push(ClientError::Attempt { attempt: 0, error });
                self.retry(wait).await
            }
            link => link,
        };
        self.give_up_on_error(link)
    }

    /// Serves `link` and its successors until the user closes or the gateway's word is final.
    pub(crate) async fn run(mut self, mut link: Link) {
        loop {
            let since = Instant::now();
            let ended = link.serve(&self.shared, &mut self.events, &self.stop.requested).await;
            if let Some(backoff) = &mut self.backoff {
                backoff.session_held(since.elapsed());
            }
            match ended {
                Ended::Stopped => {
                    self.enter(ConnectionState::Disconnecting);
                    link.farewell(&self.shared, &mut self.events).await;
                    break;
                }
                Ended::Lost(loss) => {
                    let wait = loss.close().and_then(Close::reconnect_in);
                    self.lost(loss);
                    drop(link);
                    let Some(next) = self.come_back(wait).await else { break };
                    link = next;
                }
            }
        }
        self.finish().await;
    }

    /// Tells everyone, before the link's own callers notice.
    fn lost(&mut self, loss: Loss) {
        tracing::debug!(%loss, "connection lost");
        let is_final = self.backoff.is_none() || loss.close().is_some_and(Close::is_final);
        self.events.push(ClientError::ConnectionLost(loss));
        self.enter(match is_final {
            true => ConnectionState::Error,
            false => ConnectionState::Disconnected,
        });
    }

    async fn come_back(&mut self, wait: Option<Duration>) -> Option<Link> {
        if *self.shared.state.borrow() == ConnectionState::Error {
            return None;
        }
        let link = self.retry(wait).await;
        // Whatever is wrong, the error handlers know already.
        self.give_up_on_error(link).ok()
    }

    /// An end that the user wanted is no error.
    fn give_up_on_error(&mut self, link: Result<Link, ConnectError>) -> Result<Link, ConnectError> {
        if link.as_ref().is_err_and(|error| !matches!(error, ConnectError::Closed)) {
            self.enter(ConnectionState::Error);
        }
        link
    }

    /// Attempt after attempt, until one succeeds, is final, or none is left. Error handlers
    /// hear of each one's error.
    async fn retry(&mut self, mut wait: Option<Duration>) -> Result<Link, ConnectError> {
        loop {
            let delay = self.backoff.as_mut().and_then(|backoff| backoff.next_delay(wait.take()));
            let Some(delay) = delay else { return Err(self.exhausted()) };
            self.enter(ConnectionState::Disconnected);
            self.pause(delay).await?;
            match self.attempt().await {
                Ok(link) => return Ok(link),
                Err(ConnectError::Closed) => return Err(ConnectError::Closed),
                Err(error) => {
                    let is_final = error.is_final();
                    wait = error.close().and_then(Close::reconnect_in);
                    let attempt = self.attempts();
                    self.events.push(ClientError::Attempt { attempt, error });
                    if is_final {
                        return Err(ConnectError::GaveUp(attempt));
                    }
                }
            }
        }
    }

    /// One attempt, unless the user closes meanwhile.
    async fn attempt(&mut self) -> Result<Link, ConnectError> {
        self.enter(ConnectionState::Connecting);
        let mut link = tokio::select! {
            () = self.stop.requested.cancelled() => return Err(ConnectError::Closed),
            link = establish(&self.shared) => link?,
        };
        if let Some(outgoing) = link.take_sender() {
            let session = Arc::clone(link.session());
            self.shared.online.send_replace(Some(Online { session, outgoing }));
        }
        self.enter(ConnectionState::Connected);
        Ok(link)
    }

    /// Waits, and longer while the handlers do not keep up.
    async fn pause(&mut self, delay: Duration) -> Result<(), ConnectError> {
        let mut delay = pin!(sleep(delay));
        let mut over = false;
        while !over || !self.events.keeps_up() {
            let behind = !self.events.keeps_up();
            tokio::select! {
                () = self.stop.requested.cancelled() => return Err(ConnectError::Closed),
                () = &mut delay, if !over => over = true,
                () = self.events.hand_over(), if behind => {}
            }
        }
        Ok(())
    }

    fn attempts(&self) -> u32 {
        self.backoff.as_ref().map_or(0, Backoff::attempts)
    }

    fn exhausted(&mut self) -> ConnectError {
        let attempts = self.attempts();
        self.events.push(ClientError::AttemptsExhausted(attempts));
        ConnectError::GaveUp(attempts)
    }

    fn enter(&mut self, state: ConnectionState) {
        let changed = self.shared.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
        if state != ConnectionState::Connected {
            self.shared.online.send_replace(None);
        }
        if changed {
            self.events.push(Event::State(state));
        }
    }

    /// Leaves the last events to the handlers, however long those take.
    async fn finish(mut self) {
        self.settle();
        while !self.events.keeps_up() {
            self.events.hand_over().await;
        }
    }

    /// The final state, and word of it to those who wait in `close`. Once only: another run
    /// may have begun since.
    fn settle(&mut self) {
        if self.stop.done.is_cancelled() {
            return;
        }
        if *self.shared.state.borrow() != ConnectionState::Error {
            self.enter(ConnectionState::Disconnecting);
            self.enter(ConnectionState::Disconnected);
        }
        self.shared.watches.end_all();
        self.stop.done.cancel();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.settle();
    }
}
