//! Something that another agent asked for, while it is done.
//!
//! The handler gets it, with ways to report on it. What goes wrong in the handler stays here, but for what is
//! meant for the other side; and what the other side does not want any more is not sent.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use conexus_protocol::{ErrorCode, ExecResponse, Intent, Message, Payload};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{asked::DEFAULT_TIMEOUT, way::Way};
use crate::{
    ClientError, HandlerFailure, HandlerId, dispatch,
    p2p::{
        error::{PeerFault, RequestError},
        peers::Peers,
    },
};

/// A timer's longest.
const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Why a request was not done.
///
/// Any error becomes one by `?`. The other side is told that the request failed, and no more, unless it is made
/// by [`told`](Self::told); the error handlers hear the rest.
#[derive(Debug)]
pub struct RequestFailure {
    told: Option<String>,
    cause: Option<HandlerFailure>,
}

impl RequestFailure {
    /// What the other side is told.
    pub fn told(text: impl Into<String>) -> Self {
        Self { told: Some(text.into()), cause: None }
    }
}

impl<E: Into<HandlerFailure>> From<E> for RequestFailure {
    fn from(cause: E) -> Self {
        Self { told: None, cause: Some(cause.into()) }
    }
}

/// A request of another agent's (EXEC_REQUEST). Cheap to clone.
#[derive(Clone)]
pub struct IncomingRequest(Arc<Task>);

struct Task {
    peers: Arc<Peers>,
    message: Message,
    way: Way,
    cancel: CancellationToken,
    is_over: AtomicBool,
    began: Instant,
}

impl fmt::Debug for IncomingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingRequest")
            .field("from", &self.from())
            .field("id", &self.0.message.id)
            .finish_non_exhaustive()
    }
}

impl IncomingRequest {
    pub(super) fn new(
        peers: Arc<Peers>,
        message: Message,
        way: Way,
        cancel: CancellationToken,
    ) -> Self {
        let is_over = AtomicBool::new(false);
        Self(Arc::new(Task { peers, message, way, cancel, is_over, began: Instant::now() }))
    }

    /// Who asks: its DID.
    pub fn from(&self) -> &str {
        &self.0.message.from
    }

    /// The message itself.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// What is asked.
    pub fn args(&self) -> Option<&Map<String, Value>> {
        match &self.0.message.payload {
            Payload::ExecRequest(request) => request.args.as_ref(),
            _ => None,
        }
    }

    /// Whether the other side wants parts of the result as they come.
    pub fn wants_stream(&self) -> bool {
        matches!(&self.0.message.payload, Payload::ExecRequest(request) if request.stream == Some(true))
    }

    /// Whether it came by way of the gateway, which can read it.
    pub fn is_by_gateway(&self) -> bool {
        matches!(self.0.way, Way::Gateway)
    }

    /// Says how far it is, in the application's words.
    ///
    /// # Errors
    ///
    /// [`RequestError::Over`] where nobody wants it any more or it is answered already, and whatever kept it
    /// from being sent.
    pub async fn progress(&self, word: impl Into<Value>) -> Result<(), RequestError> {
        self.word("progress", word.into()).await
    }

    /// Hands over a part of the result; waits while too much is unsent.
    ///
    /// # Errors
    ///
    /// As [`progress`](Self::progress).
    pub async fn part(&self, part: impl Into<Value>) -> Result<(), RequestError> {
        self.word("partial", part.into()).await
    }

    /// Waits until nobody wants the result any more: it was cancelled, its time is over, or the connection
    /// ended. The handler runs on; what it returns then is dropped.
    pub async fn cancelled(&self) {
        self.0.cancel.cancelled().await;
    }

