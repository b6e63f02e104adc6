//! Hooks of scope "cluster": two nodes over one engine in memory.

use std::sync::Weak;

use conexus_plugin_api::{
    AgentFilter,
    host::{Refused, StateError},
};
use conexus_protocol::AgentKey;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::mpsc as channel;

use super::*;
use crate::{
    cluster::{
        Cluster, Joined, Station, backplane::Backplane as _, ids::MemberId, memory::MemoryEngine,
    },
    config::HookScope,
    hooks::{SharedState, World, replay::replay_with},
};

/// A gateway's part, as hooks see it.
struct Node {
    cluster: Arc<Cluster>,
    memory: MemoryEngine,
}

impl Node {
    fn new(memory: &MemoryEngine) -> Arc<Self> {
        let settings = Settings::default().cluster;
        let cluster = Arc::new(Cluster::new(settings, Arc::new(memory.clone())));
        Arc::new(Self { cluster, memory: memory.clone() })
    }

    async fn join(&self) {
        let member = MemberId::generate();
        let (events, _) = channel::channel(1);
        let link = self.memory.connect(member, events).await.unwrap();
        self.cluster.take(Station::Joined(Joined { member, link, number: 1 }));
    }

    fn serve(self: &Arc<Self>, engine: &Engine) {
        let world: Arc<dyn World> = Arc::<Self>::clone(self);
        engine.serve(Arc::downgrade(&world));
    }
}

impl World for Node {
    fn agent(&self, _: AgentKey) -> Option<Arc<Agent>> {
        None
    }

    fn agents(&self, _: &AgentFilter) -> Vec<Arc<Agent>> {
        Vec::new()
    }

    fn find_agent(&self, _: AgentKey) -> BoxFuture<'_, Result<Option<Arc<Agent>>, StateError>> {
        let there = self.cluster.joined().map(|_| Some(agent()));
        Box::pin(ready(there.map_err(|_| StateError::Unavailable)))
    }

    fn shared_state(&self) -> Option<SharedState> {
        Some(SharedState::of(&self.cluster))
    }

    fn send(&self, _: AgentKey, _: &str, _: &str) -> Result<(), Refused> {
        Err(Refused::Absent)
    }

    fn disconnect(&self, _: AgentKey, _: &str) -> bool {
        false
    }
}

/// Settings with this hook at one point, its state the cluster's.
fn shared(point: Point, hook: &str) -> Settings {
    let mut settings = chain(point, &[hook]);
    settings.policies.hooks.get_mut(hook).unwrap().scope = HookScope::Cluster;
    entry_of(&mut settings, point).budget = Some(Duration::from_secs(60));
    settings.policy.breaker_cooldown = Duration::from_secs(3600);
    settings
}

fn entry_of(settings: &mut Settings, point: Point) -> &mut ChainEntry {
    &mut settings.policies.chains.get_mut(&Chain(point)).unwrap()[0]
}

/// What a script makes of state that cannot be reached.
fn failed_state(error: StateError) -> HookFault {
    HookFault::Failed(error.to_string())
}

/// Admits what the limit does.
fn limits(count: u32) -> Scripts {
    let scripts = Scripts::default();
    scripts.set("a", move |event, context| {
        if event.point() != Point::Route {
            return continues();
        }
        let hour = Duration::from_secs(3600);
        let admitted = context.services.rate_limit("all", count, hour).map_err(failed_state)?;
        if admitted { continues() } else { Ok(Returned::Answer(deny().into())) }
    });
    scripts
}

async fn joined(
    memory: &MemoryEngine,
    settings: &Settings,
    scripts: &Scripts,
) -> (Engine, Arc<Node>) {
    let (engine, node) = (engine(settings, scripts), Node::new(memory));
    node.serve(&engine);
    node.join().await;
    // These have an `on_start`, as they have all points.
    while engine.current().instances.values().any(|instance| instance.waits()) {
        tokio::task::yield_now().await;
    }
    (engine, node)
}

#[tokio::test]
async fn a_limit_is_that_of_all_nodes_together() {
    let (memory, scripts) = (MemoryEngine::new(), limits(5));
    let (one, _a) = joined(&memory, &shared(Point::Route, "a"), &scripts).await;
    let (other, _b) = joined(&memory, &shared(Point::Route, "a"), &scripts).await;
    let mut admitted = 0;
    for _ in 0..5 {
        admitted += usize::from(routed(&one).await.is_ok());
        admitted += usize::from(routed(&other).await.is_ok());
    }
    assert_eq!(admitted, 5);
    // Whose scope is "local" counts for itself, under the same name.
    let (third, _c) = joined(&memory, &chain(Point::Route, &["a"]), &scripts).await;
    assert!(routed(&third).await.is_ok());
}

