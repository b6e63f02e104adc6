//! Until when a connection may be used for requests: whoever holds its place without getting on is
//! to lose it, however little it reads. `serve` ends it; whoever answers for longer puts it off.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// See the [module](self). A clone is of the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    pub(super) fn at(until: Instant) -> Self {
        Self(Arc::new(Mutex::new(until)))
    }

    /// The connection may be used for this long yet, at least.
    pub(crate) fn put_off(&self, time: Duration) {
        self.put_off_until(Instant::now() + time);
    }

    pub(super) fn put_off_until(&self, later: Instant) {
        let mut until = self.0.lock();
        *until = (*until).max(later);
    }

    /// Waits for it. It is never put forward, so that it is enough to look again when it has come.
    pub(super) async fn passed(&self) {
        loop {
            let until = *self.0.lock();
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_put_off_and_never_put_forward() {
        let started = Instant::now();
        let deadline = Deadline::at(started + Duration::from_secs(10));
        deadline.put_off(Duration::from_secs(1));
        let other = deadline.clone();
        tokio::join!(deadline.passed(), async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                other.put_off(Duration::from_secs(10));
            }
        });
        assert_eq!(started.elapsed().as_secs(), 100);
    }
}
