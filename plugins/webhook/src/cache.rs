//! Answers, for a while: the least recently used go first.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use conexus_plugin_api::Answer;
use lru::LruCache;

/// A hash, so that nothing secret is kept.
pub(crate) type Key = [u8; 32];

pub(crate) struct Cache {
    answers: Mutex<LruCache<Key, (Answer, i64)>>,
    ttl_ms: i64,
}

impl Cache {
    pub(crate) fn new(entries: NonZeroUsize, ttl_ms: i64) -> Self {
        Self { answers: Mutex::new(LruCache::new(entries)), ttl_ms }
    }

    fn answers(&self) -> MutexGuard<'_, LruCache<Key, (Answer, i64)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &Key, now_ms: i64) -> Option<Answer> {
        let mut answers = self.answers();
        let (answer, until_ms) = answers.get(key)?;
        if now_ms < *until_ms {
            return Some(answer.clone());
        }
        answers.pop(key);
        None
    }

    pub(crate) fn put(&self, key: Key, answer: Answer, now_ms: i64) {
        self.answers().put(key, (answer, now_ms.saturating_add(self.ttl_ms)));
    }
}

#[cfg(test)]
mod tests {
    use conexus_plugin_api::{CONTINUE, allow};

    use super::*;

    #[test]
    fn answers_are_kept_for_their_time_and_within_bounds() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap(), 100);
        cache.put([1; 32], allow(), 0);
        assert_eq!(cache.get(&[1; 32], 99), Some(allow()));
        assert_eq!(cache.get(&[1; 32], 100), None);
        cache.put([1; 32], allow(), 0);
        cache.put([2; 32], CONTINUE, 0);
        assert!(cache.get(&[1; 32], 0).is_some());
        cache.put([3; 32], CONTINUE, 0);
        let kept = [1, 2, 3].map(|key| cache.get(&[key; 32], 0).is_some());
        assert_eq!(kept, [true, false, true]);
    }
}
