//! The engine with hooks that do as the test says.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use conexus_plugin_api::{
    Agent, Answer, DenyCode, Metadata, Point, PointSet, Set, Verdict,
    host::{Disconnect, Event, Route, RouteParts, Services, Text, Value},
};
use conexus_protocol::RefusalReason;
use parking_lot::Mutex;

#[path = "engine_cluster_tests.rs"]
mod cluster;
#[path = "engine_shadow_tests.rs"]
mod shadow;

use super::*;
use crate::{
    config::{Chain, ChainEntry, FailMode, HookSettings, HookSource},
    hooks::{
        BreakerState,
        generation::Code,
        hook::{CallContext, Hook, HookFault, Returned},
        judge::{Decision, Passage, Ruling, Way},
    },
};

type Behaviour =
    Arc<dyn Fn(&Event, &CallContext) -> Result<Returned, HookFault> + Send + Sync + 'static>;

/// What hooks do, by the name after `script:`. Changing one is like changing its file.
#[derive(Default, Clone)]
struct Scripts(Arc<Mutex<HashMap<String, (u32, Behaviour)>>>);

impl Scripts {
    fn set(
        &self,
        name: &str,
        behaviour: impl Fn(&Event, &CallContext) -> Result<Returned, HookFault> + Send + Sync + 'static,
    ) {
        let mut scripts = self.0.lock();
        let version = scripts.get(name).map_or(0, |(version, _)| version + 1);
        scripts.insert(name.into(), (version, Arc::new(behaviour)));
    }
}

struct Fake(Behaviour);

impl Hook for Fake {
    fn points(&self) -> PointSet {
        PointSet::of(Point::ALL)
    }

    fn call(&self, event: &Event, context: &CallContext) -> Result<Returned, HookFault> {
        match event {
            // Only what a test asks for.
            Event::Start | Event::Stop | Event::Reload | Event::Tick
                if Arc::strong_count(&self.0) == 0 =>
            {
                Ok(Returned::Answer(Answer::CONTINUE))
            }
            event => (self.0)(event, context),
        }
    }
}

impl Loader for Scripts {
    fn load(&self, hook: &HookSettings, _settings: &Settings) -> Result<Code, String> {
        let HookSource::Script(name) = &hook.source else { return Err("no plugins here".into()) };
        let (version, behaviour) =
            self.0.lock().get(name).cloned().ok_or_else(|| format!("{name}.rhai: no such file"))?;
        Ok(Code {
            files: vec![SourceFile { path: name.into(), sha256: version.to_string() }],
            native: false,
            make: Box::new(move |_| Ok(Arc::new(Fake(behaviour)) as Arc<dyn Hook>)),
        })
    }
}

fn hook(name: &str) -> HookSettings {
    HookSettings::new(HookSource::Script(name.into()))
}

fn entry(name: &str) -> ChainEntry {
    ChainEntry { hook: name.into(), mode: Mode::Enforce, on_error: None, budget: None, warn: None }
}

/// Settings with these hooks at one point, in order.
fn chain(point: Point, hooks: &[&str]) -> Settings {
    let mut settings = Settings::default();
    for name in hooks {
        settings.policies.hooks.insert((*name).into(), hook(name));
    }
    let entries = hooks.iter().map(|name| entry(name)).collect();
    settings.policies.chains.insert(Chain(point), entries);
    settings
}

fn engine(settings: &Settings, scripts: &Scripts) -> Engine {
    Engine::start_with(settings, Box::new(scripts.clone()), WallClock::Real, false).unwrap()
}

fn agent() -> Arc<Agent> {
    Arc::new(Agent {
        did: "did:key:zA".into(),
        key: [1; 32],
        session: 1,
        address: ([127, 0, 0, 1], 1).into(),
        subprotocol: "ioap.v1".into(),
        connected_at_ms: 0,
        metadata: Metadata::default(),
        labels: BTreeMap::new(),
        rate_class: None,
    })
}

fn route() -> Arc<Route> {
    let parts = RouteParts {
        from: agent(),
        target: None,
        to_key: [2; 32],
        kind: "OFFER".into(),
        to: "did:key:zB",
        id: "1",
        correlation_id: None,
        payload: "{}",
        trace: None,
        connection: None,
    };
    Arc::new(Route::new(Text::new("{}"), parts))
}

async fn routed(engine: &Engine) -> Ruling<Passage> {
    engine.judge().on_route(route()).settled().await
}

fn continues() -> Result<Returned, HookFault> {
    Ok(Returned::Answer(Answer::CONTINUE))
}

