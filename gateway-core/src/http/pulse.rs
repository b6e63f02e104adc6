//! Whether the accept loop still gets its turns: somebody asks, and the loop answers between two
//! connections. For a watchdog.

use tokio::sync::Notify;

/// See the [module](self). Shared by the loop and whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    asked: Notify,
    answered: Notify,
}

impl Pulse {
    /// Asks, and waits for the loop to answer.
    pub(crate) async fn felt(&self) {
        let mut answered = std::pin::pin!(self.answered.notified());
        // Before it is asked: the answer may come at once.
        answered.as_mut().enable();
        self.asked.notify_one();
        answered.await;
    }

    /// The loop waits for this beside all else.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    pub(super) fn beat(&self) {
        self.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_felt_as_often_as_the_loop_turns_and_no_more() {
        let pulse = Arc::new(Pulse::default());
        let turning = Arc::clone(&pulse);
        let turns = tokio::spawn(async move {
            loop {
                turning.asked().await;
                turning.beat();
            }
        });
        for _ in 0..3 {
            tokio::join!(pulse.felt(), pulse.felt());
        }
        turns.abort();
        let _ = turns.await;
        assert!(timeout(Duration::from_secs(60), pulse.felt()).await.is_err());
    }
}
