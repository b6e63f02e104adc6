//! What hooks share with those of their name on other nodes: state, and who is present.
//!
//! A hook needs its answer at once, and the answer is behind a network. So an instance of scope
//! "cluster" is called on the pool alone, whose threads may wait: here one of them has the runtime
//! ask, and waits for a bounded time. What cannot be asked, or is not answered by then, is
//! [`StateError::Unavailable`]: a failure of the hook, about which its chain decides, and never
//! something that could be taken for an answer.

use std::{
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::sync_channel,
    },
    time::{Duration, Instant},
};

use conexus_plugin_api::host::{StateError, Value};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};
use tracing::warn;

use super::{facilities::Surroundings, instance::Instance};
use crate::{
    cluster::{
        Cluster, Station,
        backplane::{StateOperation, StateReply, StateRequest},
    },
    config::Settings,
    pace::OncePerSecond,
    telemetry::histogram::Histogram,
};

/// Of what is left of a call's budget, an answer is waited for this long at most: a hook that handles
/// its absence is to have time for that.
const SHARE: (u32, u32) = (7, 8);
/// When an `on_start` that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The state that the nodes of a cluster share: what a gateway that is one of them hands to its
/// hooks.
#[derive(Clone)]
pub struct SharedState(Arc<Inner>);

struct Inner {
    /// As hooks hold all of the core.
    cluster: Weak<Cluster>,
    was_joined: AtomicBool,
    said: OncePerSecond,
}

impl fmt::Debug for SharedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedState").finish_non_exhaustive()
    }
}

impl SharedState {
    pub(crate) fn of(cluster: &Arc<Cluster>) -> Self {
        Self::within(Arc::downgrade(cluster))
    }

    fn within(cluster: Weak<Cluster>) -> Self {
        let (was_joined, said) = (AtomicBool::new(false), OncePerSecond::new());
        Self(Arc::new(Inner { cluster, was_joined, said }))
    }

    fn station(&self) -> Option<watch::Receiver<Station>> {
        Some(self.0.cluster.upgrade()?.station.subscribe())
    }

    /// A node that has just started joins within a moment: the first agents are not to be turned away
    /// for that.
    async fn first_joined(&self) {
        if !self.0.was_joined.load(Relaxed)
            && let Some(mut station) = self.station()
        {
            let _ = station.wait_for(|station| matches!(station, Station::Joined(_))).await;
        }
    }

    async fn ask(&self, request: &StateRequest) -> Asked<StateReply> {
        self.first_joined().await;
        let Some(cluster) = self.0.cluster.upgrade() else { return Err(StateError::Unavailable) };
        let answer = async { cluster.joined()?.link.state(request).await };
        answer.await.unwrap_or_else(|away| {
            if let Some(more) = self.0.said.due() {
                warn!(%away, more, "hooks cannot reach the state that the cluster shares");
            }
            Err(StateError::Unavailable)
        })
    }
}

type Asked<T> = Result<T, StateError>;

/// How instances of scope "cluster" reach what they share; one for all of them.
pub(crate) struct Reach {
    /// What the gateway that is served gave; empty until then.
    state: OnceLock<Option<SharedState>>,
    runtime: OnceLock<Handle>,
    /// `cluster.redis.timeout`.
    patience: Duration,
    max_key_bytes: usize,
    max_value_bytes: usize,
    tally: Tally,
    instances: Mutex<Vec<Weak<Instance>>>,
}

impl Reach {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            state: OnceLock::new(),
            runtime: OnceLock::new(),
            patience: settings.cluster_redis.timeout,
            max_key_bytes: settings.state.max_key_bytes,
            max_value_bytes: settings.state.max_value_bytes,
            tally: Tally::default(),
            instances: Mutex::default(),
        }
    }

    /// Whether there is no gateway yet, which may or may not be part of a cluster.
    pub(crate) fn is_early(&self) -> bool {
        self.state.get().is_none()
    }

    /// Whether the gateway is known not to be part of a cluster.
    pub(crate) fn is_without_cluster(&self) -> bool {
        matches!(self.state.get(), Some(None))
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// From now on this instance is told when the cluster is there.
    pub(crate) fn enlist(&self, instance: &Arc<Instance>) {
        let mut instances = self.instances.lock();
        instances.retain(|instance| instance.strong_count() > 0);
        instances.push(Arc::downgrade(instance));
    }

    /// Does something to the state of this name, and waits for what comes of it.
    pub(crate) fn state(
        &self,
        until: Option<Instant>,
        namespace: &Arc<str>,
        key: &str,
        operation: StateOperation,
    ) -> Asked<StateReply> {
        let state = self.state.get().cloned().flatten().ok_or(StateError::Unavailable)?;
        if key.len() > self.max_key_bytes || size(&operation) > self.max_value_bytes {
            return Err(StateError::TooLong);
        }
        let kind = Kind::of(&operation);
        let request =
            StateRequest { namespace: Arc::clone(namespace), key: key.to_owned(), operation };
        self.wait(kind, until, async move { state.ask(&request).await })
    }

    /// Has the runtime ask, and waits on this thread: no longer than the engine has to answer, nor
    /// than a call that ends then can afford.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        kind: Kind,
        until: Option<Instant>,
        ask: impl Future<Output = Asked<T>> + Send + 'static,
    ) -> Asked<T> {
        let began = Instant::now();
        let left = until.map(|until| until.saturating_duration_since(began) * SHARE.0 / SHARE.1);
        let patience = left.unwrap_or(self.patience).min(self.patience);
        let runtime = self.runtime.get().filter(|_| !self.is_without_cluster());
        let answer = runtime.filter(|_| !patience.is_zero()).map(|runtime| {
            let (answer, answered) = sync_channel(1);
            runtime.spawn(async move {
                // Whoever waits is told at once where the answer comes too late to wait for.
                let _ = answer.send(tokio::time::timeout(patience, ask).await.ok());
            });
            answered.recv_timeout(patience).ok().flatten()
        });
        let outcome = match &answer {
            Some(Some(Ok(_))) => OutcomeKind::Done,
            Some(Some(Err(StateError::Unavailable))) => OutcomeKind::Unavailable,
            Some(Some(Err(_))) => OutcomeKind::Refused,
            Some(None) => OutcomeKind::Late,
            None if patience.is_zero() => OutcomeKind::Late,
            None => OutcomeKind::Unavailable,
        };
        self.tally.count(kind, outcome, began.elapsed());
        answer.flatten().unwrap_or(Err(StateError::Unavailable))
    }

    /// The cluster is there: instances whose `on_start` waits for it start, and those that failed
    /// for want of it are asked again. Whether any has still to start.
    fn is_back(&self, anew: bool) -> bool {
        if let Some(Some(state)) = self.state.get() {
            state.0.was_joined.store(true, Relaxed);
        }
        let instances: Vec<_> = self.instances.lock().iter().filter_map(Weak::upgrade).collect();
        let told = instances.iter().map(|instance| instance.cluster_is_there(anew));
        told.fold(false, |waits, still| waits | still)
    }
}

