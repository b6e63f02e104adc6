//! Where a watched agent is, of what this node knows itself and what the directory of the cluster says.
//!
//! An agent is online while it is here or on another node; that it moves between them is no change. A
//! session's own node knows first, the directory repeats it later: of what the directory says only
//! the newest counts, by epoch, and an agent's coming before its leaving, unless it is back with the same
//! registration on a node that was given up and is another member now. No clock decides anything.

use std::{borrow::Cow, cmp::Ordering};

use conexus_protocol::Timestamp;

use super::change::Shown;
use crate::cluster::{
    backplane::ChangeKind,
    ids::{Epoch, MemberId},
};

/// How a session ends whose agent registered anew: it may well be elsewhere now.
const REPLACED: &str = "replaced";

/// See the [module](self). What its methods return is what watchers are to be told.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    here: bool,
    /// Its registration on another node.
    there: Option<Epoch>,
    /// The newest that the directory said.
    newest: Option<Word>,
    /// How it went from here, where the directory still had it elsewhere or is asked.
    left: Option<Shown>,
    /// The directory is asked whether it is elsewhere, before anybody is told that it left here.
    asked: bool,
    /// Where it is was known before this node lost sight of the directory, and has not been since.
    doubtful: bool,
}

/// What the directory said.
#[derive(Debug, Clone, Copy)]
struct Word {
    epoch: Epoch,
    member: MemberId,
    is_over: bool,
}

impl Word {
    /// Whether a change that is told now is older than this. They are told in the order in which they
    /// were made, but answers to questions come in between.
    fn outdates(self, told: Self) -> bool {
        match self.epoch.cmp(&told.epoch) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal if self.member == told.member => self.is_over >= told.is_over,
            // What became of who its node was before.
            Ordering::Equal => told.is_over,
        }
    }
}

/// What follows from a change on this node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Here {
    Nothing,
    Tell(Shown),
    /// It may have moved: the directory knows.
    Ask,
}

impl Whereabouts {
    /// Of one that nobody watched yet.
    pub(super) fn new(here: bool) -> Self {
        Self { here, ..Self::default() }
    }

    const fn is_online(&self) -> bool {
        self.here || self.there.is_some()
    }

    /// It is doubted where it was, and whether it still is.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// It came or went on this node. `joined`: the directory can be asked.
    pub(super) fn here(&mut self, shown: Shown, joined: bool) -> Here {
        let was_online = self.is_online();
        let was_asked = self.asked;
        self.here = matches!(shown, Shown::Online(_));
        if self.here {
            (self.left, self.asked) = (None, false);
            // Nobody was told that it had gone.
            return if was_online || was_asked { Here::Nothing } else { Here::Tell(shown) };
        }
        if self.there.is_some() {
            self.left = Some(shown);
            return Here::Nothing;
        }
        match &shown {
            Shown::Offline(_, reason) if joined && reason == REPLACED => {
                (self.left, self.asked) = (Some(shown), true);
                Here::Ask
            }
            _ => Here::Tell(shown),
        }
    }

    /// The directory tells of a change, on this node if it is `own`.
    pub(super) fn heard(
        &mut self,
        own: bool,
        (member, epoch): (MemberId, Epoch),
        kind: &ChangeKind,
        now: Timestamp,
    ) -> Option<Shown> {
        let word = Word { epoch, member, is_over: matches!(kind, ChangeKind::Left(_)) };
        if self.newest.is_some_and(|newest| newest.outdates(word)) {
            return None;
        }
        self.take(own, word, kind, now)
    }

    fn take(&mut self, own: bool, word: Word, kind: &ChangeKind, now: Timestamp) -> Option<Shown> {
        let epoch = word.epoch;
        self.newest = Some(word);
        self.doubtful = false;
        match kind {
            ChangeKind::Came | ChangeKind::Moved if !own => self.came(epoch),
            // Here is where it was: unless it still is, it went as was noted.
            ChangeKind::Came | ChangeKind::Moved => self.gone("closed".into(), now),
            // An older registration of its is over; a newer one stands.
            ChangeKind::Left(_) if self.there.is_some_and(|there| there > epoch) => None,
            ChangeKind::Left(reason) => {
                if !own && !self.asked {
                    self.left = None;
                }
                self.gone(reason.clone().into(), now)
            }
        }
    }