#[tokio::test]
async fn all_of_the_state_is_shared_and_the_limits_of_a_key_and_a_value_hold() {
    let (memory, scripts) = (MemoryEngine::new(), Scripts::default());
    scripts.set("a", |event, context| {
        if event.point() != Point::Route {
            return continues();
        }
        let services = &context.services;
        let minute = Some(Duration::from_secs(60));
        assert_eq!(services.kv_cas("once", None, Value::Int(1), minute), Ok(true));
        assert_eq!(services.kv_cas("once", None, Value::Int(2), minute), Ok(false));
        services.kv_set("text", "kept".into(), None).unwrap();
        assert_eq!(services.kv_incr("n", 3, minute), Ok(3));
        assert_eq!(services.kv_expire("n", None), Ok(true));
        assert_eq!(services.kv_incr("text", 1, None), Err(StateError::NotANumber));
        assert_eq!(services.rate_limit("r", 0, Duration::from_secs(1)), Err(StateError::BadRate));
        assert_eq!(services.kv_get(&"k".repeat(513)), Err(StateError::TooLong));
        let long = Value::Text("v".repeat(64 * 1024 + 1).into());
        assert_eq!(services.kv_set("long", long, None), Err(StateError::TooLong));
        assert_eq!(services.agent("no DID"), Ok(None));
        let key = AgentKey::from_bytes(*conexus_protocol::Identity::generate().key().as_bytes());
        assert_eq!(services.agent(&key.did()).unwrap().unwrap().did, agent().did);
        continues()
    });
    scripts.set("b", |event, context| {
        if event.point() != Point::Route {
            return continues();
        }
        let services = &context.services;
        assert_eq!(services.kv_get("text"), Ok(Some("kept".into())));
        assert_eq!(services.kv_delete("text"), Ok(true));
        assert_eq!(services.kv_delete("text"), Ok(false));
        assert_eq!(services.kv_get("n"), Ok(Some(Value::Int(3))));
        continues()
    });
    let named = |hook: &str| {
        let mut settings = shared(Point::Route, hook);
        settings.policies.hooks.get_mut(hook).unwrap().namespace = Some("ours".into());
        settings
    };
    let (one, _a) = joined(&memory, &named("a"), &scripts).await;
    let (other, _b) = joined(&memory, &named("b"), &scripts).await;
    assert_eq!(routed(&one).await, Ok(Passage::default()));
    assert_eq!(routed(&other).await, Ok(Passage::default()));
    let count = |kind, outcome| {
        let mut counts = one.shared_tally().counts();
        counts.find(|count| (count.0, count.1) == (kind, outcome)).unwrap().2
    };
    assert_eq!((count("cas", "done"), count("incr", "done"), count("agent", "done")), (2, 1, 1));
    assert_eq!((count("incr", "refused"), count("set", "done")), (1, 1));
    assert_eq!(one.shared_tally().times.snapshot().count(), 7);
}