fn deny() -> Verdict {
    Verdict::Deny { code: DenyCode::Denied, reason: "no".into() }
}

fn failed(kind: &str, engine: &Engine, point: &str) -> u64 {
    engine.status().chains[point][0].counts.faults.get(kind).copied().unwrap_or(0)
}

/// What is between calls of one hook and the event that it saw.
fn silent_but(
    point: Point,
    then: impl Fn() -> Result<Returned, HookFault> + Send + Sync + 'static,
) -> impl Fn(&Event, &CallContext) -> Result<Returned, HookFault> + Send + Sync + 'static {
    move |event, _| if event.point() == point { then() } else { continues() }
}

#[tokio::test]
async fn hooks_are_asked_in_order_until_one_ends_the_chain() {
    let (scripts, asked) = (Scripts::default(), Arc::new(Mutex::new(Vec::new())));
    for (name, answer) in [
        ("a", Answer::from(Verdict::Hold(Duration::from_secs(1)))),
        ("b", Answer::from(Verdict::Allow)),
        ("c", Answer::from(deny())),
    ] {
        let asked = Arc::clone(&asked);
        scripts.set(name, move |event, _| {
            if event.point() != Point::Route {
                return continues();
            }
            asked.lock().push(name);
            Ok(Returned::Answer(answer.clone()))
        });
    }
    let engine = engine(&chain(Point::Route, &["a", "b", "c"]), &scripts);
    let passage = routed(&engine).await.unwrap();
    assert_eq!(passage.way, Way::Hold(Duration::from_secs(1)));
    assert_eq!(*asked.lock(), ["a", "b"]);
}

#[tokio::test]
async fn a_shadow_is_asked_and_counted_but_not_obeyed() {
    let scripts = Scripts::default();
    scripts.set("a", silent_but(Point::Route, || Ok(Returned::Answer(deny().into()))));
    let mut settings = chain(Point::Route, &["a"]);
    settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap()[0].mode = Mode::Shadow;
    let engine = engine(&settings, &scripts);
    assert_eq!(routed(&engine).await, Ok(Passage::default()));
    assert_eq!(engine.status().chains["on_route"][0].counts.verdicts["deny"], 1);
}

