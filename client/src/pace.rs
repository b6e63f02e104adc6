//! When to PING, and when a connection is dead.
//!
//! A PING goes out when either side has been silent for a heartbeat, so that a living
//! gateway has always something to answer. Two and a half heartbeats without an answer, or
//! without the gateway taking what was written, mean that it is gone.

use std::time::Duration;

use tokio::time::Instant;

use crate::Loss;

/// The clock of one connection.
#[derive(Debug)]
pub(crate) struct Pace {
    heartbeat: Duration,
    said: Instant,
    heard: Instant,
    pinged: Option<Instant>,
    /// Since when something waits to be taken off the socket.
    unwritten: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        let now = Instant::now();
        Self { heartbeat, said: now, heard: now, pinged: None, unwritten: None }
    }

    /// A frame arrived, or reading resumes after a pause in which none could.
    pub(crate) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// A message was put into the socket's buffer.
    pub(crate) fn said(&mut self) {
        let now = Instant::now();
        self.said = now;
        self.unwritten.get_or_insert(now);
    }

    /// The buffer is empty.
    pub(crate) fn written(&mut self) {
        self.unwritten = None;
    }

    pub(crate) fn pinged(&mut self) {
        self.pinged = Some(Instant::now());
    }

    /// When to look again.
    pub(crate) fn next_check(&self, reading: bool) -> Instant {
        let deaths = [self.silent_at(reading), self.stalled_at()];
        deaths.into_iter().flatten().fold(self.ping_at(), Instant::min)
    }

    pub(crate) fn is_ping_due(&self) -> bool {
        self.ping_at() <= Instant::now()
    }

    /// Whether the gateway is gone. While nothing is read, silence proves nothing.
    pub(crate) fn verdict(&self, reading: bool) -> Result<(), Loss> {
        let now = Instant::now();
        if self.silent_at(reading).is_some_and(|at| at <= now) {
            return Err(Loss::Silent(self.patience()));
        }
        if self.stalled_at().is_some_and(|at| at <= now) {
            return Err(Loss::Stalled(self.patience()));
        }
        Ok(())
    }

    fn ping_at(&self) -> Instant {
        let quiet = self.said.min(self.heard);
        self.pinged.map_or(quiet, |pinged| quiet.max(pinged)) + self.heartbeat
    }

    fn silent_at(&self, reading: bool) -> Option<Instant> {
        reading.then(|| self.heard + self.patience())
    }

    fn stalled_at(&self) -> Option<Instant> {
        self.unwritten.map(|since| since + self.patience())
    }

    fn patience(&self) -> Duration {
        self.heartbeat.saturating_mul(5) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const HEARTBEAT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn pings_once_per_heartbeat_when_we_are_silent() {
        let mut pace = Pace::new(HEARTBEAT);
        advance(Duration::from_secs(9)).await;
        pace.heard();
        assert!(!pace.is_ping_due());
        advance(Duration::from_secs(1)).await;
        assert!(pace.is_ping_due());
        pace.said();
        pace.pinged();
        pace.written();
        assert!(!pace.is_ping_due());
        assert_eq!(pace.next_check(true), Instant::now() + HEARTBEAT);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_when_the_gateway_is_silent_though_we_are_not() {
        let mut pace = Pace::new(HEARTBEAT);
        for _ in 0..10 {
            advance(Duration::from_secs(1)).await;
            pace.said();
            pace.written();
        }
        assert!(pace.is_ping_due());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_of_two_and_a_half_heartbeats_is_death_only_while_reading() {
        let mut pace = Pace::new(HEARTBEAT);
        advance(Duration::from_secs(25)).await;
        assert!(matches!(pace.verdict(true), Err(Loss::Silent(_))));
        assert!(pace.verdict(false).is_ok());
        pace.heard();
        assert!(pace.verdict(true).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_does_not_read_is_dead_after_two_and_a_half_heartbeats() {
        let mut pace = Pace::new(HEARTBEAT);
        pace.said();
        for _ in 0..25 {
            advance(Duration::from_secs(1)).await;
            pace.heard();
            pace.said();
        }
        assert!(matches!(pace.verdict(true), Err(Loss::Stalled(_))));
        pace.written();
        assert!(pace.verdict(true).is_ok());
    }
}
