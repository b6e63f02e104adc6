//! Asking and answering: EXEC_REQUEST and EXEC_RESPONSE, INTENT, PING and PONG, over whichever way there is.
//!
//! One for each client. A message is signed like any other; an answer has the id of what it answers as its
//! correlation id and takes the way that the question came. docs/webrtc.md says what the words of `status` mean.

mod arriving;
mod asked;
mod task;
mod way;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conexus_protocol::{
    AgentKey, Envelope, ErrorCode, ExecRequest, Intent, Message, MessageType, Payload, Ping, Pong,
    Rules,
};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    asked::{Answered, Asked, Heard, Inquiry, Outcome, read, result_of},
    task::Work,
    way::Way,
};
pub use self::{
    asked::{Reply, RequestOptions, Responses},
    task::{IncomingRequest, RequestFailure},
};
use super::{
    ChannelMessage, PeerPath,
    core::Core,
    error::{PeerError, PeerFault, RequestError},
    freshness::Verdict,
    peers::Peers,
    signal::is_for,
};
use crate::{HandlerId, Refusal, UnverifiedReason};

/// Requests under way of one agent, in each direction.
const PER_AGENT: usize = 64;

/// Requests under way in all, in each direction.
const IN_ALL: usize = 1024;

/// A handler, and the id that it is taken away by.
type Served = Option<(HandlerId, Work)>;

/// What is under way.
#[derive(Default)]
struct Table {
    /// What we asked, by message id.
    inquiries: HashMap<String, Known<Inquiry>>,
    /// What we were asked, by agent and message id.
    tasks: HashMap<(AgentKey, String), Known<CancellationToken>>,
    on_request: Served,
    on_intent: Served,
}

/// With whom something is under way, and on which way.
struct Known<T> {
    key: AgentKey,
    /// The peer whose channel it is; none is the gateway.
    way: Option<u64>,
    what: T,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Calls(Mutex<Table>);

/// Whom to ask.
pub(crate) struct Whom {
    pub(crate) key: AgentKey,
    pub(crate) did: String,
    pub(crate) way: Way,
}

impl Whom {
    /// A peer, by the way that it has now.
    pub(crate) fn peer(core: &Arc<Core>) -> Result<Self, RequestError> {
        let way = match core.path() {
            PeerPath::None => return Err(RequestError::NotConnected),
            PeerPath::Direct => Way::Direct(Arc::clone(core)),
            PeerPath::Gateway => Way::Gateway,
        };
        Ok(Self { key: core.key, did: core.did().to_owned(), way })
    }

    /// An agent: directly where it is a peer, else by the gateway.
    pub(crate) fn agent(peers: &Peers, did: &str) -> Result<Self, RequestError> {
        let key = AgentKey::parse_did(did).map_err(RequestError::Recipient)?;
        match peers.get(key).filter(|core| core.path() == PeerPath::Direct) {
            Some(core) => Self::peer(&core),
            None => Ok(Self { key, did: did.to_owned(), way: Way::Gateway }),
        }
    }
}

/// Asking.
impl Calls {
    pub(crate) fn stream(
        peers: Arc<Peers>,
        whom: Result<Whom, RequestError>,
        args: Value,
        options: RequestOptions,
    ) -> Responses {
        Responses::new(move || {
            let request = exec_request(args, options.timeout, true)?;
            Self::ask(&peers, whom?, request, MessageType::ExecResponse, options.timeout)
        })
    }

    pub(crate) async fn request(
        peers: &Arc<Peers>,
        whom: Whom,
        args: Value,
        options: RequestOptions,
    ) -> Result<Value, RequestError> {
        let request = exec_request(args, options.timeout, false)?;
        let asked = Self::ask(peers, whom, request, MessageType::ExecResponse, options.timeout)?;
        let hear = |word| {
            if let (Reply::Progress(word), Some(hear)) = (word, &options.on_progress) {
                hear(word);
            }
        };
        result_of(asked.outcome(hear).await)
    }

    pub(crate) async fn intent(
        peers: &Arc<Peers>,
        whom: Whom,
        intent: Intent,
        patience: Duration,
    ) -> Result<Intent, RequestError> {
        let asked = Self::ask(peers, whom, intent, MessageType::Intent, patience)?;
        match asked.outcome(drop).await? {
            Answered::Intent(intent) => Ok(intent),
            Answered::Result(_) => Err(RequestError::OutOfTurn(MessageType::ExecResponse)),
            Answered::Pong => Err(RequestError::OutOfTurn(MessageType::Pong)),
        }
    }

    pub(crate) async fn ping(
        peers: &Arc<Peers>,
        whom: Whom,
        patience: Duration,
    ) -> Result<Duration, RequestError> {
        if matches!(whom.way, Way::Gateway) {
            return Err(RequestError::DirectOnly(MessageType::Ping));
        }
        let began = Instant::now();
        let ping = Ping { sequence: None };
        let asked = Self::ask(peers, whom, ping, MessageType::Pong, patience)?;
        asked.outcome(drop).await.map(|_| began.elapsed())
    }

