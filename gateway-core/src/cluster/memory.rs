//! An engine in memory, for nodes within one process: what tests build clusters over.
//!
//! It does what [`Backplane`] asks for, atomically under one lock, by tokio's clock, which tests can
//! pause and move. An outage cuts every link, as a crash of Redis does; what the engine knows outlives
//! it unless the engine is told to [forget](MemoryEngine::forget).

mod link;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use conexus_plugin_api::{Agent, host::StateError};
use conexus_protocol::AgentKey;
use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use self::link::MemoryLink;
use super::{
    backplane::{
        Announced, Away, Backplane, BanAbout, BanList, BansAt, Change, ChangeKind, Claim, Claimed,
        Entry, Link, LinkEvent, Listed, NodeInfo, Outcome, Release, Roster, SharedBan,
        StateOperation, StateReply, StateRequest,
    },
    ids::{Bucket, Epoch, MemberId},
};
use crate::{bans::MAX_BANS, state::Store};

/// Unix microseconds at which every engine begins.
const BEGINNING: u64 = 1_000_000_000_000_000;

/// An epoch may be so far ahead of the clock without its having been set back.
const MICROS_AHEAD: u64 = 100_000;

/// See the [module](self). Clones are the same engine.
#[derive(Debug, Clone)]
pub(crate) struct MemoryEngine(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    away: bool,
    /// How far its clock was set back.
    set_back: Duration,
    roster: BTreeMap<MemberId, (NodeInfo, Instant)>,
    /// Who was struck off and is not buried yet, and until when it is to be.
    unburied: BTreeMap<MemberId, Instant>,
    directory: HashMap<AgentKey, Entry>,
    last_epoch: u64,
    bans: BTreeMap<AgentKey, (BanAbout, Instant)>,
    bans_at: BansAt,
    state: Store,
    links: BTreeMap<u64, Listener>,
    next_link: u64,
    /// Writes of any kind so far.
    writes: u64,
    /// The next lookup breaks whoever makes it.
    breaks: bool,
}

#[derive(Debug)]
struct Listener {
    member: MemberId,
    listens: bool,
    followed: BTreeSet<Bucket>,
    events: mpsc::Sender<LinkEvent>,
}

impl MemoryEngine {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            origin: Instant::now(),
            away: false,
            set_back: Duration::ZERO,
            roster: BTreeMap::new(),
            unburied: BTreeMap::new(),
            directory: HashMap::new(),
            last_epoch: 0,
            bans: BTreeMap::new(),
            bans_at: BansAt { origin: 0, version: 0 },
            state: Store::new(&crate::config::Settings::default().state),
            links: BTreeMap::new(),
            next_link: 1,
            writes: 0,
            breaks: false,
        })))
    }

    /// Cuts all links, and lets nobody connect until it is back.
    pub(crate) fn set_away(&self, away: bool) {
        let mut inner = self.0.lock();
        inner.away = away;
        if away {
            inner.cut(|_| true);
        }
    }

    /// Cuts the links of one member, once.
    pub(crate) fn cut(&self, member: MemberId) {
        self.0.lock().cut(|listener| listener.member == member);
    }

    /// Breaks the task that looks anything up next.
    pub(crate) fn break_next_lookup(&self) {
        self.0.lock().breaks = true;
    }

    /// Forgets all it knows, as an engine does that is started empty.
    pub(crate) fn forget(&self) {
        let mut inner = self.0.lock();
        inner.roster.clear();
        inner.unburied.clear();
        inner.directory.clear();
        inner.last_epoch = 0;
        inner.bans.clear();
        inner.bans_at = BansAt { origin: 0, version: 0 };
    }

    /// Sets the clock back by which epochs are given.
    pub(crate) fn set_clock_back(&self, by: Duration) {
        self.0.lock().set_back += by;
    }

    /// What is down for a key.
    pub(crate) fn entry(&self, key: AgentKey) -> Option<Entry> {
        self.0.lock().directory.get(&key).cloned()
    }

    /// How many agents are down.
    pub(crate) fn agents(&self) -> usize {
        self.0.lock().directory.len()
    }

    /// What parts of the directory are followed by anybody.
    pub(crate) fn followed(&self) -> Vec<Bucket> {
        let inner = self.0.lock();
        let followed = inner.links.values().flat_map(|listener| listener.followed.iter());
        followed.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How often anything was written.
    pub(crate) fn writes(&self) -> u64 {
        self.0.lock().writes
    }
}

