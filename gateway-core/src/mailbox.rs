//! The mailbox: short-term hold for an agent that is away.
//!
//! Each agent has at most one, inside its slot of [`presence`](crate::presence), so that the end
//! of a session, the arrival of the next and a message in between happen in one order. Bounded per
//! agent here and in all by [`Postroom`]. Nothing here does I/O.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::Moment,
    cluster::follows::Follows,
    hooks::Judge,
    session::outbox::{Otherwise, Routed},
};

/// How much the mailboxes may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MailboxLimits {
    pub(crate) messages_per_agent: usize,
    pub(crate) bytes_per_agent: usize,
    pub(crate) total_bytes: usize,
    /// Of one sender, for whomever.
    pub(crate) messages_per_sender: usize,
}

#[derive(Debug)]
struct Held {
    routed: Routed,
    until: Moment,
}

/// What waits for one agent, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    held: VecDeque<Held>,
    bytes: usize,
}

impl Mailbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Messages, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.held.len(), self.bytes)
    }

    fn deadline(&self) -> Option<Moment> {
        self.held.iter().map(|held| held.until).min()
    }
}

/// All that is common to the mailboxes: the total, and when which is due.
#[derive(Debug)]
pub(crate) struct Postroom {
    limits: MailboxLimits,
    bytes: AtomicUsize,
    due: Mutex<BTreeSet<(Moment, AgentKey)>>,
    sooner: Notify,
    /// Where there is a cluster: whoever has mail here may turn up on another node.
    follows: OnceLock<Arc<Follows>>,
}

impl Postroom {
    pub(crate) fn new(limits: MailboxLimits) -> Self {
        Self {
            limits,
            bytes: AtomicUsize::new(0),
            due: Mutex::default(),
            sooner: Notify::new(),
            follows: OnceLock::new(),
        }
    }

    /// From now on whoever has mail here may turn up elsewhere. Once, before there is any.
    pub(crate) fn follow_by(&self, follows: Arc<Follows>) {
        let is_first = self.follows.set(follows).is_ok() && self.next_due().is_none();
        debug_assert!(is_first, "the cluster is there before any mail");
    }

    pub(crate) const fn limits(&self) -> MailboxLimits {
        self.limits
    }

    /// Bytes in all mailboxes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Puts a message in, or gives it back when a limit is reached.
    ///
    /// What waits has no judge any more: mail would keep an old generation of policy alive. The one
    /// that it had is handed out, because its end can take a while and must not come under a lock.
    pub(crate) fn hold(
        &self,
        mailbox: &mut Mailbox,
        mut routed: Routed,
        until: Moment,
    ) -> Result<Option<Arc<dyn Judge>>, Routed> {
        let size = routed.text.len();
        let fits = mailbox.held.len() < self.limits.messages_per_agent
            && mailbox.bytes + size <= self.limits.bytes_per_agent
            && routed.sender.held.load(Relaxed) < self.limits.messages_per_sender;
        if !fits || !self.reserve(size) {
            return Err(routed);
        }
        let before = mailbox.deadline();
        let key = routed.to;
        let judge = routed.judge.take();
        routed.read_at = None;
        routed.sender.held.fetch_add(1, Relaxed);
        mailbox.bytes += size;
        mailbox.held.push_back(Held { routed, until });
        self.reschedule(key, before, mailbox.deadline());
        Ok(judge)
    }

    /// Takes everything out, oldest first: its agent is back.
    pub(crate) fn empty(&self, key: AgentKey, mailbox: &mut Mailbox) -> Vec<Routed> {
        self.take(key, mailbox, |_| true)
    }

    /// Takes everything out for another way. Should that turn out to be none, it is held until the same
    /// moments again.
    pub(crate) fn empty_for_now(&self, key: AgentKey, mailbox: &mut Mailbox) -> Vec<Routed> {
        for held in &mut mailbox.held {
            held.routed.otherwise = Otherwise::HoldUntil(held.until);
        }
        self.empty(key, mailbox)
    }