    fn came(&mut self, epoch: Epoch) -> Option<Shown> {
        let was_told = self.is_online() || std::mem::take(&mut self.asked);
        (self.there, self.left) = (Some(epoch), None);
        (!was_told).then(|| Shown::Online(since(epoch)))
    }

    /// It is on no other node. How it went from here comes first, where that is still to be told.
    fn gone(&mut self, reason: Cow<'static, str>, now: Timestamp) -> Option<Shown> {
        let was_there = self.there.take().is_some();
        let is_news = was_there && !self.here && !self.asked;
        is_news.then(|| self.left.take().unwrap_or(Shown::Offline(now, reason)))
    }

    /// The directory was asked and has this registration of its, on this node if that is `own`; or
    /// none, which is the last word if it is `settled`. What was told of that registration is newer.
    pub(super) fn found(
        &mut self,
        entry: Option<(bool, MemberId, Epoch)>,
        settled: bool,
        now: Timestamp,
    ) -> Option<Shown> {
        let told = match entry {
            Some((own, member, epoch)) => {
                let is_new = self.newest.is_none_or(|newest| newest.epoch < epoch);
                let word = Word { epoch, member, is_over: false };
                let told = is_new.then(|| self.take(own, word, &ChangeKind::Came, now)).flatten();
                self.doubtful = false;
                told
            }
            None if self.doubtful && settled => {
                (self.doubtful, self.left) = (false, None);
                self.gone("node_lost".into(), now)
            }
            None => None,
        };
        told.or_else(|| self.answered())
    }

    /// What was asked is not known to be otherwise: it has gone.
    fn answered(&mut self) -> Option<Shown> {
        let asked = std::mem::take(&mut self.asked);
        if asked && !self.is_online() { self.left.take() } else { None }
    }

    /// This node is in the cluster again: what was known from before is to be confirmed.
    pub(super) fn joined(&mut self) {
        self.newest = None;
        self.doubtful = self.there.is_some();
    }

    /// The directory cannot be asked now.
    pub(super) fn unanswered(&mut self) -> Option<Shown> {
        self.answered()
    }

    /// This node has been apart for too long to say that anybody is elsewhere.
    pub(super) fn cut_off(&mut self, now: Timestamp) -> Option<Shown> {
        (self.newest, self.doubtful) = (None, false);
        if !self.asked {
            self.left = None;
        }
        let told = self.gone("node_unreachable".into(), now);
        told.or_else(|| self.answered())
    }
}

