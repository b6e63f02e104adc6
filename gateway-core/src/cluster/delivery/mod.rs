//! Messages from node to node.
//!
//! The sender's node owns a message until it ends: it stays in the table of its [`Peer`], and the node of
//! its target says how it ended there. A [lane](crate::presence::lane) keeps the messages for one
//! target in order while that is elsewhere, or moves. Whatever is lost on the way is refused, and never
//! sent twice. `gateway` runs [`serve`] and hands [`receive`] what comes in.

mod batch;
pub(crate) mod forwarded;
mod incoming;
pub(crate) mod lookup;
pub(crate) mod peer;
mod publisher;
pub(crate) mod questions;
mod service;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ahash::RandomState;
use conexus_protocol::AgentKey;
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

pub(crate) use self::{incoming::receive, service::serve};
use self::{
    lookup::Lookups,
    peer::Peer,
    questions::{ANSWERING, Answers, Request},
};
use super::{
    Cluster,
    frame::{Answer, Question},
    ids::MemberId,
    members::Members,
};
use crate::config::Settings;

/// Between two looks at whether all has come to its end, when the gateway stops.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long it is remembered that a member was struck off: longer than the directory keeps its entries.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// See the [module](self).
pub(crate) struct Delivery {
    pub(crate) cluster: Arc<Cluster>,
    peers: RwLock<HashMap<MemberId, Arc<Peer>, RandomState>>,
    numbers: Arc<AtomicU64>,
    tickets: AtomicU64,
    lookups: Lookups,
    answers: OnceLock<Weak<dyn Answers>>,
    answering: AtomicUsize,
    /// Members that are not on the roster any more, and since when.
    departed: Mutex<HashMap<MemberId, Instant, RandomState>>,
    /// The keys that have lanes, and some that had.
    lanes: Mutex<HashSet<AgentKey, RandomState>>,
    pub(crate) waiting: Arc<Waiting>,
    jobs: mpsc::UnboundedSender<Job>,
    work: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
}

/// What is to be done by a task of its own. There are never more than there are peers, lanes, and
/// questions that may be answered at once.
#[derive(Debug)]
enum Job {
    Publish(Arc<Peer>),
    /// The agent of this lane is absent.
    Drain(AgentKey, u64),
    Answer(Request),
}

/// What waits in all lanes, and how much may.
#[derive(Debug)]
pub(crate) struct Waiting {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    most_messages: usize,
    most_bytes: usize,
    /// In one lane.
    lane_messages: usize,
    lane_bytes: usize,
}

impl Waiting {
    /// Whether one more message of so many bytes fits into a lane that has these.
    pub(crate) fn has_room(&self, messages: usize, bytes: usize, size: usize) -> bool {
        messages < self.lane_messages
            && bytes + size <= self.lane_bytes
            && self.messages.load(Relaxed) < self.most_messages
            && self.bytes.load(Relaxed) + size <= self.most_bytes
    }

    pub(crate) fn add(&self, size: usize) {
        self.messages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(size, Relaxed);
    }

    pub(crate) fn remove(&self, messages: usize, size: usize) {
        self.messages.fetch_sub(messages, Relaxed);
        self.bytes.fetch_sub(size, Relaxed);
    }

    /// Messages and bytes.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.messages.load(Relaxed), self.bytes.load(Relaxed))
    }
}

impl Delivery {
    pub(crate) fn new(cluster: Arc<Cluster>, settings: &Settings) -> Arc<Self> {
        let (jobs, work) = mpsc::unbounded_channel();
        let waiting = Waiting {
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most_messages: cluster.settings.queue_messages,
            most_bytes: cluster.settings.queue_bytes,
            lane_messages: settings.limits.outbox_messages,
            lane_bytes: settings.limits.outbox_bytes,
        };
        Arc::new(Self {
            cluster,
            peers: RwLock::default(),
            numbers: Arc::new(AtomicU64::new(1)),
            tickets: AtomicU64::new(1),
            lookups: Lookups::default(),
            answers: OnceLock::new(),
            answering: AtomicUsize::new(0),
            departed: Mutex::default(),
            lanes: Mutex::default(),
            waiting: Arc::new(waiting),
            jobs,
            work: Mutex::new(Some(work)),
        })
    }

