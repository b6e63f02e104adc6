//! What this node asks others, and what it answers them: the one place that knows who sees to which
//! question.

use std::sync::{Arc, Weak};

use conexus_protocol::AgentKey;
use futures_util::future::{BoxFuture, FutureExt as _};

use super::{
    Questions,
    backplane::Away,
    claims,
    delivery::{Delivery, questions::Answers},
    frame::{Answer, Question},
    ids::MemberId,
    lists,
};
use crate::{core::Core, world::elsewhere};

/// Answers for a gateway, for as long as that is there.
pub(super) struct Respondent(pub(super) Weak<Core>);

impl Answers for Respondent {
    fn answer(&self, _from: MemberId, question: Question) -> BoxFuture<'static, Answer> {
        let core = self.0.upgrade();
        async move {
            let Some(core) = core else { return Answer::Nothing };
            match question {
                Question::Yield { key, epoch } => claims::give_way(core, key, epoch).await,
                Question::Page { after, limit, filter } => {
                    let after = after.map(AgentKey::from_bytes);
                    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                    lists::answer(&core, after, limit, filter).await
                }
                Question::Close { key, close, reason } => {
                    elsewhere::closed(&core, AgentKey::from_bytes(key), close, &reason)
                }
                Question::Bans => {
                    core.bans.look_again();
                    Answer::Nothing
                }
            }
        }
        .boxed()
    }
}

/// Asks by way of the frames that nodes exchange.
#[derive(Debug)]
pub(super) struct ByFrames(Weak<Delivery>);

impl ByFrames {
    /// Whoever delivers holds the cluster, which holds this.
    pub(super) fn new(delivery: &Arc<Delivery>) -> Self {
        Self(Arc::downgrade(delivery))
    }
}

impl Questions for ByFrames {
    fn ask(&self, member: MemberId, question: Question) -> BoxFuture<'_, Result<Answer, Away>> {
        async move {
            let gone = || Away("the gateway has stopped".into());
            let delivery = self.0.upgrade().ok_or_else(gone)?;
            let answer = delivery.ask(member, question).await;
            answer.map_err(|unanswered| Away(unanswered.to_string().into()))
        }
        .boxed()
    }
}