/// The gateway serves: its hooks share what its cluster shares, if it is part of one.
pub(crate) fn serve(around: &Arc<Surroundings>, state: Option<SharedState>) {
    let reach = &around.reach;
    let station = state.as_ref().and_then(SharedState::station);
    if reach.state.set(state).is_err() {
        return;
    }
    let (Some(mut station), Ok(runtime)) = (station, Handle::try_current()) else { return };
    let _ = reach.runtime.set(runtime.clone());
    let around = Arc::downgrade(around);
    runtime.spawn(async move {
        let mut anew = true;
        loop {
            let joined = matches!(*station.borrow_and_update(), Station::Joined(_));
            let waits = match around.upgrade() {
                Some(around) => joined && around.reach.is_back(anew),
                None => return,
            };
            tokio::select! {
                changed = station.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    anew = true;
                }
                () = tokio::time::sleep(AGAIN), if waits => anew = false,
            }
        }
    });
}

/// The bytes of a value that is to be kept.
fn size(operation: &StateOperation) -> usize {
    match operation {
        StateOperation::Set { value, .. } | StateOperation::Cas { value, .. } => Value::size(value),
        _ => 0,
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Get,
    Set,
    Delete,
    Incr,
    Cas,
    Expire,
    RateLimit,
    Agent,
    Agents,
}

impl Kind {
    /// In the order of the variants.
    const NAMES: [&'static str; 9] =
        ["get", "set", "delete", "incr", "cas", "expire", "rate_limit", "agent", "agents"];

    const fn of(operation: &StateOperation) -> Self {
        match operation {
            StateOperation::Get => Self::Get,
            StateOperation::Set { .. } => Self::Set,
            StateOperation::Delete => Self::Delete,
            StateOperation::Incr { .. } => Self::Incr,
            StateOperation::Cas { .. } => Self::Cas,
            StateOperation::Expire { .. } => Self::Expire,
            StateOperation::RateLimit { .. } => Self::RateLimit,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
enum OutcomeKind {
    Done,
    /// It was asked, and said that this cannot be done.
    Refused,
    Unavailable,
    /// Not within the time that there was.
    Late,
}

impl OutcomeKind {
    /// In the order of the variants.
    const NAMES: [&'static str; 4] = ["done", "refused", "unavailable", "late"];
}

/// What was asked, what came of it, and how long it took. A network's round trip is in between, so
/// that the counters need no stripes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: [[AtomicU64; OutcomeKind::NAMES.len()]; Kind::NAMES.len()],
    /// Of all of them.
    pub(crate) times: Histogram,
}

impl Tally {
    fn count(&self, kind: Kind, outcome: OutcomeKind, took: Duration) {
        self.counts[kind as usize][outcome as usize].fetch_add(1, Relaxed);
        self.times.observe(took);
    }

    /// Operation, outcome and how often.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        Kind::NAMES.into_iter().zip(&self.counts).flat_map(|(kind, outcomes)| {
            let named = OutcomeKind::NAMES.into_iter().zip(outcomes);
            named.map(move |(outcome, count)| (kind, outcome, count.load(Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn reach(timeout: Duration) -> Reach {
        let mut settings = Settings::default();
        settings.cluster_redis.timeout = timeout;
        let reach = Reach::new(&settings);
        reach.state.set(Some(SharedState::within(Weak::new()))).unwrap();
        reach.runtime.set(Handle::current()).unwrap();
        reach
    }

    fn late(reach: &Reach) -> u64 {
        let late = reach.tally.counts().filter(|count| count.1 == "late");
        late.map(|(_, _, count)| count).sum()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_waited_for_beyond_the_engines_time_or_the_calls() {
        let hour = Duration::from_secs(3600);
        for (timeout, left) in
            [(Duration::from_millis(50), hour), (hour, Duration::from_millis(80))]
        {
            let (reach, until) = (reach(timeout), Instant::now() + left);
            let answer = reach.wait(Kind::Get, Some(until), pending::<Asked<()>>());
            assert_eq!((answer, late(&reach)), (Err(StateError::Unavailable), 1));
            if left < timeout {
                assert!(Instant::now() < until, "there is time to handle it");
            }
        }
        // What is over is not even asked.
        let reach = reach(hour);
        let asked = async { panic!("asked") };
        let answer = reach.wait::<()>(Kind::Get, Some(Instant::now()), asked);
        assert_eq!((answer, late(&reach)), (Err(StateError::Unavailable), 1));
    }
}
