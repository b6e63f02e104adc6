//! Something that was asked and is not answered yet.
//!
//! `progress` and `partial` are words on the way, every other `status` of an EXEC_RESPONSE is the end. Whoever
//! gives up (its time is over, or it is dropped) says so to the other side.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use conexus_protocol::{ErrorCode, ExecResponse, Intent, MessageType};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Sleep, sleep},
};

use super::way::Way;
use crate::p2p::{error::RequestError, peers::Peers};

/// Words on the way that wait for their reader.
const MAX_WORDS: usize = 1024;

/// A request's default time.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Hears how far a request is.
type OnProgress = Arc<dyn Fn(Value) + Send + Sync>;

/// How a request is made.
#[derive(Clone)]
#[must_use]
pub struct RequestOptions {
    pub(crate) timeout: Duration,
    pub(crate) on_progress: Option<OnProgress>,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self { timeout: DEFAULT_TIMEOUT, on_progress: None }
    }
}

impl fmt::Debug for RequestOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestOptions").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl RequestOptions {
    /// The defaults: 30 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the result may take; the other side is told, in whole milliseconds. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Hears how far a request is, in the application's words, while [`Peer::request`](crate::Peer::request)
    /// waits. A stream tells it itself.
    pub fn on_progress(mut self, hear: impl Fn(Value) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(hear));
        self
    }
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// How far it is, in the application's words.
    Progress(Value),
    /// The next part of the result.
    Part(Value),
    /// The result, or what remains of it after the parts. Nothing follows.
    Result(Value),
}

/// What became of a question.
#[derive(Debug)]
pub(super) enum Answered {
    Result(Value),
    Intent(Intent),
    Pong,
}

pub(super) type Outcome = Result<Answered, RequestError>;

/// Where answers go.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// The type of its answers.
    pub(super) expects: MessageType,
    words: mpsc::Sender<Reply>,
    end: oneshot::Sender<Outcome>,
}

/// What comes of a question.
#[derive(Debug)]
pub(super) enum Heard {
    /// A word on the way.
    Word(Reply),
    /// The end.
    End(Outcome),
}

impl Inquiry {
    pub(super) fn end(self, outcome: Outcome) {
        // Fails when nobody waits any more.
        let _ = self.end.send(outcome);
    }

    /// Hands a word over; whether its reader keeps up.
    pub(super) fn word(&self, word: Reply) -> bool {
        // Where nobody reads, it is about to be forgotten.
        !matches!(self.words.try_send(word), Err(mpsc::error::TrySendError::Full(_)))
    }

    pub(super) fn too_fast() -> RequestError {
        RequestError::SlowReader(MAX_WORDS)
    }
}

/// An EXEC_RESPONSE as docs/webrtc.md has it: a word on the way, or the end.
pub(super) fn read(response: ExecResponse) -> Heard {
    let ExecResponse { result, error, status, .. } = response;
    match (status.as_deref(), error) {
        (Some("progress"), _) => Heard::Word(Reply::Progress(result.unwrap_or_default())),
        (Some("partial"), _) => Heard::Word(Reply::Part(result.unwrap_or_default())),
        (_, Some(error)) => Heard::End(Err(RequestError::Failed { error, result })),
        (Some("error"), None) => {
            let error = "the request failed".into();
            Heard::End(Err(RequestError::Failed { error, result }))
        }
        _ => Heard::End(Ok(Answered::Result(result.unwrap_or_default()))),
    }
}

/// The asker's end.
pub(super) struct Asked {
    pub(super) peers: Arc<Peers>,
    pub(super) way: Way,
    pub(super) to: String,
    pub(super) id: String,
    pub(super) expects: MessageType,
    patience: Duration,
    words: mpsc::Receiver<Reply>,
    end: oneshot::Receiver<Outcome>,
    sending: Option<BoxFuture<'static, Result<(), RequestError>>>,
    deadline: Pin<Box<Sleep>>,
    is_over: bool,
}

