//! A peer: another member, as this node deals with it.
//!
//! What goes there is written into batches as it comes up, and stays in the table of what is under way
//! until the peer says how it ended. What came from there is known by its number until this node has
//! said so. One task publishes; anybody else puts in, and waits for nothing. All of it is bounded: messages
//! by `cluster.queue_*`, ends by what the peer's own bound lets come, the rest here.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ahash::RandomState;
use bytes::Bytes;
use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::batch::{self, Batch};
use crate::{
    cluster::{
        Cluster, Joined,
        frame::{Answer, Aside, End, Frame, Head, Question, VERSION},
        ids::{Epoch, MemberId},
    },
    session::outbox::Routed,
};

/// Ends that are told in one batch at most.
const ENDS_AT_ONCE: usize = 8192;

/// Questions to one peer that wait for an answer at most.
const MOST_ASKED: usize = 1024;

/// What is under way for so long is asked about.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// A query that is not answered for so long is given up, and another one made.
const QUERY_PATIENCE: Duration = Duration::from_secs(3);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) member: MemberId,
    cluster: Arc<Cluster>,
    /// Of messages and questions, each used once in the life of this process: an answer that comes
    /// late is never taken for that of something else.
    numbers: Arc<AtomicU64>,
    state: Mutex<State>,
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why nothing is sent there, if so.
    shut: Option<Shut>,
    /// The member that this node is to it, and the link that it uses.
    place: Option<(MemberId, u64)>,
    under_way: HashMap<u64, UnderWay, RandomState>,
    bytes: usize,
    /// To be published. The last one may still grow.
    batches: VecDeque<Batch>,
    buffered: usize,
    /// How large the last batch was: the next one is likely to be so, too.
    usual: usize,
    /// The publisher has seen that there is nothing, and waits.
    idle: bool,
    /// Ends of the peer's messages, to be told.
    ends: Vec<(u64, End)>,
    /// The peer's messages that have no end yet.
    waiting: HashSet<u64, RandomState>,
    /// The newest link of the peer's that was heard of.
    heard_link: u64,
    query: Option<Query>,
    queries: u64,
    asked: HashMap<u64, oneshot::Sender<Answer>, RandomState>,
    listed: bool,
    /// Since when this node has looked for it on the roster and not found it.
    sought: Option<Instant>,
}

/// Why nothing is sent to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// The engine is away. It may come back.
    Away,
    /// That member is no more, or this node is another one.
    Gone,
}

/// A message that the peer has said nothing of yet.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) routed: Routed,
    pub(crate) since: Instant,
}

/// What was asked about messages under way.
#[derive(Debug)]
struct Query {
    number: u64,
    about: Vec<u64>,
    since: Instant,
}

/// Why a message was not sent; it is given back.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// Too much is under way there.
    Full(Routed),
    Shut(Routed, Shut),
}

impl Peer {
    pub(super) fn new(cluster: Arc<Cluster>, member: MemberId, numbers: Arc<AtomicU64>) -> Self {
        let place = cluster.joined().ok().map(|joined| (joined.member, joined.number));
        let shut = place.is_none().then_some(Shut::Away);
        let state = Mutex::new(State { shut, place, ..State::default() });
        Self { member, cluster, numbers, state, more: Notify::new() }
    }

    /// Where this node was when it last spoke to the peer; none while it is shut.
    pub(super) fn place(&self) -> Option<(MemberId, u64)> {
        let state = self.state.lock();
        state.place.filter(|_| state.shut.is_none())
    }

    /// Whether this node certainly counts as that member still.
    pub(super) fn is_heard_as(&self, member: MemberId) -> bool {
        self.cluster.is_still(member)
    }

    /// The member that this node was to it.
    pub(super) fn knows_as(&self) -> Option<MemberId> {
        self.state.lock().place.map(|(member, _)| member)
    }

    /// From now on this node speaks to the peer from there. What was sent before is lost.
    pub(super) fn reopen(&self, place: (MemberId, u64)) -> Vec<(u64, UnderWay)> {
        let lost = self.lose(None);
        let mut state = self.state.lock();
        (state.place, state.sought) = (Some(place), None);
        drop(state);
        lost
    }

    /// Sends a message to a registration of its target's there; its number.
    pub(crate) fn forward(&self, routed: Routed, epoch: Epoch) -> Result<u64, Unsent> {
        let settings = &self.cluster.settings;
        let size = routed.text.len();
        let mut state = self.state.lock();
        if let Some(shut) = state.shut {
            return Err(Unsent::Shut(routed, shut));
        }
        if state.under_way.len() >= settings.queue_messages
            || state.bytes + size > settings.queue_bytes
        {
            drop(state);
            self.cluster.tally.forwarded.overflowed.one();
            return Err(Unsent::Full(routed));
        }
        let number = self.numbers.fetch_add(1, Relaxed);
        let to = *routed.to.as_bytes();
        state.push(&Frame::Message { number, to, epoch, text: &routed.text }, size);
        if let Some(batch) = state.batches.back_mut() {
            batch.first.get_or_insert(number);
        }
        state.bytes += size;
        state.under_way.insert(number, UnderWay { routed, since: Instant::now() });
        self.wake(state);
        Ok(number)
    }

