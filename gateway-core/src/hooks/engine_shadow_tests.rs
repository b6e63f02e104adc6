//! Hooks in shadow mode, modes that change at run time, and decisions that are worth seeing.

use super::*;
use crate::hooks::BreakerState;

/// One hook of a chain: its name, its mode, what it says.
type Said = (&'static str, Mode, fn() -> Result<Returned, HookFault>);

fn answer(verdict: Verdict) -> Result<Returned, HookFault> {
    Ok(Returned::Answer(verdict.into()))
}

fn denies() -> Result<Returned, HookFault> {
    Ok(Returned::Answer(deny().into()))
}

fn denies_otherwise() -> Result<Returned, HookFault> {
    answer(Verdict::Deny { code: DenyCode::RateLimited, reason: "slow down".into() })
}

fn allows() -> Result<Returned, HookFault> {
    answer(Verdict::Allow)
}

fn holds() -> Result<Returned, HookFault> {
    answer(Verdict::Hold(Duration::from_secs(1)))
}

fn holds_longer() -> Result<Returned, HookFault> {
    answer(Verdict::Hold(Duration::from_secs(2)))
}

fn fails() -> Result<Returned, HookFault> {
    Err(HookFault::Failed("broke".into()))
}

fn engine_of(hooks: &[Said]) -> Engine {
    let scripts = Scripts::default();
    for (name, _, says) in hooks {
        let says = *says;
        scripts.set(name, silent_but(Point::Route, says));
    }
    let names: Vec<_> = hooks.iter().map(|(name, ..)| *name).collect();
    let mut settings = chain(Point::Route, &names);
    let entries = settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap();
    for (entry, (_, mode, _)) in entries.iter_mut().zip(hooks) {
        entry.mode = *mode;
    }
    engine(&settings, &scripts)
}

fn mismatches(engine: &Engine) -> Vec<u64> {
    let status = engine.status();
    status.chains["on_route"].iter().map(|hook| hook.counts.mismatches).collect()
}

#[tokio::test]
async fn a_shadow_mismatches_where_obeying_it_would_have_led_to_another_ruling() {
    use Mode::{Enforce, Shadow};
    let table: &[(&[Said], &[u64])] = &[
        (&[("a", Shadow, continues)], &[0]),
        // To end a chain that has nothing more to say changes nothing.
        (&[("a", Shadow, allows)], &[0]),
        (&[("a", Shadow, denies)], &[1]),
        (&[("a", Shadow, denies), ("b", Enforce, denies)], &[0, 0]),
        (&[("a", Shadow, denies_otherwise), ("b", Enforce, denies)], &[1, 0]),
        (&[("a", Shadow, allows), ("b", Enforce, denies)], &[1, 0]),
        // A later verdict replaces an earlier one.
        (&[("a", Shadow, holds), ("b", Enforce, holds_longer)], &[0, 0]),
        (&[("a", Enforce, holds_longer), ("b", Shadow, holds)], &[0, 1]),
        (&[("a", Enforce, holds), ("b", Shadow, holds)], &[0, 0]),
        // Each by itself: the other shadow stays without effect.
        (&[("a", Shadow, denies), ("b", Shadow, holds)], &[1, 1]),
        // It was never asked.
        (&[("a", Enforce, denies), ("b", Shadow, holds)], &[0, 0]),
        // A failure is no verdict.
        (&[("a", Shadow, fails)], &[0]),
        (&[("a", Shadow, holds), ("b", Enforce, fails)], &[0, 0]),
        (&[("a", Shadow, allows), ("b", Enforce, fails)], &[1, 0]),
    ];
    for (index, (hooks, expected)) in table.iter().enumerate() {
        let engine = engine_of(hooks);
        let _ = routed(&engine).await;
        assert_eq!(mismatches(&engine), *expected, "case {index}");
        let (recent, _) = engine.recent(1, |_| true);
        let marked: Vec<_> = recent.iter().flat_map(|one| &one.steps).collect();
        let marked: u64 = marked.iter().map(|step| u64::from(step.mismatch)).sum();
        assert_eq!(marked, expected.iter().sum::<u64>(), "case {index}");
    }
}

#[tokio::test]
async fn a_shadow_that_is_not_waited_for_is_compared_with_what_was_decided_before_it() {
    let scripts = Scripts::default();
    scripts.set("a", silent_but(Point::Route, denies));
    let mut settings = chain(Point::Route, &["a"]);
    settings.policies.hooks.get_mut("a").unwrap().blocking = true;
    let only = &mut settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap()[0];
    (only.mode, only.budget) = (Mode::Shadow, Some(Duration::from_secs(60)));
    let engine = engine(&settings, &scripts);
    assert_eq!(routed(&engine).await, Ok(Passage::default()));
    while mismatches(&engine) == [0] {
        tokio::task::yield_now().await;
    }
    let (recent, _) = engine.recent(9, |_| true);
    assert_eq!(recent[0].ruling, "shadow");
    assert!(recent[0].steps[0].mismatch);
}

#[tokio::test]
async fn what_is_worth_seeing_is_kept_and_the_rest_is_not() {
    use Mode::{Enforce, Shadow};
    let engine = engine_of(&[("a", Enforce, continues), ("b", Shadow, continues)]);
    let _ = routed(&engine).await;
    let engine_allowing = engine_of(&[("a", Enforce, allows)]);
    let _ = routed(&engine_allowing).await;
    assert!(engine.recent(9, |_| true).0.is_empty());
    assert!(engine_allowing.recent(9, |_| true).0.is_empty());

    let engine =
        engine_of(&[("a", Enforce, continues), ("b", Shadow, holds), ("c", Enforce, denies)]);
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    engine.on_decision(Box::new(move |_| {
        count.fetch_add(1, SeqCst);
    }));
    let _ = routed(&engine).await;
    let (recent, skipped) = engine.recent(9, |_| true);
    assert_eq!((recent.len(), skipped, told.load(SeqCst)), (1, 0, 1));
    let decision = &recent[0];
    assert_eq!((decision.point, decision.generation), ("on_route", 1));
    assert_eq!(decision.agent.as_deref(), Some("did:key:zA"));
    assert_eq!(decision.kind.as_deref(), Some("OFFER"));
    assert!(decision.ruling.starts_with("deny denied"), "{}", decision.ruling);
    let steps: Vec<_> =
        decision.steps.iter().map(|step| (&*step.hook, step.mode, &*step.said)).collect();
    assert_eq!(steps[..2], [("a", Enforce, "continue"), ("b", Shadow, "hold(1s)")]);
    assert!(steps[2].2.starts_with("deny(denied)"), "{steps:?}");

    let engine = engine_of(&[("a", Enforce, fails)]);
    let _ = routed(&engine).await;
    let (recent, _) = engine.recent(9, |_| true);
    assert!(recent[0].steps[0].said.starts_with("error: "), "{recent:?}");
}

#[tokio::test]
async fn a_mode_changes_by_a_generation_of_the_same_instances() {
    let engine = engine_of(&[("a", Mode::Enforce, denies), ("b", Mode::Off, holds)]);
    let (tell, told) = std::sync::mpsc::channel();
    engine.on_reload(move |event| tell.send(format!("{event:?}")).unwrap());
    assert!(routed(&engine).await.is_err());
    let before = Arc::clone(&engine.current().instances["a"]);
    assert_eq!(engine.set_mode("a", None, Mode::Shadow).unwrap(), 2);
    assert!(engine.current().has(&before));
    assert_eq!(routed(&engine).await, Ok(Passage::default()));
    // It is so already.
    assert_eq!(engine.set_mode("a", Some(Point::Route), Mode::Shadow).unwrap(), 2);
    assert_eq!(engine.set_mode("b", None, Mode::Enforce).unwrap(), 3);
    let passage = routed(&engine).await.unwrap();
    assert_eq!(passage.way, Way::Hold(Duration::from_secs(1)));
    assert_eq!(engine.set_mode("a", None, Mode::Off).unwrap(), 4);
    assert_eq!(engine.roll_back().unwrap(), 3);
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told, [2, 3, 4, 3].map(|number| format!("Generation({number})")));
    for (hook, point) in [("nobody", None), ("a", Some(Point::Register))] {
        let fault = engine.set_mode(hook, point, Mode::Off).unwrap_err();
        assert!(matches!(fault, ReloadError::NotChained(_)), "{fault}");
    }
}