    /// The peer that a member is. One that was not known is from now on.
    pub(crate) fn peer(&self, member: MemberId) -> Arc<Peer> {
        if let Some(peer) = self.peers.read().get(&member) {
            return Arc::clone(peer);
        }
        let mut peers = self.peers.write();
        let peer = peers.entry(member).or_insert_with(|| {
            let cluster = Arc::clone(&self.cluster);
            let peer = Arc::new(Peer::new(cluster, member, Arc::clone(&self.numbers)));
            self.give(Job::Publish(Arc::clone(&peer)));
            peer
        });
        Arc::clone(peer)
    }

    /// All peers, in the order of their members.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.peers.read().values().cloned().collect();
        peers.sort_unstable_by_key(|peer| peer.member);
        peers
    }

    fn forget(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.write();
        if peers.get(&peer.member).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            peers.remove(&peer.member);
        }
    }

    /// The roster changed: whoever was struck off does not come back as the member that it was.
    fn roster_changed(&self, before: &Members, members: &Members) {
        let now = Instant::now();
        let mut departed = self.departed.lock();
        let is_gone = |member: MemberId| members.get(member).is_none();
        departed.retain(|member, since| now < *since + REMEMBERED && is_gone(*member));
        let gone = before.iter().map(|(member, _)| member).filter(|member| is_gone(*member));
        departed.extend(gone.map(|member| (member, now)));
    }

    /// A member ought to be on the roster by now, and is not.
    fn is_missing(&self, member: MemberId) {
        self.departed.lock().insert(member, Instant::now());
    }

    /// Whether a member was struck off: what the directory still has of it counts no more.
    fn has_departed(&self, member: MemberId) -> bool {
        self.departed.lock().contains_key(&member)
    }

    /// Tells one state of a lane from all others.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Relaxed)
    }

    /// A key has a lane now.
    pub(crate) fn lane_made(&self, key: AgentKey) {
        self.lanes.lock().insert(key);
    }

    /// The keys that may have lanes; whoever takes them gives back those that do.
    pub(crate) fn take_lanes(&self) -> Vec<AgentKey> {
        self.lanes.lock().drain().collect()
    }

    /// Messages under way to other nodes, and their bytes.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        let sum = |(messages, bytes), load: (usize, usize)| (messages + load.0, bytes + load.1);
        self.peers.read().values().map(|peer| peer.load()).fold((0, 0), sum)
    }

    /// Has the messages of a lane told, one after the other, that their target is absent.
    pub(crate) fn drain_lane(&self, key: AgentKey, ticket: u64) {
        self.give(Job::Drain(key, ticket));
    }

    fn asked(&self, request: Request) {
        if self.answering.fetch_add(1, Relaxed) >= ANSWERING {
            self.answering.fetch_sub(1, Relaxed);
            // An older session has to end: without an answer it is asked for again. The others can do
            // without theirs, and are not to wait for it.
            if !matches!(request.question, Question::Yield { .. }) {
                request.from.answer(request.number, Answer::Nothing);
            }
            return;
        }
        self.give(Job::Answer(request));
    }

    fn give(&self, job: Job) {
        // Without a service the gateway is ending, and so is all of this.
        let _ = self.jobs.send(job);
    }

    /// Whether all messages of this node's for others have come to their end.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.load().0 == 0 && self.under_way().0 == 0
    }

    /// Waits until all messages of this node's have come to their end; false if that takes too long.
    pub(crate) async fn settled(&self, deadline: Instant) -> bool {
        wait_for(deadline, || self.is_settled()).await
    }

    /// Waits until all that was to be said to other nodes was handed to the engine; false if that takes too
    /// long.
    pub(crate) async fn flushed(&self, within: Duration) -> bool {
        let flushed = || self.peers.read().values().all(|peer| peer.is_flushed());
        wait_for(Instant::now() + within, flushed).await
    }
}

async fn wait_for(deadline: Instant, what: impl Fn() -> bool) -> bool {
    loop {
        if what() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_AGAIN).await;
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("peers", &self.peers.read().len()).finish_non_exhaustive()
    }
}