/// When an agent registered, by the engine's clock.
fn since(Epoch(micros): Epoch) -> Timestamp {
    Timestamp::from_unix_millis(i64::try_from(micros / 1000).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAME: ChangeKind = ChangeKind::Came;
    const MOVED: ChangeKind = ChangeKind::Moved;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn left(reason: &str) -> ChangeKind {
        ChangeKind::Left(reason.into())
    }

    fn offline(millis: i64, reason: &'static str) -> Shown {
        Shown::Offline(at(millis), reason.into())
    }

    /// What other nodes say, in order, and what is told of it.
    fn heard(agent: &mut Whereabouts, own: bool, epoch: u64, kind: &ChangeKind) -> Option<Shown> {
        heard_of(agent, own, (1, epoch), kind)
    }

    fn heard_of(
        agent: &mut Whereabouts,
        own: bool,
        (member, epoch): (u64, u64),
        kind: &ChangeKind,
    ) -> Option<Shown> {
        agent.heard(own, (MemberId(member), Epoch(epoch * 1000)), kind, at(99))
    }

    /// An answer of the directory's.
    fn entry(member: u64, epoch: u64) -> Option<(bool, MemberId, Epoch)> {
        Some((false, MemberId(member), Epoch(epoch * 1000)))
    }

    #[test]
    fn it_is_back_with_a_node_that_was_given_up_and_what_is_late_about_that_changes_nothing() {
        let online = Some(Shown::Online(at(1)));
        let lost = left("node_lost");
        let mut agent = Whereabouts::new(false);
        assert_eq!(heard_of(&mut agent, false, (1, 1), &CAME), online);
        assert_eq!(heard_of(&mut agent, false, (1, 1), &lost), Some(offline(99, "node_lost")));
        assert_eq!(agent.found(entry(1, 1), false, at(99)), None, "asked before that");
        assert_eq!(heard_of(&mut agent, false, (2, 1), &CAME), online);
        assert_eq!(heard_of(&mut agent, false, (2, 1), &lost), Some(offline(99, "node_lost")));

        // The answer to a question is faster than what is told.
        let mut agent = Whereabouts::new(false);
        assert_eq!(agent.found(entry(2, 1), false, at(99)), online);
        assert_eq!(heard_of(&mut agent, false, (1, 1), &lost), None);
        assert_eq!(heard_of(&mut agent, false, (2, 1), &CAME), None);
        assert_eq!(heard_of(&mut agent, false, (2, 1), &lost), Some(offline(99, "node_lost")));

        // It was announced before the others gave its node up.
        let mut agent = Whereabouts::new(false);
        assert_eq!(heard_of(&mut agent, false, (1, 1), &CAME), online);
        assert_eq!(heard_of(&mut agent, false, (2, 1), &MOVED), None);
        assert_eq!(heard_of(&mut agent, false, (1, 1), &lost), None);
        assert_eq!(
            heard_of(&mut agent, false, (2, 1), &left("closed")),
            Some(offline(99, "closed"))
        );
    }

    #[test]
    fn it_comes_moves_and_goes_elsewhere() {
        let mut agent = Whereabouts::new(false);
        assert_eq!(heard(&mut agent, false, 1, &CAME), Some(Shown::Online(at(1))));
        assert_eq!(heard(&mut agent, false, 2, &MOVED), None);
        assert_eq!(heard(&mut agent, false, 1, &left("node_lost")), None, "the older one");
        assert_eq!(heard(&mut agent, false, 2, &left("closed")), Some(offline(99, "closed")));
        assert_eq!(heard(&mut agent, false, 2, &MOVED), None, "came before it left");
        assert_eq!(heard(&mut agent, false, 2, &left("closed")), None);
        assert_eq!(heard(&mut agent, false, 3, &CAME), Some(Shown::Online(at(3))));
    }

    #[test]
    fn what_happens_here_is_told_once_and_its_echo_not() {
        let mut agent = Whereabouts::new(false);
        let online = Shown::Online(at(5));
        assert_eq!(agent.here(online.clone(), true), Here::Tell(online));
        assert_eq!(heard(&mut agent, true, 5, &CAME), None);
        let gone = offline(6, "expired");
        assert_eq!(agent.here(gone.clone(), true), Here::Tell(gone));
        let online = Shown::Online(at(7));
        assert_eq!(agent.here(online.clone(), true), Here::Tell(online));
        assert_eq!(heard(&mut agent, true, 5, &left("expired")), None);
        assert_eq!(heard(&mut agent, true, 7, &CAME), None);
        assert!(agent.is_online());
    }

    #[test]
    fn a_move_from_here_is_no_change_whichever_is_heard_first() {
        let mut agent = Whereabouts::new(true);
        assert_eq!(heard(&mut agent, false, 2, &MOVED), None);
        assert_eq!(agent.here(offline(3, REPLACED), true), Here::Nothing);
        assert!(agent.is_online());
        assert_eq!(heard(&mut agent, false, 2, &left("expired")), Some(offline(99, "expired")));

        let mut agent = Whereabouts::new(true);
        assert_eq!(agent.here(offline(3, REPLACED), true), Here::Ask);
        assert_eq!(heard(&mut agent, false, 2, &MOVED), None);
        assert_eq!(agent.found(entry(1, 2), false, at(9)), None);
        assert!(agent.is_online());

        let mut agent = Whereabouts::new(true);
        assert_eq!(agent.here(offline(3, REPLACED), true), Here::Ask);
        assert_eq!(agent.found(entry(1, 2), false, at(9)), None);
        assert_eq!(heard(&mut agent, false, 2, &left("closed")), Some(offline(99, "closed")));
    }

    #[test]
    fn one_that_was_replaced_and_is_nowhere_is_told_gone_when_that_is_known() {
        let gone = offline(3, REPLACED);
        let mut agent = Whereabouts::new(true);
        assert_eq!(agent.here(gone.clone(), true), Here::Ask);
        assert_eq!(agent.found(None, false, at(9)), Some(gone.clone()));
        let mut agent = Whereabouts::new(true);
        assert_eq!(agent.here(gone.clone(), true), Here::Ask);
        assert_eq!(agent.unanswered(), Some(gone.clone()));
        assert_eq!(agent.unanswered(), None);
        let mut agent = Whereabouts::new(true);
        assert_eq!(agent.here(gone.clone(), true), Here::Ask);
        assert_eq!(agent.here(Shown::Online(at(4)), true), Here::Nothing, "nobody was told");
        assert_eq!(agent.found(None, false, at(9)), None);
        let mut agent = Whereabouts::new(true);
        assert_eq!(agent.here(gone.clone(), false), Here::Tell(gone), "nobody can be asked");
    }

    #[test]
    fn a_move_to_here_is_no_change_and_its_end_here_is_told_after_the_echo() {
        let mut agent = Whereabouts::new(false);
        heard(&mut agent, false, 1, &CAME);
        assert_eq!(agent.here(Shown::Online(at(2)), true), Here::Nothing);
        assert_eq!(heard(&mut agent, true, 2, &MOVED), None);
        assert_eq!(agent.here(offline(3, "closed"), true), Here::Tell(offline(3, "closed")));

        let mut agent = Whereabouts::new(false);
        heard(&mut agent, false, 1, &CAME);
        agent.here(Shown::Online(at(2)), true);
        // Faster than the directory, which still had it elsewhere.
        assert_eq!(agent.here(offline(3, "expired"), true), Here::Nothing);
        assert_eq!(heard(&mut agent, true, 2, &MOVED), Some(offline(3, "expired")));
        assert_eq!(heard(&mut agent, true, 2, &left("expired")), None);
    }

    #[test]
    fn what_was_known_before_an_outage_is_confirmed_or_ends_in_time() {
        let mut agent = Whereabouts::new(false);
        heard(&mut agent, false, 1, &CAME);
        agent.joined();
        assert!(agent.is_doubtful());
        assert_eq!(agent.found(None, false, at(9)), None, "its node may not be back yet");
        assert_eq!(heard(&mut agent, false, 1, &CAME), None, "now it is");
        assert!(!agent.is_doubtful());
        assert_eq!(agent.found(None, true, at(9)), None, "what came in is newer");
        agent.joined();
        assert_eq!(agent.found(None, true, at(9)), Some(offline(9, "node_lost")));
    }

    #[test]
    fn whoever_is_cut_off_knows_of_nobody_elsewhere_until_it_is_back() {
        let mut agent = Whereabouts::new(false);
        heard(&mut agent, false, 1, &CAME);
        assert_eq!(agent.cut_off(at(9)), Some(offline(9, "node_unreachable")));
        assert_eq!(agent.cut_off(at(9)), None);
        agent.joined();
        assert_eq!(agent.found(entry(1, 1), false, at(20)), Some(Shown::Online(at(1))));
        let mut agent = Whereabouts::new(true);
        assert_eq!(agent.cut_off(at(9)), None, "this one is here");
    }
}