impl Asked {
    /// Both ends of a question that `sending` puts.
    pub(super) fn new(
        peers: Arc<Peers>,
        way: Way,
        (to, id): (String, String),
        (expects, patience): (MessageType, Duration),
        sending: BoxFuture<'static, Result<(), RequestError>>,
    ) -> (Self, Inquiry) {
        let (words, heard) = mpsc::channel(MAX_WORDS);
        let (end, ended) = oneshot::channel();
        let asked = Self {
            peers,
            way,
            to,
            id,
            expects,
            patience,
            words: heard,
            end: ended,
            sending: Some(sending),
            deadline: Box::pin(sleep(patience)),
            is_over: false,
        };
        (asked, Inquiry { expects, words, end })
    }

    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Some(sending) = &mut self.sending
            && let Poll::Ready(sent) = sending.poll_unpin(cx)
        {
            self.sending = None;
            if let Err(error) = sent {
                self.forget();
                return Poll::Ready(Heard::End(Err(error)));
            }
        }
        match self.words.poll_recv(cx) {
            Poll::Ready(Some(word)) => return Poll::Ready(Heard::Word(word)),
            // All words are read, and what ended it is known.
            Poll::Ready(None) => {
                let end = ready!(self.end.poll_unpin(cx));
                self.forget();
                return Poll::Ready(Heard::End(end.unwrap_or(Err(RequestError::Closed))));
            }
            Poll::Pending => {}
        }
        ready!(self.deadline.as_mut().poll(cx));
        self.give_up("timeout");
        Poll::Ready(Heard::End(Err(RequestError::Timeout(self.patience))))
    }

    /// The end; words on the way are told to `hear`.
    pub(super) async fn outcome(mut self, hear: impl Fn(Reply)) -> Outcome {
        loop {
            match std::future::poll_fn(|cx| self.poll_word(cx)).await {
                Heard::Word(word) => hear(word),
                Heard::End(outcome) => return outcome,
            }
        }
    }

    fn give_up(&mut self, reason: &'static str) {
        if self.forget() && self.expects == MessageType::ExecResponse {
            let about = (&*self.to, &*self.id);
            let why = (ErrorCode::Timeout, "the result is not wanted any more", reason);
            self.way.refuse(&self.peers, about, why);
        }
    }

    /// Whether it was under way still.
    fn forget(&mut self) -> bool {
        if std::mem::replace(&mut self.is_over, true) {
            return false;
        }
        self.peers.calls.forget(&self.id);
        true
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.give_up("cancelled");
    }
}

/// A request as it is done: progress and parts as they come, and the result, which is the last.
///
/// Nothing is asked before it is polled. Dropping it before its end tells the other side that the result is not
/// wanted any more. Parts that wait to be read are bounded: with 1024 of them the request is given up.
#[must_use = "nothing is asked before it is polled"]
pub struct Responses(State);

enum State {
    /// Not asked yet.
    Ready(Option<Box<dyn FnOnce() -> Result<Asked, RequestError> + Send + Sync>>),
    Asked(Box<Asked>),
    Over,
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").finish_non_exhaustive()
    }
}

impl Responses {
    pub(super) fn new(
        ask: impl FnOnce() -> Result<Asked, RequestError> + Send + Sync + 'static,
    ) -> Self {
        Self(State::Ready(Some(Box::new(ask))))
    }

    /// What comes next; none after the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RequestError`], which is the end as well.
    pub async fn recv(&mut self) -> Option<Result<Reply, RequestError>> {
        self.next().await
    }
}

impl Stream for Responses {
    type Item = Result<Reply, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let word = match &mut self.0 {
                State::Over => return Poll::Ready(None),
                State::Ready(ask) => {
                    let asked = ask.take().map(|ask| ask());
                    match asked {
                        Some(Ok(asked)) => self.0 = State::Asked(Box::new(asked)),
                        Some(Err(error)) => {
                            self.0 = State::Over;
                            return Poll::Ready(Some(Err(error)));
                        }
                        None => self.0 = State::Over,
                    }
                    continue;
                }
                State::Asked(asked) => ready!(asked.poll_word(cx)),
            };
            return Poll::Ready(Some(match word {
                Heard::Word(word) => Ok(word),
                Heard::End(outcome) => {
                    self.0 = State::Over;
                    result_of(outcome).map(Reply::Result)
                }
            }));
        }
    }
}

/// What an EXEC_REQUEST came to.
pub(super) fn result_of(outcome: Outcome) -> Result<Value, RequestError> {
    match outcome? {
        Answered::Result(result) => Ok(result),
        Answered::Intent(_) => Err(RequestError::OutOfTurn(MessageType::Intent)),
        Answered::Pong => Err(RequestError::OutOfTurn(MessageType::Pong)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn response(status: Option<&str>, error: Option<&str>) -> ExecResponse {
        ExecResponse {
            result: Some(json!(1)),
            error: error.map(Into::into),
            status: status.map(Into::into),
            ..ExecResponse::default()
        }
    }

    fn end(response: ExecResponse) -> Outcome {
        match read(response) {
            Heard::Word(word) => panic!("{word:?} is no end"),
            Heard::End(outcome) => outcome,
        }
    }

    #[test]
    fn every_status_means_what_the_convention_says() {
        let word = |status| match read(response(Some(status), None)) {
            Heard::Word(word) => word,
            Heard::End(end) => panic!("{end:?} is no word on the way"),
        };
        assert_eq!(word("progress"), Reply::Progress(json!(1)));
        assert_eq!(word("partial"), Reply::Part(json!(1)));
        for status in [Some("success"), Some("done"), None] {
            let good = end(response(status, None));
            assert!(matches!(good, Ok(Answered::Result(one)) if one == json!(1)), "{status:?}");
            let bad = end(response(status, Some("no")));
            assert!(matches!(bad, Err(RequestError::Failed { error, .. }) if error == "no"));
        }
        let bad = end(response(Some("error"), None));
        assert!(matches!(bad, Err(RequestError::Failed { result: Some(_), .. })));
        let empty = end(ExecResponse::default());
        assert!(matches!(empty, Ok(Answered::Result(Value::Null))));
    }
}
