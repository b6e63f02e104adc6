//! The time that the end of a channel takes.
//!
//! Both sides reset the stream of a channel that ends (RFC 8831, section 6.7). The stack gives its id to the next
//! channel at once, which a reset that is still on its way would end. So a channel is opened only when the end
//! of the one before it has had its round trips.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Round trips until nothing of an end is on its way: two, and as many for a slow one.
const ROUND_TRIPS: u32 = 4;
/// What those take at least, and where the round trip is not known.
const LEAST: Duration = Duration::from_millis(50);
/// No channel waits longer, however many end meanwhile.
const MOST: Duration = Duration::from_secs(1);

/// When a channel of a connection has ended last.
#[derive(Debug, Default)]
pub(super) struct Settling(Mutex<Option<Instant>>);

impl Settling {
    pub(super) fn ended(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether an end is so recent that something may be on its way.
    pub(super) fn is_recent(&self) -> bool {
        self.last().is_some_and(|last| last.elapsed() < MOST)
    }

    /// Waits until nothing is on its way any more.
    pub(super) async fn done(&self, round_trip: Option<Duration>) {
        let time = round_trip.unwrap_or_default().saturating_mul(ROUND_TRIPS).clamp(LEAST, MOST);
        let latest = Instant::now() + MOST;
        while let Some(last) = self.last()
            && last.elapsed() < time
            && Instant::now() < latest
        {
            sleep_until(latest.min(last + time)).await;
        }
    }

    fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_has_its_round_trips() {
        let waits = async |settling: &Settling, round_trip| {
            let began = Instant::now();
            settling.done(round_trip).await;
            began.elapsed()
        };
        let settling = Settling::default();
        assert_eq!(waits(&settling, None).await, Duration::ZERO);
        settling.ended();
        assert_eq!(
            waits(&settling, Some(Duration::from_millis(100))).await,
            Duration::from_millis(400)
        );
        assert_eq!(waits(&settling, Some(Duration::from_millis(100))).await, Duration::ZERO);
        settling.ended();
        assert_eq!(waits(&settling, None).await, LEAST);
        settling.ended();
        assert_eq!(waits(&settling, Some(Duration::from_secs(9))).await, MOST);
        assert!(!settling.is_recent());
    }

    #[tokio::test(start_paused = true)]
    async fn no_channel_waits_for_ever() {
        let settling = Settling::default();
        settling.ended();
        let began = Instant::now();
        tokio::select! {
            () = settling.done(Some(Duration::from_millis(100))) => {}
            () = async { loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                settling.ended();
            } } => {}
        }
        assert_eq!(began.elapsed(), MOST);
    }
}