#[tokio::test]
async fn what_cannot_be_reached_fails_the_hook_and_its_return_is_noticed_at_once() {
    let (memory, scripts) = (MemoryEngine::new(), limits(100));
    let mut open = shared(Point::Route, "a");
    entry_of(&mut open, Point::Route).on_error = Some(FailMode::Open);
    let (closed, node) = joined(&memory, &shared(Point::Route, "a"), &scripts).await;
    let (open, _b) = joined(&memory, &open, &scripts).await;
    memory.set_away(true);
    for _ in 0..5 {
        let denied = routed(&closed).await.unwrap_err();
        assert_eq!(denied.reason, RefusalReason::PolicyError);
        assert_eq!(routed(&open).await, Ok(Passage::default()));
    }
    for engine in [&closed, &open] {
        let hook = &engine.status().chains["on_route"][0];
        assert_eq!((hook.breaker, failed("error", engine, "on_route")), (BreakerState::Open, 5));
    }
    assert!(routed(&closed).await.is_err());
    assert_eq!(failed("quarantined", &closed, "on_route"), 1);
    // Its cooldown is an hour.
    memory.set_away(false);
    node.join().await;
    while routed(&closed).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(closed.status().chains["on_route"][0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn an_on_start_that_needs_the_cluster_waits_for_it_and_the_hook_is_not_asked_before() {
    let scripts = Scripts::default();
    let tried = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tried);
    scripts.set("a", move |event, context| {
        if event.point() == Point::Start {
            context.services.kv_incr("starts", 1, None).map_err(failed_state)?;
            if count.fetch_add(1, SeqCst) == 0 {
                return Err(HookFault::Failed("not at once".into()));
            }
        }
        continues()
    });
    let (memory, settings) = (MemoryEngine::new(), shared(Point::Route, "a"));
    let (engine, node) = (engine(&settings, &scripts), Node::new(&memory));
    assert!(routed(&engine).await.is_err());
    node.serve(&engine);
    assert!(routed(&engine).await.is_err());
    // A candidate has to start at once.
    scripts.set("a", |event, context| match event {
        Event::Start => context.services.kv_get("x").map_err(failed_state).and(continues()),
        _ => continues(),
    });
    let refused = engine.reload(&settings).unwrap_err();
    assert_eq!(refused.to_string(), "hook.a: on_start: the shared state cannot be reached");
    assert_eq!(tried.load(SeqCst), 0);
    node.join().await;
    while routed(&engine).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tried.load(SeqCst), 2, "it is tried until it works");
    // The threads of a runtime that its hooks need are no place to reload on.
    let reloaded = tokio::task::spawn_blocking(move || engine.reload(&settings));
    assert_eq!(reloaded.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_process_without_a_cluster_refuses_a_hook_that_would_share() {
    struct Alone;
    impl World for Alone {
        fn agent(&self, _: AgentKey) -> Option<Arc<Agent>> {
            None
        }
        fn agents(&self, _: &AgentFilter) -> Vec<Arc<Agent>> {
            Vec::new()
        }
        fn send(&self, _: AgentKey, _: &str, _: &str) -> Result<(), Refused> {
            Err(Refused::Absent)
        }
        fn disconnect(&self, _: AgentKey, _: &str) -> bool {
            false
        }
    }
    let scripts = limits(1);
    let engine = engine(&chain(Point::Route, &["a"]), &scripts);
    let world: Arc<dyn World> = Arc::new(Alone);
    let alone: Weak<dyn World> = Arc::downgrade(&world);
    engine.serve(alone);
    let refused = engine.reload(&shared(Point::Route, "a")).unwrap_err();
    let said = "hook.a: scope \"cluster\" takes a restart: this process runs without a cluster";
    assert_eq!(refused.to_string(), said);
}

#[tokio::test]
async fn a_replay_sees_what_the_cluster_answered_and_asks_none() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("decisions.jsonl");
    let (memory, scripts) = (MemoryEngine::new(), limits(2));
    let mut settings = shared(Point::Route, "a");
    settings.telemetry.decision_log = Some(log.clone());
    let (recorded, node) = joined(&memory, &settings, &scripts).await;
    // Another node uses half of it up.
    let (other, _b) = joined(&memory, &shared(Point::Route, "a"), &scripts).await;
    routed(&other).await.unwrap();
    assert!(routed(&recorded).await.is_ok());
    assert!(routed(&recorded).await.is_err());
    memory.set_away(true);
    assert_eq!(routed(&recorded).await.unwrap_err().reason, RefusalReason::PolicyError);
    drop((recorded, node));

    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains(r#""got":{"Err":"unavailable"}"#), "{text}");
    settings.telemetry.decision_log = None;
    let report = replay_with(text.as_bytes(), &settings, Box::new(scripts.clone())).unwrap();
    assert_eq!((report.decisions, report.changed), (3, 0), "{report:?}");
    assert!(report.not_replayable.is_empty());
    // What is not on the record is answered by a state of the replay's own.
    scripts.set("a", |event, context| match event.point() {
        Point::Route if context.services.kv_incr("seen", 1, None) == Ok(3) => {
            Ok(Returned::Answer(deny().into()))
        }
        _ => continues(),
    });
    let report = replay_with(text.as_bytes(), &settings, Box::new(scripts)).unwrap();
    assert_eq!(report.changes.last().unwrap().would_be, "deny denied \"no\"");
}
