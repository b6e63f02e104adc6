//! Wild descriptors, and plugins that break the rules.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{CallFault, Instance, Library, Mismatch, Returned};
use crate::{
    CONTINUE, Capabilities, Error, Host, NoConfig, Plugin, Point, PointSet,
    abi::{self, LAYOUT, types as raw},
    host::{Event, Services},
    testkit::{self, TestHost},
};

struct Quiet;

impl Plugin for Quiet {
    type Config = NoConfig;
    const POINTS: PointSet = PointSet::of(&[Point::Route, Point::Connect]);
    const NEEDS: Capabilities = Capabilities::TIMER;

    fn new(NoConfig {}: NoConfig, _: Host) -> Result<Self, Error> {
        Ok(Self)
    }
}

fn descriptor() -> raw::Descriptor {
    abi::descriptor::<Quiet>(abi::About { name: "quiet", version: "1", unwinds: true })
}

fn loaded(change: impl FnOnce(&mut raw::Descriptor)) -> Result<Library, Mismatch> {
    let mut descriptor = descriptor();
    change(&mut descriptor);
    // SAFETY: it is never freed, and is one of this crate but for the change under test.
    unsafe { Library::loaded(Box::leak(Box::new(descriptor)), Capabilities::TIMER) }
}

#[test]
fn a_descriptor_of_another_build_is_refused_with_both_sides_named() {
    let refused = |change: &dyn Fn(&mut raw::Descriptor)| loaded(change).unwrap_err().to_string();
    assert!(loaded(|_| ()).is_ok());
    assert_eq!(
        refused(&|d| (d.major, d.minor) = (2, 7)),
        "built for ABI 2.7, this gateway speaks 1.0"
    );
    assert_eq!(refused(&|d| d.minor = 1), "built for ABI 1.1, this gateway speaks 1.0");
    assert_eq!(
        refused(&|d| d.layout = 0xabc),
        format!(
            "built for ABI 1.0 with layout 0000000000000abc, this gateway's layout is \
             {LAYOUT:016x}: one of the two was built from a changed conexus-plugin-api"
        )
    );
    assert!(refused(&|d| d.panic = raw::PANIC_ABORT).contains("panic = \"abort\""));
    assert_eq!(
        refused(&|d| d.capabilities = 0b1011),
        "it needs defer, 0x8 (unknown here); this gateway offers timer"
    );
    assert_eq!(
        refused(&|d| d.points = 1 << 30),
        "it implements points that this gateway does not know (bits 0x40000000)"
    );
}

#[test]
fn garbage_with_the_right_symbol_is_refused_before_it_is_believed() {
    let refused = |change: &dyn Fn(&mut raw::Descriptor)| loaded(change).unwrap_err();
    assert_eq!(refused(&|d| d.magic = [0xff; 8]), Mismatch::Magic([0xff; 8]));
    let expected = size_of::<raw::Descriptor>();
    for found in [0, 8, expected - 1, expected + 8, usize::MAX] {
        assert_eq!(refused(&|d| d.size = found), Mismatch::Size { found, expected });
    }
    let nowhere = raw::Slice { data: ptr::dangling(), len: usize::MAX };
    assert_eq!(refused(&|d| d.name = nowhere), Mismatch::Text("name"));
    assert_eq!(refused(&|d| d.version = raw::Slice::NONE), Mismatch::Text("version"));
    let latin = raw::Slice::of(b"\xe4");
    assert_eq!(refused(&|d| d.rustc = latin), Mismatch::Text("compiler's version"));
    assert_eq!(refused(&|d| d.call = None), Mismatch::Function("call"));
    // Less memory than a descriptor takes: nothing behind the magic is read.
    let short: &'static [u64; 1] = &[0x1234_5678];
    // SAFETY: 8 bytes are there, and they are not the magic.
    let refused = unsafe { Library::loaded(short.as_ptr().cast(), Capabilities::ALL) };
    assert!(matches!(refused, Err(Mismatch::Magic(_))));
    for nowhere in [ptr::null(), ptr::without_provenance(1)] {
        // SAFETY: null and misaligned.
        let refused = unsafe { Library::loaded(nowhere, Capabilities::ALL) };
        assert!(matches!(refused, Err(Mismatch::Pointer(_))));
    }
}

