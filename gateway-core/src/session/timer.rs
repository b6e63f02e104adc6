//! A session's one timer.
//!
//! A session is polled for every message, its timer is due once a minute or so. To poll a timer of
//! the runtime's takes an exchange of wakers, so this one is polled only when it has to be: when it
//! was set, when another waker asks, or when it is due. [`active`](super::active) owns it.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    task::coop,
    time::{Instant, Sleep},
};

/// See the [module](self).
pub(super) struct Timer<'s> {
    sleep: Pin<&'s mut Sleep>,
    /// Who is going to be woken; nobody, if it was set since it was polled.
    waits: Option<Waker>,
}

impl<'s> Timer<'s> {
    pub(super) fn new(sleep: Pin<&'s mut Sleep>) -> Self {
        Self { sleep, waits: None }
    }

    pub(super) fn set(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
        self.waits = None;
    }

    /// Brings it nearer, if that is nearer.
    pub(super) fn not_after(&mut self, deadline: Instant) {
        if deadline < self.sleep.deadline() {
            self.set(deadline);
        }
    }

    /// Ready when it is due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_set = self.waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        // Of a task that has used its turn up the runtime's timer takes no notice.
        let takes_notice = coop::has_budget_remaining();
        let due = self.sleep.as_mut().poll(cx);
        self.waits = (takes_notice && due.is_pending()).then(|| cx.waker().clone());
        due
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, time::Duration};

    use tokio::time::sleep_until;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_due_at_its_time_however_often_it_is_set_and_asked() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut sleep = pin!(sleep_until(at(9)));
        let mut timer = Timer::new(sleep.as_mut());
        for (set, due) in [(None, 9), (Some(20), 20), (Some(30), 30)] {
            if let Some(set) = set {
                timer.set(at(set));
            }
            assert!(futures_util::poll!(poll_fn(|cx| timer.poll(cx))).is_pending());
            assert!(futures_util::poll!(poll_fn(|cx| timer.poll(cx))).is_pending());
            poll_fn(|cx| timer.poll(cx)).await;
            assert_eq!(Instant::now(), at(due));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_due_also_when_the_task_had_used_its_turn_up_when_it_asked() {
        let start = Instant::now();
        let mut sleep = pin!(sleep_until(start + Duration::from_secs(9)));
        let mut timer = Timer::new(sleep.as_mut());
        poll_fn(|cx| {
            while coop::has_budget_remaining() {
                let _ = pin!(coop::consume_budget()).poll(cx);
            }
            assert!(timer.poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_brought_nearer_but_not_put_off() {
        let start = Instant::now();
        let mut sleep = pin!(sleep_until(start + Duration::from_secs(9)));
        let mut timer = Timer::new(sleep.as_mut());
        assert!(futures_util::poll!(poll_fn(|cx| timer.poll(cx))).is_pending());
        timer.not_after(start + Duration::from_secs(20));
        timer.not_after(start + Duration::from_secs(5));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