#[tokio::test]
async fn a_shadow_that_takes_its_time_holds_nobody_up() {
    let scripts = Scripts::default();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    scripts.set("a", move |event, _| {
        if event.point() == Point::Route {
            let _ = released.lock().recv();
        }
        continues()
    });
    let mut settings = chain(Point::Route, &["a"]);
    settings.policies.hooks.get_mut("a").unwrap().blocking = true;
    let only = &mut settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap()[0];
    (only.mode, only.budget) = (Mode::Shadow, Some(Duration::from_secs(60)));
    let engine = engine(&settings, &scripts);
    assert!(matches!(engine.judge().on_route(route()), Decision::Now(Ok(_))));
    drop(release);
    while engine.status().chains["on_route"][0].counts.calls == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failure_closes_or_opens_as_configured_and_the_fifth_quarantines() {
    for (on_error, open) in [(FailMode::Open, true), (FailMode::Closed, false)] {
        let scripts = Scripts::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        scripts.set(
            "a",
            silent_but(Point::Route, move || {
                counted.fetch_add(1, SeqCst);
                panic!("boom");
            }),
        );
        let mut settings = chain(Point::Route, &["a"]);
        settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap()[0].on_error =
            Some(on_error);
        let engine = engine(&settings, &scripts);
        for _ in 0..20 {
            match routed(&engine).await {
                Ok(passage) => assert!(open && passage == Passage::default()),
                Err(denial) => assert!(!open && denial.reason == RefusalReason::PolicyError),
            }
        }
        assert_eq!(calls.load(SeqCst), 5);
        assert_eq!(failed("panic", &engine, "on_route"), 5);
        assert_eq!(failed("quarantined", &engine, "on_route"), 15);
        assert_eq!(engine.status().chains["on_route"][0].breaker, BreakerState::Open);
    }
}

#[tokio::test]
async fn an_answer_out_of_place_is_a_failure_and_no_denial() {
    let scripts = Scripts::default();
    scripts.set(
        "a",
        silent_but(Point::Route, || Ok(Returned::Answer(Verdict::Set(Set::default()).into()))),
    );
    let engine = engine(&chain(Point::Route, &["a"]), &scripts);
    assert_eq!(routed(&engine).await.unwrap_err().reason, RefusalReason::PolicyError);
    assert_eq!(failed("bad_return", &engine, "on_route"), 1);
}

#[tokio::test]
async fn a_blocking_hook_is_given_up_at_its_budget() {
    let scripts = Scripts::default();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    scripts.set("a", move |event, _| {
        if event.point() == Point::Route {
            let _ = released.lock().recv();
        }
        continues()
    });
    let mut settings = chain(Point::Route, &["a"]);
    settings.policies.hooks.get_mut("a").unwrap().blocking = true;
    settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap()[0].budget =
        Some(Duration::from_millis(20));
    let engine = engine(&settings, &scripts);
    assert_eq!(routed(&engine).await.unwrap_err().reason, RefusalReason::PolicyError);
    assert_eq!(failed("timeout", &engine, "on_route"), 1);
    assert_eq!(engine.status().pool.lost, 1);
    drop(release);
    while engine.status().pool.lost > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_that_find_no_room_in_the_pool_are_overload() {
    let scripts = Scripts::default();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    scripts.set("a", move |event, _| {
        if event.point() == Point::Route {
            let _ = released.lock().recv();
        }
        continues()
    });
    let mut settings = chain(Point::Route, &["a"]);
    settings.policies.hooks.get_mut("a").unwrap().blocking = true;
    (settings.policy.blocking_threads, settings.policy.blocking_queue) = (1, 1);
    settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap()[0].budget =
        Some(Duration::from_secs(60));
    let engine = engine(&settings, &scripts);
    let mut waiting = Vec::new();
    let refused = loop {
        match engine.judge().on_route(route()) {
            Decision::Now(ruling) => break ruling,
            Decision::Later(later) => waiting.push(later),
        }
    };
    assert_eq!(refused.unwrap_err().reason, RefusalReason::PolicyError);
    assert_eq!(failed("overload", &engine, "on_route"), 1);
    drop(release);
    for later in waiting {
        later.await.unwrap();
    }
}

#[tokio::test]
async fn a_verdict_put_off_is_awaited_until_the_budget_ends() {
    let scripts = Scripts::default();
    let (tokens, token) = mpsc::channel();
    let tokens = Mutex::new(tokens);
    scripts.set("a", move |event, context| {
        if event.point() != Point::Register {
            return continues();
        }
        let token = context.services.defer().unwrap();
        assert!(context.services.defer().is_err(), "once");
        tokens.lock().send(token).unwrap();
        Ok(Returned::Deferred(token))
    });
    let mut settings = chain(Point::Register, &["a"]);
    settings.policies.chains.get_mut(&Chain(Point::Register)).unwrap()[0].budget =
        Some(Duration::from_millis(500));
    let engine = engine(&settings, &scripts);
    let register = || {
        let event = conexus_plugin_api::host::Register {
            agent: agent(),
            credentials: None,
            renewal: false,
            connection: None,
        };
        engine.judge().on_register(Arc::new(event))
    };
    let services = Arc::clone(&engine.current().instances["a"].facilities);

    let Decision::Later(later) = register() else { panic!("decided at once") };
    let first = token.recv().unwrap();
    assert!(services.complete(first, Ok(Verdict::Extend(Duration::from_secs(9)).into())));
    assert!(!services.complete(first, Ok(Answer::CONTINUE)), "twice");
    assert_eq!(later.await.unwrap().lease, Some(Duration::from_secs(9)));

    let Decision::Later(later) = register() else { panic!("decided at once") };
    let second = token.recv().unwrap();
    assert_eq!(later.await.unwrap_err().reason, RefusalReason::PolicyError);
    assert!(!services.complete(second, Ok(Answer::CONTINUE)), "late");
    assert_eq!(engine.status().deferred, 0);
}

#[tokio::test]
async fn a_hook_that_turned_out_slow_is_asked_off_the_path() {
    let scripts = Scripts::default();
    let threads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&threads);
    scripts.set("a", move |event, _| {
        if event.point() == Point::Route {
            seen.lock().push(std::thread::current().id());
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_millis(21) {
                std::hint::spin_loop();
            }
        }
        continues()
    });
    let engine = engine(&chain(Point::Route, &["a"]), &scripts);
    routed(&engine).await.unwrap();
    routed(&engine).await.unwrap();
    let (threads, here) = (threads.lock(), std::thread::current().id());
    assert_eq!(threads[0], here);
    assert_ne!(threads[1], here);
}

#[tokio::test]
async fn observers_are_told_in_order_and_hear_of_failures() {
    let scripts = Scripts::default();
    let (told, tells) = mpsc::channel();
    let told = Mutex::new(told);
    scripts.set("watcher", move |event, _| {
        let word = match event {
            Event::Disconnect(event) => event.reason.to_string(),
            Event::HookError(event) => format!("{} {} {}", event.hook, event.point, event.kind),
            _ => return continues(),
        };
        told.lock().send(word).unwrap();
        continues()
    });
    scripts.set("bad", silent_but(Point::Route, || Err(HookFault::Failed("thrown".into()))));
    let mut settings = chain(Point::Disconnect, &["watcher"]);
    let more = chain(Point::Route, &["bad"]).policies;
    settings.policies.hooks.extend(more.hooks);
    settings.policies.chains.extend(more.chains);
    settings.policies.chains.insert(Chain(Point::HookError), vec![entry("watcher")]);
    let engine = engine(&settings, &scripts);
    for n in 0..100 {
        let event = Disconnect {
            agent: agent(),
            reason: n.to_string().into(),
            code: None,
            lasted_ms: 0,
            epoch: None,
            connection: None,
        };
        engine.judge().observe(Event::Disconnect(Arc::new(event)));
    }
    for n in 0..100 {
        assert_eq!(tells.recv().unwrap(), n.to_string());
    }
    for _ in 0..5 {
        routed(&engine).await.unwrap_err();
    }
    for _ in 0..5 {
        assert_eq!(tells.recv().unwrap(), "bad on_route error");
    }
    assert_eq!(tells.recv().unwrap(), "bad on_route quarantined");
}

#[tokio::test]
async fn observers_that_do_not_keep_up_lose_events_and_hold_nobody_up() {
    let scripts = Scripts::default();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    scripts.set("a", move |event, _| {
        if event.point() == Point::Unregister {
            let _ = released.lock().recv();
        }
        continues()
    });
    let mut settings = chain(Point::Unregister, &["a"]);
    settings.policy.observer_queue = 4;
    let engine = engine(&settings, &scripts);
    let event = || {
        let event = conexus_plugin_api::host::Unregister { agent: agent(), connection: None };
        Event::Unregister(Arc::new(event))
    };
    for _ in 0..50 {
        engine.judge().observe(event());
    }
    assert!(engine.status().observers_dropped >= 40);
    drop(release);
    engine.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn a_reload_swaps_all_or_nothing_and_carries_over_what_is_unchanged() {
    let scripts = Scripts::default();
    let lives = Arc::new(Mutex::new(Vec::new()));
    let watched = |name: &'static str| {
        let lives = Arc::clone(&lives);
        move |event: &Event, _: &CallContext| {
            if matches!(event, Event::Start | Event::Stop | Event::Reload) {
                lives.lock().push((name, event.point()));
            }
            continues()
        }
    };
    scripts.set("same", watched("same"));
    scripts.set("changing", watched("old"));
    let settings = chain(Point::Route, &["same", "changing"]);
    let engine = engine(&settings, &scripts);
    let before = engine.judge();

    let mut broken = settings.clone();
    broken.policies.hooks.insert("new".into(), hook("missing"));
    scripts.set("changing", watched("never"));
    let error = engine.reload(&broken).unwrap_err().to_string();
    assert_eq!(error, "hook.new: missing.rhai: no such file");
    assert_eq!(engine.status().generation.number, 1);
    assert_eq!(engine.status().refusal.unwrap().reasons, [error]);

    scripts.set("changing", watched("new"));
    assert_eq!(engine.reload(&settings).unwrap(), 2);
    assert!(engine.status().refusal.is_none());
    let happened = |what| lives.lock().contains(&what);
    while !happened(("same", Point::Reload)) {
        tokio::task::yield_now().await;
    }
    assert!(happened(("new", Point::Start)) && !happened(("never", Point::Start)));
    assert!(!happened(("old", Point::Stop)), "it is kept to go back to");

    assert_eq!(engine.roll_back().unwrap(), 1);
    assert!(Arc::ptr_eq(&engine.judge(), &before));
    assert_eq!(engine.reload(&settings).unwrap(), 3, "numbers are never used twice");
    scripts.set("changing", watched("newest"));
    assert_eq!(engine.reload(&settings).unwrap(), 4);
    scripts.set("changing", watched("newest"));
    assert_eq!(engine.reload(&settings).unwrap(), 5);
    drop(before);
    // Generation 1 is gone now, and 2 went when 1 came back and was replaced.
    while !happened(("old", Point::Stop)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_reload_of_nothing_new_keeps_the_generation_to_go_back_to() {
    let scripts = Scripts::default();
    scripts.set("a", |_, _| continues());
    let settings = chain(Point::Route, &["a"]);
    let engine = engine(&settings, &scripts);
    scripts.set("a", silent_but(Point::Route, || Ok(Returned::Answer(deny().into()))));
    assert_eq!(engine.reload(&settings).unwrap(), 2);
    assert_eq!(engine.reload(&settings).unwrap(), 3);
    assert_eq!(engine.roll_back().unwrap(), 1);
    assert_eq!(routed(&engine).await, Ok(Passage::default()));
}

#[tokio::test]
async fn generations_that_are_still_in_use_are_capped() {
    let scripts = Scripts::default();
    scripts.set("a", |_, _| continues());
    let mut settings = chain(Point::Route, &["a"]);
    settings.policy.generations = 3;
    let engine = engine(&settings, &scripts);
    let mut held = vec![engine.judge()];
    let error = loop {
        match engine.reload(&settings) {
            Ok(_) => held.push(engine.judge()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReloadError::TooManyAlive(3)), "{error}");
    assert_eq!(held.len(), 3);
    held.clear();
    engine.reload(&settings).unwrap();
}

#[tokio::test]
async fn state_outlives_generations() {
    let scripts = Scripts::default();
    let count = |event: &Event, context: &CallContext| {
        if event.point() == Point::Route {
            context.services.kv_incr("n", 1, None).unwrap();
        }
        continues()
    };
    scripts.set("a", count);
    let settings = chain(Point::Route, &["a"]);
    let engine = engine(&settings, &scripts);
    routed(&engine).await.unwrap();
    scripts.set("a", count);
    engine.reload(&settings).unwrap();
    routed(&engine).await.unwrap();
    let services = Arc::clone(&engine.current().instances["a"].facilities);
    assert_eq!(services.kv_get("n"), Ok(Some(Value::Int(2))));
}

#[tokio::test]
async fn an_instance_that_does_not_start_refuses_its_generation() {
    let scripts = Scripts::default();
    scripts.set("a", |event, _| match event {
        Event::Start => Err(HookFault::Failed("no database".into())),
        _ => continues(),
    });
    let settings = chain(Point::Route, &["a"]);
    let started = Engine::start_with(&settings, Box::new(scripts), WallClock::Real, false);
    let Err(error) = started else { panic!("started") };
    assert_eq!(error.to_string(), "hook.a: on_start: no database");
}

#[tokio::test]
async fn only_the_running_generation_ticks() {
    let scripts = Scripts::default();
    let (old, new) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let ticking = |ticks: &Arc<AtomicUsize>| {
        let ticks = Arc::clone(ticks);
        move |event: &Event, _: &CallContext| {
            ticks.fetch_add(usize::from(event.point() == Point::Tick), SeqCst);
            continues()
        }
    };
    scripts.set("a", ticking(&old));
    let mut settings = chain(Point::Route, &["a"]);
    settings.policies.hooks.get_mut("a").unwrap().tick = Some(Duration::from_millis(1));
    let engine = engine(&settings, &scripts);
    while old.load(SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    scripts.set("a", ticking(&new));
    engine.reload(&settings).unwrap();
    while new.load(SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    let seen = old.load(SeqCst);
    let ticks = new.load(SeqCst);
    while new.load(SeqCst) < ticks + 5 {
        tokio::task::yield_now().await;
    }
    assert!(old.load(SeqCst) <= seen + 1, "one may have been on its way");
}

#[tokio::test]
async fn timers_go_off_once() {
    struct Timed(Arc<AtomicBool>);
    impl Hook for Timed {
        fn points(&self) -> PointSet {
            PointSet::of(&[Point::Start])
        }
        fn call(&self, _: &Event, context: &CallContext) -> Result<Returned, HookFault> {
            context.services.timer(Duration::from_millis(1), 7).unwrap();
            continues()
        }
        fn on_timer(&self, tag: u64, _: &CallContext) -> Result<(), HookFault> {
            assert!(tag == 7 && !self.0.swap(true, SeqCst));
            Ok(())
        }
    }
    struct One(Arc<AtomicBool>);
    impl Loader for One {
        fn load(&self, _: &HookSettings, _: &Settings) -> Result<Code, String> {
            let fired = Arc::clone(&self.0);
            let make = Box::new(move |_: &Arc<_>| Ok(Arc::new(Timed(fired)) as Arc<dyn Hook>));
            Ok(Code { files: Vec::new(), native: true, make })
        }
    }
    let fired = Arc::new(AtomicBool::new(false));
    let mut settings = Settings::default();
    settings.policies.hooks.insert("a".into(), hook("a"));
    let loader = Box::new(One(Arc::clone(&fired)));
    let _engine = Engine::start_with(&settings, loader, WallClock::Real, false).unwrap();
    while !fired.load(SeqCst) {
        tokio::task::yield_now().await;
    }
}
