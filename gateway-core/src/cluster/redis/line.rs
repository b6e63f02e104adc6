//! One connection to one machine of the engine. Everything goes by it: what is asked and answered, and
//! what comes in by channels.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use redis::{
    AsyncConnectionConfig, Cmd, PushInfo, RedisConnectionInfo, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    clock::EngineClock,
    failure::Failure,
    fault::Fault,
    inbox::{self, Inbox},
    latency::Latency,
    scripts::Stored,
};
use crate::cluster::backplane::Away;

/// Commands that may wait for the connection to write them.
const WAITING: usize = 1024;
/// Before something is asked for again.
const PAUSE: Duration = Duration::from_millis(10);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Line {
    connection: MultiplexedConnection,
    pub(super) clock: EngineClock,
    pub(super) at: Arc<str>,
    user: Arc<str>,
    patience: Duration,
    failure: Failure,
    latency: Arc<Latency>,
    _driver: AbortOnDropHandle<()>,
}

/// What all lines of a link share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) inbox: Arc<Inbox>,
    pub(super) failure: Failure,
    pub(super) latency: Arc<Latency>,
    pub(super) patience: Duration,
}

impl Shared {
    /// For a connection that asks one question, and has no part in a link.
    pub(super) fn aside(patience: Duration) -> Self {
        let (events, _) = mpsc::channel(1);
        let failure = Failure::default();
        let (inbox, _) = inbox::inbox(String::new(), events, patience, &failure);
        Self { inbox: Arc::new(inbox), failure, latency: Arc::default(), patience }
    }
}

impl Line {
    /// Says who it is on an open stream, and begins.
    pub(super) async fn begin(
        at: &Arc<str>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        who: &RedisConnectionInfo,
        shared: &Shared,
    ) -> Result<Self, Fault> {
        let inbox = Arc::clone(&shared.inbox);
        let config = AsyncConnectionConfig::new()
            // Each call has its own, by which the whole link fails.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WAITING)
            .set_push_sender(move |push: PushInfo| {
                inbox.take(push);
                Ok::<(), ()>(())
            });
        let user: Arc<str> = who.username().unwrap_or("default").into();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(who, stream, config).await?;
        let failure = shared.failure.clone();
        let ended = Away(format!("the engine at {at} has closed the connection").into());
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                // The connection is closed at once: what nobody waits for any more is better not done.
                _ = failure.failed() => {}
                () = driver => drop(failure.fail(ended)),
            }
        }));
        Ok(Self {
            connection,
            clock: EngineClock::default(),
            at: Arc::clone(at),
            user,
            patience: shared.patience,
            failure: shared.failure.clone(),
            latency: Arc::clone(&shared.latency),
            _driver: driver,
        })
    }

    /// Asks for something. What the engine refuses is the inner error; that the link has failed is the
    /// outer one. What is asked first is written first, where "asked" is the call of this function.
    pub(super) fn ask(
        &self,
        asked: Cmd,
    ) -> impl Future<Output = Result<Result<Value, RedisError>, Away>> + Send + '_ {
        let mut connection = self.connection.clone();
        let began = Instant::now();
        // Not held up by what else its task has done: its place in the line is taken by the first look.
        let mut answer = Box::pin(tokio::task::unconstrained(async move {
            connection.send_packed_command(&asked).await.and_then(Value::extract_error)
        }));
        let at_once = (&mut answer).now_or_never();
        async move {
            let answer = match at_once {
                Some(answer) => answer,
                None => tokio::select! {
                    biased;
                    why = self.failure.failed() => return Err(why),
                    answer = time::timeout(self.patience, answer) => match answer {
                        Ok(answer) => answer,
                        Err(_) => {
                            let (at, patience) = (&self.at, self.patience);
                            let why = format!("the engine at {at} did not answer for {patience:?}");
                            return Err(self.failure.fail(Away(why.into())));
                        }
                    },
                },
            };
            // An answer may be another's where the engine said something unasked.
            if let Some(why) = self.failure.get() {
                return Err(why.clone());
            }
            self.latency.note(began.elapsed());
            match answer {
                Err(error) if !Fault::is_refusal(&error) => Err(self.fail(Fault::from(error))),
                answer => Ok(answer),
            }
        }
    }

    /// The same of what the engine has no reason to refuse.
    pub(super) fn demand(
        &self,
        asked: Cmd,
    ) -> impl Future<Output = Result<Value, Away>> + Send + '_ {
        let asking = self.ask(asked);
        async move { asking.await?.map_err(|error| self.fail(Fault::from(error))) }
    }

    /// Calls a script.
    pub(super) async fn call(
        &self,
        script: &Stored,
        call: Cmd,
    ) -> Result<Result<Value, RedisError>, Away> {
        match self.ask_again(&call).await? {
            Err(error) if Fault::is_unknown_script(&error) => {
                self.ask_again(&script.in_full(&call)).await
            }
            answer => Ok(answer),
        }
    }

    /// Asks for something, again for as long as the engine is just handing it over within itself.
    pub(super) async fn ask_again(&self, asked: &Cmd) -> Result<Result<Value, RedisError>, Away> {
        let began = Instant::now();
        loop {
            match self.ask(asked.clone()).await? {
                Err(error) if Fault::is_for_now(&error) && began.elapsed() < self.patience => {
                    time::sleep(PAUSE).await;
                }
                answer => return Ok(answer),
            }
        }
    }

    pub(super) fn fail(&self, fault: Fault) -> Away {
        self.failure.fail(fault.told(&self.at, &self.user))
    }

    /// An answer that makes no sense.
    pub(super) fn garbled(&self, what: &str) -> Away {
        let why = format!("the engine at {} gave an answer to {what} that makes no sense", self.at);
        self.failure.fail(Away(why.into()))
    }
}