    /// Sends something that nobody waits for, if there is room.
    pub(crate) fn aside(&self, kind: Aside, to: AgentKey, epoch: Epoch, text: &str) -> bool {
        let mut state = self.state.lock();
        if state.shut.is_some() || state.buffered + text.len() > self.cluster.settings.queue_bytes {
            return false;
        }
        state.push(&Frame::Aside { to: *to.as_bytes(), epoch, kind, text }, text.len());
        self.wake(state);
        true
    }

    /// Asks something; the question's number, by which it can be [given up](Self::give_up).
    pub(super) fn ask(&self, question: Question) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let mut state = self.state.lock();
        if state.shut.is_some() || state.asked.len() >= MOST_ASKED {
            return None;
        }
        let (answered, answer) = oneshot::channel();
        let number = self.numbers.fetch_add(1, Relaxed);
        state.asked.insert(number, answered);
        state.push(&Frame::Ask { number, question }, 0);
        self.wake(state);
        Some((number, answer))
    }

    /// Nobody waits for the answer any more.
    pub(super) fn give_up(&self, question: u64) {
        self.state.lock().asked.remove(&question);
    }

    /// The peer answered a question.
    pub(super) fn answered(&self, question: u64, answer: Answer) {
        let asked = self.state.lock().asked.remove(&question);
        if let Some(asked) = asked {
            // Whoever asked may have given up this moment.
            let _ = asked.send(answer);
        }
    }

    /// Answers a question of the peer's.
    pub(super) fn answer(&self, question: u64, answer: Answer) {
        let mut state = self.state.lock();
        if state.shut.is_none() {
            state.push(&Frame::Answer { number: question, answer }, 0);
            self.wake(state);
        }
    }

    /// A batch came by this link of the peer's; false if newer ones did before.
    pub(super) fn hears(&self, link: u64) -> bool {
        let mut state = self.state.lock();
        let current = link >= state.heard_link;
        state.heard_link = state.heard_link.max(link);
        current
    }

    /// A message of the peer's is here.
    pub(super) fn arrived(&self, number: u64) {
        self.state.lock().waiting.insert(number);
    }

    /// A message of the peer's had its end here.
    pub(super) fn ended(&self, number: u64, end: End) {
        let mut state = self.state.lock();
        state.waiting.remove(&number);
        if state.shut != Some(Shut::Gone) {
            state.ends.push((number, end));
            self.wake(state);
        }
    }

    /// The peer said how messages of this node's ended: those that were under way.
    pub(crate) fn settle(&self, ends: Vec<(u64, End)>) -> Vec<(u64, UnderWay, End)> {
        let mut state = self.state.lock();
        let mut settle = |(number, end)| Some((number, state.take(number)?, end));
        ends.into_iter().filter_map(&mut settle).collect()
    }

    /// Asks about what has been under way for too long, unless that was asked and may be answered yet.
    pub(super) fn ask_about_unsettled(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.shut.is_some() || state.query.as_ref().is_some_and(|query| !query.is_old(now)) {
            return;
        }
        let is_old = |under_way: &UnderWay| now.duration_since(under_way.since) >= ASK_AFTER;
        let old = state.under_way.iter().filter(|(_, under_way)| is_old(under_way));
        let about: Vec<u64> = old.map(|(number, _)| *number).collect();
        state.query = None;
        if about.is_empty() {
            return;
        }
        self.cluster.tally.questions.unsettled.add(about.len() as u64);
        state.queries += 1;
        let query = state.queries;
        state.push(&Frame::Unsettled { query, numbers: about.clone() }, 0);
        state.query = Some(Query { number: query, about, since: now });
        self.wake(state);
    }

    /// The peer asks which of these messages wait here. What has ended was told before that.
    pub(super) fn tell_waiting(&self, query: u64, mut numbers: Vec<u64>) {
        let mut state = self.state.lock();
        if state.shut.is_some() {
            return;
        }
        numbers.retain(|number| state.waiting.contains(number));
        while !state.ends.is_empty() {
            let ends = self.take_ends(&mut state);
            state.push(&Frame::Ends(ends), 0);
        }
        state.push(&Frame::Waiting { query, numbers }, 0);
        self.wake(state);
    }

    /// The peer said which messages of a query wait there: those that do not, and had no end either, are
    /// lost.
    pub(super) fn settle_query(&self, query: u64, waiting: Vec<u64>) -> Vec<(u64, UnderWay)> {
        let mut state = self.state.lock();
        let Some(query) = state.query.take_if(|asked| asked.number == query) else {
            return Vec::new();
        };
        let waiting: HashSet<u64, RandomState> = waiting.into_iter().collect();
        let lost = query.about.into_iter().filter(|number| !waiting.contains(number));
        lost.filter_map(|number| Some((number, state.take(number)?))).collect()
    }

    /// Gives up all that is under way, and what was to be sent; what is left of the peer's own
    /// messages stays. From here on nothing is sent, if it is shut.
    pub(crate) fn lose(&self, shut: Option<Shut>) -> Vec<(u64, UnderWay)> {
        let mut state = self.state.lock();
        if state.shut != Some(Shut::Gone) {
            state.shut = shut;
        }
        if shut == Some(Shut::Gone) {
            (state.ends, state.waiting) = (Vec::new(), HashSet::default());
        }
        state.batches.clear();
        state.asked.clear();
        (state.bytes, state.buffered, state.query) = (0, 0, None);
        let mut lost: Vec<_> = state.under_way.drain().collect();
        drop(state);
        // The publisher may have to end, or to begin again.
        self.more.notify_one();
        lost.sort_unstable_by_key(|(number, _)| *number);
        lost
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state.lock().shut == Some(Shut::Gone)
    }

    /// Notes whether the member is on the roster at `now`; how long it has not been, if it is not.
    /// That is for ever if it was there before.
    pub(super) fn missing(&self, listed: bool, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock();
        let was = std::mem::replace(&mut state.listed, listed);
        if listed {
            state.sought = None;
            return None;
        }
        let since = *state.sought.get_or_insert(now);
        Some(if was { Duration::MAX } else { now.duration_since(since) })
    }

    /// Messages under way there, and their bytes.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.under_way.len(), state.bytes)
    }

    /// Whether something is under way that was sent before this message.
    pub(super) fn owes_before(&self, number: u64) -> bool {
        self.state.lock().under_way.keys().any(|sent| *sent < number)
    }

    /// Whether nothing is under way in either direction, or to be said.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state.lock();
        state.under_way.is_empty()
            && state.waiting.is_empty()
            && state.asked.is_empty()
            && state.has_nothing_to_say()
    }

    /// Whether all that was to be said was handed to the link.
    pub(super) fn is_flushed(&self) -> bool {
        let state = self.state.lock();
        state.shut.is_some() || state.has_nothing_to_say()
    }

    /// Waits until there may be something to publish. Cancel-safe, for one who waits.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// Whether there are only ends to tell: those of other messages are about to come.
    pub(super) fn has_only_ends(&self) -> bool {
        let state = self.state.lock();
        state.batches.is_empty() && !state.ends.is_empty()
    }

    /// What is to be published next, and between which numbers its messages are: from the first one up to
    /// the second, which is the least that what is behind it has. While there is nothing the publisher is
    /// woken by whatever comes.
    pub(super) fn next(&self, joined: &Joined) -> Option<(Bytes, Range<u64>)> {
        let mut state = self.state.lock();
        if state.shut.is_some() || state.has_nothing_to_say() {
            state.idle = true;
            return None;
        }
        let mut batch = state.batches.pop_front().unwrap_or_else(|| Batch::new(0));
        let size = batch.len();
        state.buffered -= size;
        if size > 0 {
            state.usual = size;
        }
        if !state.ends.is_empty() {
            let ends = self.take_ends(&mut state);
            batch.push(&Frame::Ends(ends));
        }
        // Under the lock, under which messages have their numbers.
        let behind = state.batches.iter().find_map(|batch| batch.first);
        let behind = behind.unwrap_or_else(|| self.numbers.load(Relaxed));
        drop(state);
        let numbers = batch.first.unwrap_or(behind)..behind;
        let (from, to, link) = (joined.member, self.member, joined.number);
        let bytes = batch.finish(&Head { version: VERSION, from, to, link });
        let traffic = &self.cluster.tally.traffic;
        traffic.sent.one();
        traffic.sent_bytes.add(bytes.len() as u64);
        Some((bytes, numbers))
    }

    fn take_ends(&self, state: &mut State) -> Vec<(u64, End)> {
        let most = state.ends.len().min(ENDS_AT_ONCE);
        let rest = state.ends.split_off(most);
        let ends = std::mem::replace(&mut state.ends, rest);
        let count = |end| ends.iter().filter(|(_, is)| *is == end).count() as u64;
        let arrived = &self.cluster.tally.arrived;
        arrived.delivered.add(count(End::Delivered));
        arrived.gone.add(count(End::Gone));
        arrived.full.add(count(End::Full));
        ends
    }

    /// Wakes the publisher, if it has seen that there was nothing; not under the lock, which it takes.
    fn wake(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.more.notify_one();
        }
    }
}

impl State {
    fn has_nothing_to_say(&self) -> bool {
        self.batches.is_empty() && self.ends.is_empty()
    }

    /// Lays a frame in whose text has so many bytes.
    fn push(&mut self, frame: &Frame<'_>, size: usize) {
        let fits = |batch: &Batch| batch.len() + size <= batch::FULL;
        if !self.batches.back().is_some_and(fits) {
            self.batches.push_back(Batch::new(self.usual.max(size)));
        }
        if let Some(batch) = self.batches.back_mut() {
            let before = batch.len();
            batch.push(frame);
            self.buffered += batch.len() - before;
        }
    }

    fn take(&mut self, number: u64) -> Option<UnderWay> {
        let under_way = self.under_way.remove(&number)?;
        self.bytes -= under_way.routed.text.len();
        Some(under_way)
    }
}

impl Query {
    fn is_old(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= QUERY_PATIENCE
    }
}
