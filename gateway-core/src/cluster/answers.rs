//! What this node answers other nodes.

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{
    claims,
    delivery::questions::Answers,
    frame::{Answer, Question},
    ids::MemberId,
};
use crate::core::Core;

impl Answers for Core {
    fn answer(&self, _from: MemberId, question: Question) -> BoxFuture<'static, Answer> {
        let core = self.itself.upgrade();
        async move {
            let Some(core) = core else { return Answer::Nothing };
            match question {
                Question::Yield { key, epoch } => claims::give_way(&core, key, epoch).await,
                Question::Page { .. } | Question::Close { .. } => Answer::Nothing,
            }
        }
        .boxed()
    }
}