    fn ask(
        peers: &Arc<Peers>,
        Whom { key, did, way }: Whom,
        payload: impl Into<Payload>,
        expects: MessageType,
        patience: Duration,
    ) -> Result<Asked, RequestError> {
        let draft = peers.draft(&did, payload);
        let kind = draft.payload.kind();
        if matches!(way, Way::Gateway) && !peers.gateway().relays(kind) {
            return Err(RequestError::NotRelayed(kind));
        }
        let id = draft.id.clone();
        let serial = way.serial();
        let sending = {
            let (peers, way) = (Arc::clone(peers), way.clone());
            Box::pin(async move { way.say(&peers, draft).await })
        };
        let mut table = peers.calls.table();
        if is_crowded(table.inquiries.len(), table.inquiries.values(), key) {
            return Err(RequestError::Busy(PER_AGENT));
        }
        let about = (did, id.clone());
        let (asked, inquiry) =
            Asked::new(Arc::clone(peers), way, about, (expects, patience), sending);
        table.inquiries.insert(id, Known { key, way: serial, what: inquiry });
        Ok(asked)
    }

    fn forget(&self, id: &str) {
        let forgotten = self.table().inquiries.remove(id);
        drop(forgotten);
    }
}

/// Serving.
impl Calls {
    pub(crate) fn on_request<F>(
        &self,
        id: HandlerId,
        handler: impl Fn(IncomingRequest) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<Value, RequestFailure>> + Send + 'static,
    {
        let before = self.table().on_request.replace((id, task::exec(handler)));
        drop(before);
    }

    pub(crate) fn on_intent<F>(
        &self,
        id: HandlerId,
        handler: impl Fn(Message) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<Intent, RequestFailure>> + Send + 'static,
    {
        let before = self.table().on_intent.replace((id, task::intent(handler)));
        drop(before);
    }

    pub(crate) fn remove_handler(&self, handler: HandlerId) -> bool {
        let mut table = self.table();
        let is_it = |served: &Served| matches!(served, Some((id, _)) if *id == handler);
        let removed = if is_it(&table.on_request) {
            table.on_request.take()
        } else if is_it(&table.on_intent) {
            table.on_intent.take()
        } else {
            None
        };
        drop(table);
        removed.is_some()
    }

    /// Lets closures go.
    pub(crate) fn clear(&self) {
        let mut table = self.table();
        let served = (table.on_request.take(), table.on_intent.take());
        drop(table);
        drop(served);
    }
}

/// The end.
impl Calls {
    /// The way to an agent is gone, and with it what was under way on it.
    pub(crate) fn drop_peer(&self, serial: u64, error: Option<&PeerError>) {
        self.end_those(
            |way| way == Some(serial),
            &RequestError::Lost(error.map(|error| Box::new(error.clone()))),
        );
    }

    /// Everything ends with the client.
    pub(crate) fn end_all(&self, error: &RequestError) {
        self.end_those(|_| true, error);
    }

    fn end_those(&self, is_meant: impl Fn(Option<u64>) -> bool, error: &RequestError) {
        let mut table = self.table();
        let ended: Vec<_> = table.inquiries.extract_if(|_, known| is_meant(known.way)).collect();
        for task in table.tasks.values().filter(|task| is_meant(task.way)) {
            task.what.cancel();
        }
        drop(table);
        for (_, inquiry) in ended {
            inquiry.what.end(Err(error.clone()));
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Known<T> {
    fn is(&self, key: AgentKey, way: Option<u64>) -> bool {
        self.key == key && self.way == way
    }
}

/// A task's place in the table, until it is over.
struct Entry {
    peers: Arc<Peers>,
    name: (AgentKey, String),
}

impl Drop for Entry {
    fn drop(&mut self) {
        let entry = self.peers.calls.table().tasks.remove(&self.name);
        drop(entry);
    }
}

fn is_crowded<'a, T: 'a>(
    all: usize,
    mut under_way: impl Iterator<Item = &'a Known<T>>,
    key: AgentKey,
) -> bool {
    all >= IN_ALL || under_way.by_ref().filter(|known| known.key == key).count() >= PER_AGENT
}

fn exec_request(args: Value, timeout: Duration, stream: bool) -> Result<ExecRequest, RequestError> {
    let args = match args {
        Value::Object(args) => Some(args),
        Value::Null => None,
        _ => return Err(RequestError::Args),
    };
    // A timer's longest is what the other side can wait, too.
    let millis = timeout.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
    Ok(ExecRequest { args, timeout_ms: i64::try_from(millis).ok(), stream: Some(stream) })
}
