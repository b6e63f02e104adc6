//! How often each key may do something.
//!
//! A key is known until its burst is whole again: then it is as if it had never come. The table has
//! a bound; whoever does not fit into it passes uncounted, and that is counted. To refuse instead
//! would let a crowd of strangers keep everybody out, and a crowd that large is no matter of one
//! address or key.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::state::gcra::{Rate, WholeAt};

/// Keys at once: some megabytes.
const MOST: usize = 100_000;
/// A table of this size is not worth a sweep.
const SMALL: usize = 1024;
/// Between two sweeps of a table that is full.
const SWEEP_MS: i64 = 1000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Rates<K> {
    rate: Rate,
    origin: Instant,
    table: Mutex<Table<K>>,
    untracked: AtomicU64,
}

#[derive(Debug)]
struct Table<K> {
    keys: HashMap<K, WholeAt, RandomState>,
    /// With so many keys it is time to look who has gone.
    sweep_at: usize,
    swept_ms: i64,
}

impl<K: Hash + Eq> Rates<K> {
    /// So many per time, and so many at once; a burst of 0 is as many as per time. None at all
    /// where `count` is 0.
    pub(crate) fn new(count: u32, per: Duration, burst: u32) -> Option<Self> {
        let burst = if burst == 0 { count } else { burst };
        let table = Table { keys: HashMap::default(), sweep_at: SMALL, swept_ms: i64::MIN };
        Some(Self {
            rate: Rate::with_burst(count, per, burst)?,
            origin: Instant::now(),
            table: Mutex::new(table),
            untracked: AtomicU64::new(0),
        })
    }

    /// Whether a key may, once more.
    pub(crate) fn admit(&self, key: K) -> bool {
        let now_ms = i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX);
        let mut table = self.table.lock();
        if let Some(whole_at) = table.keys.get_mut(&key) {
            let (admitted, later) = self.rate.admit(Some(*whole_at), now_ms);
            *whole_at = later;
            return admitted;
        }
        table.sweep(now_ms);
        if table.keys.len() >= MOST {
            self.untracked.fetch_add(1, Relaxed);
            return true;
        }
        let (admitted, whole_at) = self.rate.admit(None, now_ms);
        table.keys.insert(key, whole_at);
        admitted
    }

    /// What passed uncounted.
    pub(crate) fn untracked(&self) -> u64 {
        self.untracked.load(Relaxed)
    }
}

impl<K: Hash + Eq> Table<K> {
    /// Forgets who has come to rest, each time that there are twice as many as were left last time.
    fn sweep(&mut self, now_ms: i64) {
        let full = self.keys.len() >= MOST;
        if self.keys.len() < self.sweep_at
            || (full && now_ms < self.swept_ms.saturating_add(SWEEP_MS))
        {
            return;
        }
        self.keys.retain(|_, whole_at| whole_at.as_millis() > now_ms);
        self.sweep_at = (self.keys.len() * 2).clamp(SMALL, MOST);
        self.keys.shrink_to(self.sweep_at);
        self.swept_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admitted(rates: &Rates<u32>, key: u32, tries: usize) -> usize {
        (0..tries).filter(|_| rates.admit(key)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_its_burst_and_its_rate() {
        let rates = Rates::new(2, SECOND, 5).unwrap();
        assert_eq!(admitted(&rates, 1, 20), 5);
        assert_eq!(admitted(&rates, 2, 20), 5);
        advance(SECOND).await;
        assert_eq!(admitted(&rates, 1, 20), 2);
        advance(100 * SECOND).await;
        assert_eq!(admitted(&rates, 1, 20), 5);
        assert!(Rates::<u32>::new(0, SECOND, 5).is_none());
        assert_eq!(admitted(&Rates::new(3, 60 * SECOND, 0).unwrap(), 1, 20), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_come_to_rest_is_forgotten_and_the_table_gets_smaller() {
        let rates = Rates::new(1, SECOND, 0).unwrap();
        for key in 0..50_000 {
            assert!(rates.admit(key));
        }
        advance(2 * SECOND).await;
        // The next ones find that all of them have gone.
        for key in 50_000..120_000 {
            assert!(rates.admit(key));
            advance(Duration::from_millis(1)).await;
        }
        let table = rates.table.lock();
        assert!(table.keys.len() < 5000, "{}", table.keys.len());
        assert!(table.keys.capacity() < 10_000, "{}", table.keys.capacity());
        assert_eq!(rates.untracked(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_locks_nobody_out_and_still_limits_whom_it_knows() {
        let rates = Rates::new(1, 60 * SECOND, 0).unwrap();
        for key in 0..u32::try_from(MOST).unwrap() {
            assert!(rates.admit(key));
        }
        assert!(rates.admit(u32::MAX) && rates.admit(u32::MAX), "a stranger passes");
        assert_eq!(rates.untracked(), 2);
        assert!(!rates.admit(7), "who is known does not");
        assert_eq!(rates.table.lock().keys.len(), MOST);
        advance(61 * SECOND).await;
        assert!(rates.admit(u32::MAX) && !rates.admit(u32::MAX), "there is room again");
    }
}
