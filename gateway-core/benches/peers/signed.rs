//! Signed messages on a bare channel: what an EXEC_REQUEST and its answer cost with nothing around them.

use std::sync::Arc;

use bytes::BytesMut;
use conexus_client::{
    Identity,
    protocol::{AgentId, Draft, Envelope, ExecRequest, ExecResponse, Message, Payload, Rules},
};
use serde_json::json;
use webrtc::data_channel::DataChannel;

use super::raw;

/// One end of the channel, its identity, and the other's.
pub(crate) struct End {
    channel: Arc<dyn DataChannel>,
    identity: Identity,
    other: AgentId,
}

pub(crate) fn ends(pair: &raw::Pair) -> (End, End) {
    let [one, other] = [Identity::generate(), Identity::generate()];
    let [id, others] = [&one, &other].map(|identity| AgentId::parse(identity.did()).unwrap());
    (
        End { channel: pair.from.clone(), identity: one, other: others },
        End { channel: pair.to.clone(), identity: other, other: id },
    )
}

impl End {
    async fn say(&self, draft: Draft) {
        let text = draft.sign(&self.identity);
        self.channel.send(BytesMut::from(text.as_str())).await.unwrap();
    }

    async fn hear(&self) -> Option<Message> {
        let bytes = raw::message(&*self.channel).await?;
        let text = std::str::from_utf8(&bytes).unwrap();
        let envelope = Envelope::parse(text, Rules::V1_1).unwrap();
        envelope.verify(self.other.public_key()).unwrap();
        Some(Message::try_from(&envelope).unwrap())
    }

    /// Asks for a number's like, and waits for it.
    pub(crate) async fn ask(&self, number: i64) {
        let args = json!({ "n": number }).as_object().cloned();
        let request = ExecRequest { args, timeout_ms: Some(30_000), stream: Some(false) };
        let draft = Draft::new(self.other.as_str(), request);
        let id = draft.id.clone();
        self.say(draft).await;
        let answer = self.hear().await.unwrap();
        assert_eq!(answer.correlation_id, Some(id));
    }

    /// Answers what is asked, to the end.
    pub(crate) async fn answer(self) {
        while let Some(message) = self.hear().await {
            let Payload::ExecRequest(request) = message.payload else { panic!("no request") };
            let response = ExecResponse {
                result: Some(json!(request.args.map_or(0, |args| args.len()))),
                status: Some("success".into()),
                execution_time_ms: Some(0.0),
                ..ExecResponse::default()
            };
            self.say(Draft::new(self.other.as_str(), response).in_reply_to(message.id)).await;
        }
    }
}