    /// Whether nobody wants the result any more.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    async fn word(&self, status: &str, word: Value) -> Result<(), RequestError> {
        if self.is_over() {
            return Err(RequestError::Over);
        }
        let response = ExecResponse {
            result: Some(word),
            status: Some(status.into()),
            ..ExecResponse::default()
        };
        tokio::select! {
            said = self.0.say(response) => said,
            () = self.cancelled() => Err(RequestError::Over),
        }
    }

    fn is_over(&self) -> bool {
        self.is_cancelled() || self.0.is_over.load(Ordering::Relaxed)
    }

    /// How long it may take.
    fn limit(&self) -> Duration {
        match &self.0.message.payload {
            Payload::ExecRequest(request) => request.timeout_ms.map_or(DEFAULT_TIMEOUT, |millis| {
                Duration::from_millis(u64::try_from(millis).unwrap_or(0).max(1)).min(MAX_TIMEOUT)
            }),
            _ => DEFAULT_TIMEOUT,
        }
    }

    /// Does it; returns when it is over, one way or the other.
    pub(super) async fn run(self, handler: HandlerId, work: Work) {
        let begin = AssertUnwindSafe(async { work(&self).await });
        let mut work = std::pin::pin!(begin.catch_unwind());
        let done = tokio::select! {
            done = &mut work => Some(done),
            () = sleep(self.limit()) => None,
            () = self.cancelled() => None,
        };
        let (done, is_wanted) = match done {
            Some(done) => (done, true),
            None => {
                self.expire();
                (work.await, false)
            }
        };
        self.0.is_over.store(true, Ordering::Relaxed);
        let outcome = done.unwrap_or_else(|panic| Err(dispatch::text(&*panic).into()));
        let answered = match outcome {
            Ok(payload) if is_wanted => self.0.say(self.timed(payload)).await.map_err(|error| {
                self.0.peers.report(self.from(), PeerFault::Unanswered(error));
                RequestFailure::told("the result could not be sent")
            }),
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        if let Err(RequestFailure { told, cause }) = answered {
            if let Some(failure) = cause {
                self.0.peers.gateway().report(ClientError::Handler { handler, failure });
            }
            if is_wanted {
                self.fail(told);
            }
        }
    }

    fn expire(&self) {
        if self.is_cancelled() {
            return;
        }
        self.0.cancel.cancel();
        let why = (ErrorCode::Timeout, "not done in time", "timeout");
        self.0.way.refuse(&self.0.peers, self.about(), why);
    }

    fn fail(&self, told: Option<String>) {
        let told = told.unwrap_or_else(|| "the request failed".into());
        if matches!(self.0.message.payload, Payload::Intent(_)) {
            let why = (ErrorCode::InternalError, &*told, "failed");
            return self.0.way.refuse(&self.0.peers, self.about(), why);
        }
        let response = ExecResponse {
            error: Some(told),
            status: Some("error".into()),
            ..ExecResponse::default()
        };
        self.0.way.answer_later(&self.0.peers, self.about(), self.timed(response.into()));
    }

    fn timed(&self, mut payload: Payload) -> Payload {
        if let Payload::ExecResponse(response) = &mut payload {
            let millis = self.0.began.elapsed().as_secs_f64() * 1000.0;
            response.execution_time_ms = Some(millis.round());
        }
        payload
    }

    fn about(&self) -> (&str, &str) {
        (self.from(), &self.0.message.id)
    }
}

impl Task {
    async fn say(&self, payload: impl Into<Payload>) -> Result<(), RequestError> {
        let draft = self.peers.draft(&self.message.from, payload).in_reply_to(&*self.message.id);
        self.way.say(&self.peers, draft).await
    }
}

/// What a handler makes of a request: the payload that answers it.
pub(super) type Work = Arc<
    dyn Fn(&IncomingRequest) -> BoxFuture<'static, Result<Payload, RequestFailure>> + Send + Sync,
>;

/// A handler of EXEC_REQUESTs in the one form that all have here.
pub(super) fn exec<F>(handler: impl Fn(IncomingRequest) -> F + Send + Sync + 'static) -> Work
where
    F: Future<Output = Result<Value, RequestFailure>> + Send + 'static,
{
    Arc::new(move |request| {
        let doing = handler(request.clone());
        Box::pin(async {
            let result = Some(doing.await?);
            let status = Some("success".into());
            Ok(ExecResponse { result, status, ..ExecResponse::default() }.into())
        })
    })
}

/// The same for INTENTs.
pub(super) fn intent<F>(handler: impl Fn(Message) -> F + Send + Sync + 'static) -> Work
where
    F: Future<Output = Result<Intent, RequestFailure>> + Send + 'static,
{
    Arc::new(move |request| {
        let doing = handler(request.message().clone());
        Box::pin(async { Ok(doing.await?.into()) })
    })
}