/// An instance whose `call` is this.
fn instance(call: raw::OnEvent) -> (Instance, Arc<dyn Services>) {
    let host: Arc<dyn Services> = Arc::new(TestHost::new());
    let library = loaded(|descriptor| descriptor.call = Some(call)).unwrap();
    (library.instantiate("{}", Arc::clone(&host)).unwrap(), host)
}

fn ask(call: raw::OnEvent) -> Result<Returned, CallFault> {
    let (instance, host) = instance(call);
    let (alice, bob) = (testkit::agent("a").build(), testkit::agent("b").build());
    let event = Event::Route(Arc::new(testkit::route(&alice, &bob).into()));
    instance.call(&event, &host)
}

fn bad(why: &str) -> Result<Returned, CallFault> {
    Err(CallFault::BadReturn(why.into()))
}

#[test]
fn a_status_that_means_nothing_is_a_bad_return() {
    unsafe extern "C" fn call(_: raw::Instance, _: *const raw::Call) -> i32 {
        -77
    }
    assert_eq!(ask(call), bad("it returned status -77"));
}

#[test]
fn a_failure_without_a_word_is_still_a_failure() {
    unsafe extern "C" fn call(_: raw::Instance, _: *const raw::Call) -> i32 {
        raw::FAILED
    }
    assert_eq!(ask(call), Err(CallFault::Failed("it does not say why".into())));
}

/// Answers with these, one call for each, and returns that it is done.
fn answering<const N: usize>(call: *const raw::Call, answers: [raw::List<raw::Verdict>; N]) -> i32 {
    for answer in answers {
        // SAFETY: the call is valid, and invalid lists are the point.
        unsafe { ((*(*call).table).answer)((*call).context, answer) };
    }
    raw::DONE
}

const fn plain(kind: u32) -> raw::Verdict {
    raw::Verdict { kind, code: 0, text: raw::Slice::NONE, nanos: 0, set: ptr::null() }
}

macro_rules! answers {
    ($($name:ident: [$($answer:expr),+] = $why:literal;)+) => {
        #[test]
        fn a_bad_answer_is_a_bad_return_that_says_what_is_bad() {
            $(
                unsafe extern "C" fn $name(_: raw::Instance, call: *const raw::Call) -> i32 {
                    answering(call, [$($answer),+])
                }
                assert_eq!(ask($name), bad($why), stringify!($name));
            )+
        }
    };
}

answers! {
    null: [raw::List { data: ptr::null(), len: 1 }] = "the list of verdicts is not valid";
    misaligned: [raw::List { data: ptr::without_provenance(1), len: 1 }]
        = "the list of verdicts is not valid";
    endless: [raw::List { data: ptr::dangling(), len: usize::MAX }]
        = "the list of verdicts is not valid";
    many: [raw::List { data: ptr::dangling(), len: raw::MAX_ITEMS + 1 }]
        = "the list of verdicts is not valid";
    unknown: [raw::List::of(&[plain(99)])] = "there is no verdict of kind 99";
    zero: [raw::List::of(&[plain(0)])] = "there is no verdict of kind 0";
    code: [raw::List::of(&[raw::Verdict { code: 9, ..plain(raw::VERDICT_DENY) }])]
        = "there is no denial of code 9";
    no_reason: [raw::List::of(&[plain(raw::VERDICT_DENY)])]
        = "the reason of a denial is no text";
    no_target: [raw::List::of(&[plain(raw::VERDICT_REDIRECT)])]
        = "the target of a redirect is no text";
    latin: [raw::List::of(&[raw::Verdict {
        text: raw::Slice::of(b"\xe4"), ..plain(raw::VERDICT_COPY)
    }])] = "the target of a copy is no text";
    wild: [raw::List::of(&[raw::Verdict {
        text: raw::Slice { data: ptr::dangling(), len: raw::MAX_BYTES + 1 },
        ..plain(raw::VERDICT_COPY)
    }])] = "the target of a copy is no text";
    no_set: [raw::List::of(&[plain(raw::VERDICT_SET)])] = "a set points to nothing";
    twice: [raw::List::of(&[plain(raw::VERDICT_ALLOW)]), raw::List::of(&[])]
        = "it answered twice";
}