/// Hook, mode, and the mode in the configuration where it differs.
fn modes(engine: &Engine) -> Vec<(String, Mode, Option<Mode>)> {
    let mut chains = engine.status().chains;
    let route = chains.remove("on_route").unwrap();
    route.into_iter().map(|hook| (hook.hook, hook.mode, hook.configured_mode)).collect()
}

#[tokio::test]
async fn a_hook_that_is_off_keeps_its_place_among_what_is_shown() {
    use Mode::{Enforce, Off, Shadow};
    let engine = engine_of(&[("a", Enforce, denies), ("b", Off, holds), ("c", Shadow, denies)]);
    let shown = |modes: [(Mode, Option<Mode>); 3]| -> Vec<_> {
        ["a", "b", "c"].into_iter().zip(modes).map(|(a, (b, c))| (a.to_owned(), b, c)).collect()
    };
    assert_eq!(modes(&engine), shown([(Enforce, None), (Off, None), (Shadow, None)]));
    assert!(routed(&engine).await.is_err());
    engine.set_mode("a", None, Off).unwrap();
    assert_eq!(modes(&engine), shown([(Off, Some(Enforce)), (Off, None), (Shadow, None)]));
    let hook = &engine.status().chains["on_route"][0];
    assert_eq!((hook.counts.calls, hook.breaker), (0, BreakerState::Closed));
    // What is shown is not asked.
    assert_eq!(routed(&engine).await, Ok(Passage::default()));
    engine.set_mode("c", None, Off).unwrap();
    assert!(!engine.asks(Point::Route));

    // A reload is what the configuration says; a rollback is what it said.
    let mut settings = engine.current().settings().clone();
    settings.policies.chains.get_mut(&Chain(Point::Route)).unwrap()[0].mode = Shadow;
    engine.reload(&settings).unwrap();
    assert_eq!(modes(&engine), shown([(Shadow, None), (Off, None), (Off, None)]));
    engine.roll_back().unwrap();
    assert_eq!(modes(&engine), shown([(Off, Some(Shadow)), (Off, None), (Off, None)]));
}