impl Backplane for MemoryEngine {
    fn connect(
        &self,
        member: MemberId,
        events: mpsc::Sender<LinkEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Away>> {
        async move {
            let mut inner = self.0.lock();
            if inner.away {
                return Err(Away("the engine is away".into()));
            }
            let id = inner.next_link;
            inner.next_link += 1;
            inner
                .links
                .insert(id, Listener { member, listens: true, followed: BTreeSet::new(), events });
            Ok(Arc::new(MemoryLink { engine: self.clone(), id }) as Arc<dyn Link>)
        }
        .boxed()
    }
}

impl Inner {
    fn micros(&self) -> u64 {
        let elapsed = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        BEGINNING + elapsed - u64::try_from(self.set_back.as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether the clock is ahead of all epochs: one that is behind, as one that was set back, knows
    /// of no age.
    fn knows_ages(&self) -> bool {
        // While time stands still every epoch is ahead of it by a little.
        self.micros() + MICROS_AHEAD > self.last_epoch
    }

    /// An epoch for what happened so long ago.
    fn epoch(&mut self, age: Duration) -> Epoch {
        self.last_epoch = self.micros().max(self.last_epoch + 1);
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Epoch(self.last_epoch.saturating_sub(age))
    }

    fn cut(&mut self, which: impl Fn(&Listener) -> bool) {
        self.links.retain(|_, listener| {
            let cut = which(listener);
            if cut {
                // Where there is no room, the end of the channel says the same.
                let lost = LinkEvent::Lost(Away("the link was cut".into()));
                let _ = listener.events.try_send(lost);
            }
            !cut
        });
    }

    /// Hands an event to whoever wants it; a listener that cannot take it loses its link.
    fn hand_out(
        &mut self,
        wants: impl Fn(&Listener) -> bool,
        event: impl Fn() -> LinkEvent,
    ) -> bool {
        let mut heard = false;
        self.links.retain(|_, listener| {
            if !wants(listener) {
                return true;
            }
            let taken = listener.events.try_send(event()).is_ok();
            heard |= taken;
            taken
        });
        heard
    }

    fn tell(&mut self, change: &Change) {
        let bucket = Bucket::of(change.key);
        self.hand_out(
            |listener| listener.followed.contains(&bucket),
            || LinkEvent::Change(change.clone()),
        );
    }

    fn put(
        &mut self,
        member: MemberId,
        agent: &Arc<Agent>,
        known: Result<Epoch, Duration>,
        knows_ages: bool,
    ) -> Claimed {
        let key = AgentKey::from_bytes(agent.key);
        let mut epoch = match known {
            Ok(known) => {
                self.last_epoch = self.last_epoch.max(known.0);
                known
            }
            Err(age) => self.epoch(if knows_ages { age } else { Duration::ZERO }),
        };
        let before = self.directory.get(&key).map(|entry| (entry.member, entry.epoch));
        if before.is_some_and(|(holder, held)| held == epoch && holder != member) && known.is_err()
        {
            epoch = Epoch(epoch.0 + 1);
            self.last_epoch = self.last_epoch.max(epoch.0);
        }
        if let Some((to, newer)) = before
            && newer > epoch
        {
            return Claimed::Lost { to, epoch: newer };
        }
        let entry = Entry { key, member, epoch, agent: Arc::clone(agent) };
        self.directory.insert(key, entry);
        let kind = if before.is_some() { ChangeKind::Moved } else { ChangeKind::Came };
        if before != Some((member, epoch)) {
            self.tell(&Change { key, member, epoch, kind });
        }
        Claimed::Won { epoch, before }
    }

    fn remove(&mut self, member: MemberId, key: AgentKey, epoch: Epoch, reason: &str) {
        let is_so = |entry: &Entry| entry.member == member && entry.epoch == epoch;
        if self.directory.get(&key).is_some_and(is_so) {
            self.directory.remove(&key);
            let kind = ChangeKind::Left(reason.to_owned());
            self.tell(&Change { key, member, epoch, kind });
        }
    }

    fn of(&self, member: MemberId, bucket: Bucket) -> Vec<Entry> {
        let of = |entry: &&Entry| entry.member == member && Bucket::of(entry.key) == bucket;
        self.directory.values().filter(of).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::handle::tests::session;

    #[tokio::test(start_paused = true)]
    async fn the_newest_registration_counts_and_followers_are_told() {
        let engine = MemoryEngine::new();
        let (events, mut heard) = mpsc::channel(8);
        let (a, b) = (MemberId(1), MemberId(2));
        let link = engine.connect(a, events).await.unwrap();
        let agent = session().facts();
        let key = AgentKey::from_bytes(agent.key);
        link.follow(Bucket::of(key)).await.unwrap();
        let claim = |member, age| Claim { member, agent: Arc::clone(&agent), age };
        let first = link.claim(&claim(a, Duration::ZERO)).await.unwrap();
        let Claimed::Won { epoch, before: None } = first else { panic!("{first:?}") };
        tokio::time::advance(Duration::from_secs(1)).await;
        let late = link.claim(&claim(b, Duration::from_secs(2))).await.unwrap();
        assert!(matches!(late, Claimed::Lost { to, .. } if to == a), "{late:?}");
        let moved = link.claim(&claim(b, Duration::ZERO)).await.unwrap();
        assert!(matches!(moved, Claimed::Won { before: Some(before), .. } if before == (a, epoch)));
        link.release(a, &[Release { key, epoch, reason: "closed" }]).await.unwrap();
        assert_eq!(engine.entry(key).unwrap().member, b, "an old release harms nobody");
        link.clear(b, Bucket::of(key), "node_lost").await.unwrap();
        let kinds: Vec<_> = std::iter::from_fn(|| match heard.try_recv() {
            Ok(LinkEvent::Change(change)) => Some(change.kind),
            _ => None,
        })
        .collect();
        let left = ChangeKind::Left("node_lost".into());
        assert_eq!(kinds, [ChangeKind::Came, ChangeKind::Moved, left]);
        assert_eq!(engine.agents(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_itself_and_one_of_many_strikes_its_member_off() {
        let engine = MemoryEngine::new();
        let link = engine.connect(MemberId(1), mpsc::channel(8).0).await.unwrap();
        let info = NodeInfo {
            node_id: "a".into(),
            did: String::new(),
            version: String::new(),
            frames: 1,
            started_ms: 0,
            agents: 0,
            draining: false,
            lease_ms: 0,
        };
        let lease = Duration::from_secs(5);
        assert!(link.renew(MemberId(2), &info, lease).await.unwrap().entered);
        assert!(!link.strike(MemberId(2), lease).await.unwrap());
        tokio::time::advance(lease).await;
        let roster = link.renew(MemberId(1), &info, lease).await.unwrap();
        assert!(roster.members.iter().any(|listed| listed.left.is_zero()));
        assert!(link.strike(MemberId(2), lease).await.unwrap());
        assert!(!link.strike(MemberId(2), lease).await.unwrap());
        // Whoever was to bury it does not do so in time: another one is told to.
        tokio::time::advance(lease).await;
        assert_eq!(link.renew(MemberId(1), &info, lease).await.unwrap().unburied, [MemberId(2)]);
        assert!(link.strike(MemberId(2), lease).await.unwrap());
        link.buried(MemberId(2)).await.unwrap();
        tokio::time::advance(lease).await;
        assert!(!link.strike(MemberId(2), lease).await.unwrap());
        engine.set_away(true);
        assert!(link.renew(MemberId(1), &info, lease).await.is_err());
        assert!(engine.connect(MemberId(1), mpsc::channel(8).0).await.is_err());
    }
}