#[test]
fn host_functions_refuse_what_is_not_valid_and_do_no_harm() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn take(_: *mut std::ffi::c_void, _: *const raw::Value) {
        REFUSED.store(usize::MAX / 2, Ordering::Relaxed);
    }

    unsafe extern "C" fn call(_: raw::Instance, call: *const raw::Call) -> i32 {
        let key = raw::Slice::of(b"key");
        let wild = [
            raw::Slice::NONE,
            raw::Slice { data: ptr::dangling(), len: usize::MAX },
            raw::Slice { data: ptr::dangling(), len: isize::MAX as usize + 1 },
            raw::Slice::of(b"\xff\xfe"),
        ];
        let bad_value = raw::Value { kind: 77, int: 0, bytes: key };
        let none = ptr::null_mut();
        // SAFETY: the call is valid; all else is refused before it is used.
        unsafe {
            let (table, context) = (&*(*call).table, (*call).context);
            let mut codes = Vec::new();
            for slice in wild {
                codes.extend([
                    (table.log)(context, 2, slice),
                    (table.kv_get)(context, slice, take, none),
                    (table.kv_set)(context, slice, &raw const bad_value, 0),
                    (table.kv_delete)(context, slice),
                    (table.kv_incr)(context, slice, 1, raw::NO_TIME, ptr::null_mut()),
                    (table.rate_limit)(context, slice, 1, 1),
                    (table.connection_get)(context, slice, take, none),
                    (table.send)(context, key, slice, key, take, none),
                    (table.disconnect)(context, key, slice),
                    (table.metric)(context, slice, 1),
                    (table.agent_find)((*call).agent, raw::LIST_LABELS, slice, ptr::null_mut()),
                ]);
            }
            codes.extend([
                (table.log)(context, 9, key),
                (table.kv_set)(context, key, ptr::null(), 0),
                (table.kv_set)(context, key, ptr::without_provenance(3), 0),
                (table.kv_set)(context, key, &raw const bad_value, 0),
                (table.kv_incr)(context, key, 1, raw::NO_TIME, ptr::null_mut()),
                (table.kv_incr)(context, key, 1, raw::NO_TIME, ptr::without_provenance_mut(1)),
                (table.agents)(context, ptr::null(), take_agent, none),
                (table.event_text)(context, raw::EVENT_ID, ptr::null_mut()),
                (table.agent_text)(ptr::null(), raw::AGENT_DID, ptr::null_mut()),
                (table.kv_delete)(ptr::null(), key),
                (table.answer)(ptr::null(), raw::List::of(&[])),
            ]);
            (table.release)(ptr::null());
            // The call's own context is not counted: giving it back changes nothing.
            (table.release)(context);
            (table.agent_release)(ptr::null());
            let mut slice = key;
            let absent = [
                (table.event_text)(context, 9999, &raw mut slice),
                (table.event_text)(context, raw::EVENT_CREDENTIALS, &raw mut slice),
                (table.agent_text)((*call).agent, 9999, &raw mut slice),
                (table.event_find)(context, raw::LIST_HEADERS, key, &raw mut slice),
            ];
            assert_eq!(absent, [raw::ABSENT; 4]);
            let refused = codes.iter().filter(|code| **code == raw::INVALID).count();
            REFUSED.fetch_add(refused, Ordering::Relaxed);
            assert_eq!(refused, codes.len());
        }
        raw::DONE
    }

    unsafe extern "C" fn take_agent(_: *mut std::ffi::c_void, _: *const raw::Agent) {}

    assert_eq!(ask(call), Ok(Returned::Answer(CONTINUE)));
    assert_eq!(REFUSED.load(Ordering::Relaxed), 4 * 11 + 11);
}

