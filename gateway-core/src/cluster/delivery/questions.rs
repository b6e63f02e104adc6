//! Questions from node to node, and their answers.
//!
//! A question waits no longer than `cluster.takeover_timeout`; how many wait is bounded on both sides.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{Delivery, peer::Peer};
use crate::cluster::{
    backplane::Away,
    frame::{Answer, Question},
    ids::MemberId,
};

/// Questions of other nodes that are being answered at most.
pub(super) const ANSWERING: usize = 1024;

/// Whoever answers the questions of other nodes.
pub(crate) trait Answers: Send + Sync {
    /// Answers, within `cluster.takeover_timeout`: nobody waits longer.
    fn answer(&self, from: MemberId, question: Question) -> BoxFuture<'static, Answer>;
}

/// Why a question has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("this node is not part of the cluster now: {0}")]
    Away(#[from] Away),
    #[error("too much is being asked of member {0}, or it is lost")]
    NotAsked(MemberId),
    #[error("member {0} was lost before it answered")]
    Lost(MemberId),
    #[error("member {0} did not answer within {1:?}")]
    TimedOut(MemberId, Duration),
}

/// A question that waits; nobody does once it is dropped.
struct Asked<'a> {
    peer: &'a Peer,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.peer.give_up(self.number);
    }
}

/// A question of another node's.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) from: Arc<Peer>,
    pub(super) number: u64,
    pub(super) question: Question,
}

impl Request {
    pub(super) async fn answer(self, answers: Option<Weak<dyn Answers>>) {
        let Self { from, number, question } = self;
        let answer = match answers.and_then(|answers| answers.upgrade()) {
            Some(answers) => answers.answer(from.member, question).await,
            None => Answer::Nothing,
        };
        from.answer(number, answer);
    }
}

impl Delivery {
    /// Says who answers the questions of other nodes. Once.
    pub(crate) fn answered_by(&self, answers: Weak<dyn Answers>) {
        // A second one would be a fault of this program's; the first one stays.
        let first = self.answers.set(answers).is_ok();
        debug_assert!(first, "somebody answers already");
    }

    /// Asks another member something.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        member: MemberId,
        question: Question,
    ) -> Result<Answer, Unanswered> {
        let answer = self.answer_of(member, question).await;
        let questions = &self.cluster.tally.questions;
        if answer.is_ok() {
            questions.answered.one()
        } else {
            questions.unanswered.one()
        }
        answer
    }

    async fn answer_of(
        self: &Arc<Self>,
        member: MemberId,
        question: Question,
    ) -> Result<Answer, Unanswered> {
        self.cluster.joined()?;
        let peer = self.peer(member);
        let (number, answer) = peer.ask(question).ok_or(Unanswered::NotAsked(member))?;
        let _asked = Asked { peer: &peer, number };
        let patience = self.cluster.settings.takeover_timeout;
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Unanswered::Lost(member)),
            Err(_) => Err(Unanswered::TimedOut(member, patience)),
        }
    }
}
