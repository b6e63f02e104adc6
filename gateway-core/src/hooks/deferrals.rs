//! Verdicts that were put off: tokens, and who waits for them.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use conexus_plugin_api::{Answer, host::Refused};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What a deferred verdict came to; `Err` is the hook's own failure.
pub(crate) type Completed = Result<Answer, String>;

struct Waiting {
    hook: Box<str>,
    answer: oneshot::Sender<Completed>,
}

/// See the [module](self). Bounded; an entry goes when it is completed or given up.
pub(crate) struct Deferrals {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    max: usize,
}

impl Deferrals {
    pub(crate) fn new(max: usize) -> Self {
        // Not from 0 or 1: a plugin that makes a token up should not hit one by chance.
        let next = AtomicU64::new(rand::random::<u64>() >> 1 | 1 << 40);
        Self { waiting: Mutex::default(), next, max }
    }

    /// A token for a hook, and where its verdict will arrive.
    pub(crate) fn defer(&self, hook: &str) -> Result<(u64, oneshot::Receiver<Completed>), Refused> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.max {
            return Err(Refused::Full);
        }
        let token = self.next.fetch_add(1, Relaxed);
        let (answer, arrives) = oneshot::channel();
        waiting.insert(token, Waiting { hook: hook.into(), answer });
        Ok((token, arrives))
    }

    /// Gives a verdict. False when nobody waits for it, or it is another hook's.
    pub(crate) fn complete(&self, hook: &str, token: u64, completed: Completed) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.get(&token).is_none_or(|entry| *entry.hook != *hook) {
            return false;
        }
        let Some(entry) = waiting.remove(&token) else { return false };
        drop(waiting);
        entry.answer.send(completed).is_ok()
    }

    /// Nobody waits for it any more.
    pub(crate) fn give_up(&self, token: u64) {
        self.waiting.lock().remove(&token);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_completed_once_by_its_own_hook_and_never_after_it_was_given_up() {
        let deferrals = Deferrals::new(2);
        let (token, mut arrives) = deferrals.defer("jwt").unwrap();
        let (other, _waits) = deferrals.defer("jwt").unwrap();
        assert_eq!(deferrals.defer("jwt").unwrap_err(), Refused::Full);
        assert!(!deferrals.complete("webhook", token, Ok(Answer::CONTINUE)));
        assert!(deferrals.complete("jwt", token, Ok(Answer::CONTINUE)));
        assert_eq!(arrives.try_recv().unwrap(), Ok(Answer::CONTINUE));
        assert!(!deferrals.complete("jwt", token, Ok(Answer::CONTINUE)));
        deferrals.give_up(other);
        assert!(!deferrals.complete("jwt", other, Ok(Answer::CONTINUE)));
        assert_eq!(deferrals.len(), 0);
    }
}