#[test]
fn what_belongs_to_a_call_is_refused_outside_of_one() {
    unsafe extern "C" fn call(_: raw::Instance, call: *const raw::Call) -> i32 {
        // SAFETY: the call is valid, and the context is given back.
        unsafe {
            let table = &*(*call).table;
            let own = (table.retain)((*call).context);
            let mut slice = raw::Slice::NONE;
            assert_eq!((table.answer)(own, raw::List::of(&[])), raw::REFUSED);
            assert_eq!((table.fail)(own, raw::Slice::of(b"x")), raw::REFUSED);
            assert_eq!((table.event_text)(own, raw::EVENT_ID, &raw mut slice), raw::ABSENT);
            assert_eq!((table.kv_delete)(own, raw::Slice::of(b"k")), raw::ABSENT);
            (table.release)(own);
        }
        raw::DONE
    }
    assert_eq!(ask(call), Ok(Returned::Answer(CONTINUE)));
}

#[test]
fn a_plugin_gets_only_the_capabilities_that_it_declares() {
    use std::sync::Mutex;

    static WHY: Mutex<String> = Mutex::new(String::new());

    unsafe extern "C" fn take(_: *mut std::ffi::c_void, value: *const raw::Value) {
        // SAFETY: the gateway gives a valid value.
        let value = unsafe { crate::abi::value::read(value) };
        *WHY.lock().unwrap() = value.unwrap().as_text().unwrap().into();
    }

    unsafe extern "C" fn call(_: raw::Instance, call: *const raw::Call) -> i32 {
        let mut token = 0;
        // SAFETY: the call is valid.
        unsafe {
            let table = &*(*call).table;
            (table.defer)((*call).context, &raw mut token, take, ptr::null_mut())
        }
    }
    assert_eq!(ask(call), bad(&format!("it returned status {}", raw::REFUSED)));
    assert_eq!(*WHY.lock().unwrap(), "the plugin does not declare that it needs to defer");
}

#[test]
fn a_gateway_that_panics_does_not_unwind_into_the_plugin() {
    struct Broken(TestHost);

    macro_rules! broken {
        ($($name:ident($($Arg:ty),*) -> $Result:ty;)+) => {
            #[allow(clippy::unimplemented, reason = "that is the point")]
            impl Services for Broken {
                fn log(&self, level: crate::Level, text: &str) {
                    self.0.log(level, text);
                }
                $( fn $name(&self, $(_: $Arg),*) -> $Result { unimplemented!() } )+
            }
        };
    }
    use crate::{Agent, AgentFilter, Answer, Refused, StateError, Value};
    use std::time::Duration;
    broken! {
        now_ms() -> i64;
        generation() -> u64;
        kv_get(&str) -> Result<Option<Value>, StateError>;
        kv_set(&str, Value, Option<Duration>) -> Result<(), StateError>;
        kv_delete(&str) -> Result<bool, StateError>;
        kv_incr(&str, i64, Option<Duration>) -> Result<i64, StateError>;
        kv_cas(&str, Option<&Value>, Value, Option<Duration>) -> Result<bool, StateError>;
        kv_expire(&str, Option<Duration>) -> Result<bool, StateError>;
        rate_limit(&str, u32, Duration) -> Result<bool, StateError>;
        connection_get(&str) -> Result<Option<Value>, StateError>;
        connection_set(&str, Option<Value>) -> Result<(), StateError>;
        agent(&str) -> Result<Option<Arc<Agent>>, StateError>;
        agents(&AgentFilter) -> Result<Vec<Arc<Agent>>, StateError>;
        send(&str, &str, &str) -> Result<(), Refused>;
        disconnect(&str, &str) -> bool;
        metric(&str, i64) -> Result<(), StateError>;
        timer(Duration, u64) -> Result<(), Refused>;
        defer() -> Result<u64, Refused>;
        complete(u64, Result<Answer, String>) -> bool;
        secret_read() -> ();
    }

    unsafe extern "C" fn call(_: raw::Instance, call: *const raw::Call) -> i32 {
        // SAFETY: the call is valid.
        unsafe {
            let (table, context) = (&*(*call).table, (*call).context);
            assert_eq!((table.kv_delete)(context, raw::Slice::of(b"k")), raw::INTERNAL);
            assert_eq!((table.now_ms)(context), 0);
        }
        raw::DONE
    }

    let (instance, _) = instance(call);
    let broken: Arc<dyn Services> = Arc::new(Broken(TestHost::new()));
    let event = Event::Connect(Arc::new(testkit::connect().into()));
    assert_eq!(instance.call(&event, &broken), Ok(Returned::Answer(CONTINUE)));
}
