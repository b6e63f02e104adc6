//! Panics in every callback: each is contained, told apart from a failure, and harms nothing else.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use conexus_plugin_api::{
    Answer, CONTINUE, Call, Capabilities, Error, Host, Level, Outcome, Plugin, Point, PointSet,
    Route,
    host::CallFault,
    testkit::{self, Kit, TestHost},
};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Panics {
    New,
    Route,
    WithString,
    WithNothing,
    WithBomb,
    InError,
    Start,
    Timer,
    Shutdown,
    Drop,
}

/// Panics when it is dropped.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            panic_any(Bomb(self.0 - 1));
        }
    }
}

/// Panics when it is described.
#[derive(Debug)]
struct BadError;

impl std::error::Error for BadError {}

impl std::fmt::Display for BadError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("in an error's text")
    }
}

impl Plugin for Panics {
    type Config = Self;
    const POINTS: PointSet = PointSet::of(&[Point::Route, Point::Start]);
    const NEEDS: Capabilities = Capabilities::TIMER;

    fn new(config: Self, host: Host) -> Result<Self, Error> {
        assert!(config != Self::New, "in new");
        host.timer(Duration::from_secs(1), 1)?;
        Ok(config)
    }

    fn on_route(&self, event: &Route<'_>, _: &Call<'_>) -> Outcome {
        match self {
            Self::Route => panic!("in on_route"),
            Self::WithString => panic!("of {}", event.kind()),
            Self::WithNothing => panic_any(7_u8),
            Self::WithBomb => panic_any(Bomb(1)),
            Self::InError => Err(BadError.into()),
            _ => Ok(CONTINUE),
        }
    }

    fn on_start(&self, _: &Call<'_>) -> Result<(), Error> {
        assert!(*self != Self::Start, "in on_start");
        Ok(())
    }

    fn on_timer(&self, _: u64, _: &Call<'_>) -> Result<(), Error> {
        assert!(*self != Self::Timer, "in on_timer");
        Ok(())
    }

    fn shutdown(&self) {
        assert!(*self != Self::Shutdown, "in shutdown");
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(!matches!(self, Self::Drop), "in drop");
    }
}

fn route(kit: &Kit<Panics>) -> Result<Answer, CallFault> {
    kit.route(testkit::route(&testkit::agent("a").build(), &testkit::agent("b").build()))
}

fn panicked<T>(what: &str) -> Result<T, CallFault> {
    Err(CallFault::Panicked(what.into()))
}

#[test]
fn a_panic_anywhere_is_contained_and_says_what_it_said() {
    let kit = |where_: &str| Kit::<Panics>::new(json!(where_));
    assert_eq!(kit("new").map(drop), panicked("in new"));
    assert_eq!(route(&kit("route").unwrap()), panicked("in on_route"));
    assert_eq!(route(&kit("with_string").unwrap()), panicked("of OFFER"));
    assert_eq!(route(&kit("with_nothing").unwrap()), panicked("a panic that says nothing"));
    assert_eq!(route(&kit("with_bomb").unwrap()), panicked("a panic that says nothing"));
    assert_eq!(route(&kit("in_error").unwrap()), panicked("in an error's text"));
    assert_eq!(kit("start").unwrap().start(), panicked("in on_start"));
    assert_eq!(kit("timer").unwrap().advance(Duration::from_secs(1)), panicked("in on_timer"));
    assert_eq!(kit("shutdown").unwrap().shutdown(), panicked("in shutdown"));
}

#[test]
fn a_drop_that_panics_is_logged() {
    let host = TestHost::new();
    drop(Kit::<Panics>::with_host(json!("drop"), host.clone()));
    assert_eq!(host.lines(), [(Level::Error, "while it was dropped: panicked: in drop".into())]);
}

#[test]
fn an_instance_that_panicked_goes_on() {
    let kit = Kit::<Panics>::new(json!("route")).unwrap();
    for _ in 0..3 {
        assert_eq!(route(&kit), panicked("in on_route"));
        assert_eq!(kit.start(), Ok(()));
    }
}

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Hands its host to a thread that outlives it.
struct Restless;

impl Plugin for Restless {
    type Config = ();
    const POINTS: PointSet = PointSet::EMPTY;

    fn new((): (), host: Host) -> Result<Self, Error> {
        std::thread::spawn(move || {
            while ALIVE.load(Ordering::Acquire) != 0 {
                std::thread::yield_now();
            }
            host.info("still here");
            ALIVE.store(1, Ordering::Release);
        });
        Ok(Self)
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        ALIVE.store(0, Ordering::Release);
    }
}

#[test]
fn a_host_outlives_its_instance() {
    ALIVE.store(2, Ordering::Release);
    let host = TestHost::new();
    let kit = Kit::<Restless>::with_host(json!(null), host.clone()).unwrap();
    drop(kit);
    while ALIVE.load(Ordering::Acquire) != 1 {
        std::thread::yield_now();
    }
    assert_eq!(host.lines(), [(Level::Info, "still here".into())]);
}

#[test]
fn what_a_plugin_kept_of_a_call_may_be_used_after_it() {
    struct Keeper(std::sync::Mutex<Option<Host>>);

    impl Plugin for Keeper {
        type Config = ();
        const POINTS: PointSet = PointSet::of(&[Point::Start, Point::Tick]);

        fn new((): (), _: Host) -> Result<Self, Error> {
            Ok(Self(None.into()))
        }

        fn on_start(&self, call: &Call<'_>) -> Result<(), Error> {
            *self.0.lock().unwrap() = Some(Host::clone(call));
            Ok(())
        }

        fn on_tick(&self, _: &Call<'_>) -> Result<(), Error> {
            let host = self.0.lock().unwrap().clone();
            host.ok_or("no host")?.info("kept");
            Ok(())
        }
    }

    let kit = Kit::<Keeper>::new(json!(null)).unwrap();
    kit.start().unwrap();
    kit.tick().unwrap();
    assert_eq!(kit.host().lines(), [(Level::Info, "kept".into())]);
    let _: Arc<_> = Arc::new(kit); // Instances are shared between threads.
}