    /// Up to so many mailboxes behind this one, in the order in which something in them is due.
    pub(crate) fn waiting_from(
        &self,
        last: Option<(Moment, AgentKey)>,
        most: usize,
    ) -> Vec<(Moment, AgentKey)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.due.lock().range((from, Bound::Unbounded)).take(most).copied().collect()
    }

    /// Takes out what has waited too long.
    pub(crate) fn expired(&self, key: AgentKey, mailbox: &mut Mailbox, now: Moment) -> Vec<Routed> {
        self.take(key, mailbox, |held| held.until <= now)
    }

    fn take(
        &self,
        key: AgentKey,
        mailbox: &mut Mailbox,
        gone: impl Fn(&Held) -> bool,
    ) -> Vec<Routed> {
        let before = mailbox.deadline();
        let (taken, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut mailbox.held).into_iter().partition(gone);
        mailbox.held = kept;
        let size: usize = taken.iter().map(|held| held.routed.text.len()).sum();
        mailbox.bytes -= size;
        self.bytes.fetch_sub(size, Relaxed);
        self.reschedule(key, before, mailbox.deadline());
        for held in &taken {
            held.routed.sender.held.fetch_sub(1, Relaxed);
        }
        taken.into_iter().map(|held| held.routed).collect()
    }

    /// The earliest moment at which some mailbox has something that waited too long.
    pub(crate) fn next_due(&self) -> Option<(Moment, AgentKey)> {
        self.due.lock().first().copied()
    }

    /// Some of those who have mail, those whose mail is due first to begin with: at most so many that
    /// follow `after`.
    pub(crate) fn some_with_mail(
        &self,
        after: Option<(Moment, AgentKey)>,
        most: usize,
    ) -> Vec<(Moment, AgentKey)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.due.lock().range((from, Bound::Unbounded)).take(most).copied().collect()
    }

    /// Waits until [`next_due`](Self::next_due) may be sooner than it was. Cancel-safe.
    pub(crate) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    fn reserve(&self, size: usize) -> bool {
        self.bytes
            .fetch_update(Relaxed, Relaxed, |bytes| {
                Some(bytes + size).filter(|sum| *sum <= self.limits.total_bytes)
            })
            .is_ok()
    }

    fn reschedule(&self, key: AgentKey, before: Option<Moment>, after: Option<Moment>) {
        if before == after {
            return;
        }
        let mut due = self.due.lock();
        if let Some(before) = before {
            due.remove(&(before, key));
        }
        if let Some(after) = after {
            due.insert((after, key));
        }
        drop(due);
        if let Some(follows) = self.follows.get() {
            match (before, after) {
                (None, Some(_)) => follows.begin(key),
                (Some(_), None) => follows.end(key),
                _ => {}
            }
        }
        self.sooner.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::MessageType;

    use super::*;
    use crate::{
        hooks::EmptyChain,
        session::{
            handle::{SessionHandle, tests::session},
            outbox::Arrival,
        },
    };

    const LIMITS: MailboxLimits = MailboxLimits {
        messages_per_agent: 3,
        bytes_per_agent: 10,
        total_bytes: 12,
        messages_per_sender: 4,
    };

    fn message(to: AgentKey, text: &str) -> Routed {
        from(&session(), to, text)
    }

    fn from(sender: &std::sync::Arc<SessionHandle>, to: AgentKey, text: &str) -> Routed {
        let arrival = Arrival { at: tokio::time::Instant::now(), number: 1 };
        Routed::new(text.into(), to, MessageType::Offer, sender.clone(), arrival)
    }

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn texts(taken: &[Routed]) -> Vec<&str> {
        taken.iter().map(|routed| &*routed.text).collect()
    }

    #[test]
    fn what_was_held_comes_out_in_order_and_frees_its_room() {
        let (postroom, mut mailbox) = (Postroom::new(LIMITS), Mailbox::default());
        let key = session().agent.key();
        for text in ["a", "b", "c"] {
            postroom.hold(&mut mailbox, message(key, text), at(50)).unwrap();
        }
        let back = postroom.hold(&mut mailbox, message(key, "d"), at(50)).err().unwrap();
        assert_eq!(&*back.text, "d");
        assert_eq!(texts(&postroom.empty(key, &mut mailbox)), ["a", "b", "c"]);
        assert!(postroom.next_due().is_none());
        postroom.hold(&mut mailbox, message(key, "1234567890"), at(50)).unwrap();
    }

    #[test]
    fn what_waits_keeps_no_judge_alive() {
        let (postroom, mut mailbox) = (Postroom::new(LIMITS), Mailbox::default());
        let mut routed = message(session().agent.key(), "x");
        let (key, judge) = (routed.to, Arc::new(EmptyChain));
        routed.judge = Some(Arc::clone(&judge) as _);
        let handed_out = postroom.hold(&mut mailbox, routed, at(50)).unwrap();
        assert!(handed_out.is_some());
        drop(handed_out);
        assert_eq!(Arc::strong_count(&judge), 1);
        assert!(postroom.empty(key, &mut mailbox)[0].judge.is_none());
    }

    #[test]
    fn the_total_bounds_all_mailboxes_together() {
        let postroom = Postroom::new(LIMITS);
        let (mut one, mut other) = (Mailbox::default(), Mailbox::default());
        let (a, b) = (session().agent.key(), session().agent.key());
        postroom.hold(&mut one, message(a, "1234567890"), at(9)).unwrap();
        assert!(postroom.hold(&mut other, message(b, "123"), at(9)).is_err());
        postroom.expired(a, &mut one, at(9));
        postroom.hold(&mut other, message(b, "123"), at(9)).unwrap();
    }

    #[test]
    fn one_sender_cannot_take_all_the_room() {
        let (postroom, sender) = (Postroom::new(LIMITS), session());
        let mut mailboxes: Vec<_> =
            (0..5).map(|_| (session().agent.key(), Mailbox::default())).collect();
        for (key, mailbox) in &mut mailboxes[..4] {
            postroom.hold(mailbox, from(&sender, *key, "x"), at(9)).unwrap();
        }
        let (key, mailbox) = &mut mailboxes[4];
        assert!(postroom.hold(mailbox, from(&sender, *key, "x"), at(9)).is_err());
        let (first, its_mailbox) = &mut mailboxes[0];
        postroom.expired(*first, its_mailbox, at(9));
        let (key, mailbox) = &mut mailboxes[4];
        postroom.hold(mailbox, from(&sender, *key, "x"), at(9)).unwrap();
    }

    #[test]
    fn each_message_expires_at_its_own_moment() {
        let (postroom, mut mailbox) = (Postroom::new(LIMITS), Mailbox::default());
        let key = session().agent.key();
        postroom.hold(&mut mailbox, message(key, "late"), at(90)).unwrap();
        postroom.hold(&mut mailbox, message(key, "soon"), at(20)).unwrap();
        assert_eq!(postroom.next_due(), Some((at(20), key)));
        assert_eq!(texts(&postroom.expired(key, &mut mailbox, at(20))), ["soon"]);
        assert_eq!(postroom.next_due(), Some((at(90), key)));
        assert_eq!(texts(&postroom.expired(key, &mut mailbox, at(89))), [""; 0]);
        assert_eq!(texts(&postroom.expired(key, &mut mailbox, at(90))), ["late"]);
        assert!(mailbox.is_empty());
    }
}
