//! What this node answers other nodes.

use conexus_protocol::AgentKey;
use futures_util::{FutureExt as _, future::BoxFuture};

use super::{
    claims,
    delivery::questions::Answers,
    frame::{Answer, Question},
    ids::MemberId,
    lists,
};
use crate::{core::Core, world::elsewhere};

impl Answers for Core {
    fn answer(&self, _from: MemberId, question: Question) -> BoxFuture<'static, Answer> {
        let core = self.itself.upgrade();
        async move {
            let Some(core) = core else { return Answer::Nothing };
            match question {
                Question::Yield { key, epoch } => claims::give_way(&core, key, epoch).await,
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
