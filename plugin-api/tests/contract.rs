//! What a plugin sees and answers, through the whole ABI.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::Ipv6Addr, sync::Arc, time::Duration};

use conexus_plugin_api::{
    Agent, AgentFilter, AgentRef, AgentView, Answer, CONTINUE, Call, Capabilities, Connect,
    Delivered, DenyCode, Disconnect, Error, Expire, HookError, Host, Level, Metadata, NoConfig,
    Outcome, Plugin, Point, PointSet, Refused, Register, Registered, Replaced, Route, Set,
    StateError, Unregister, Value, Verdict, Watch, allow, copy, declare_plugin, deny, extend, hold,
    host::{CallFault, Connection, Event, Library, Returned, Services},
    redirect, set,
    testkit::{self, Kit, START_MS, TestHost},
};
use serde::Deserialize;
use serde_json::json;

/// Says what it sees, as the reason of a denial or as a line of the log.
struct Witness {
    host: Host,
}

fn describe(agent: AgentView<'_>) -> String {
    format!(
        "{} key {:02x} session {} from {} {} at {} named {:?} class {:?} can {:?} has {:?} is {:?}",
        agent.did(),
        agent.key()[0],
        agent.session(),
        agent.address(),
        agent.subprotocol(),
        agent.connected_at_ms(),
        agent.name(),
        agent.rate_class(),
        agent.capabilities().collect::<Vec<_>>(),
        agent.attributes().collect::<Vec<_>>(),
        agent.labels().collect::<Vec<_>>(),
    )
}

fn said(text: String) -> Outcome {
    Ok(deny(DenyCode::Denied, text))
}

impl Plugin for Witness {
    type Config = NoConfig;
    const POINTS: PointSet = PointSet::of(Point::ALL);

    fn new(NoConfig {}: NoConfig, host: Host) -> Result<Self, Error> {
        Ok(Self { host })
    }

    fn on_connect(&self, event: &Connect<'_>, _: &Call<'_>) -> Outcome {
        said(format!(
            "{} {} ?{} {:?} {:?} {:?}",
            event.address(),
            event.path(),
            event.query(),
            event.header("X-Token"),
            event.header("x-none"),
            event.headers().collect::<Vec<_>>(),
        ))
    }

    fn on_register(&self, event: &Register<'_>, _: &Call<'_>) -> Outcome {
        let (agent, credentials) = (describe(event.agent()), event.credentials());
        said(format!("{agent} | {credentials:?} {}", event.renewal()))
    }

    fn on_route(&self, event: &Route<'_>, _: &Call<'_>) -> Outcome {
        assert!(event.text().contains(event.payload()));
        said(format!(
            "{} -> {:?} {} {:02x} {} {} {} {:?}",
            event.from().did(),
            event.target().map(AgentView::did),
            event.to(),
            event.to_key()[0],
            event.id(),
            event.kind(),
            event.payload(),
            event.correlation_id(),
        ))
    }

    fn on_undeliverable(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        self.on_route(event, call)
    }

    fn on_watch(&self, event: &Watch<'_>, _: &Call<'_>) -> Outcome {
        let target = event.target().map(AgentView::did);
        said(format!("{} {} {target:?}", event.agent().did(), event.did()))
    }

    fn on_expire(&self, event: &Expire<'_>, _: &Call<'_>) -> Outcome {
        said(format!("{} {}", event.agent().did(), event.silent_ms()))
    }

    fn on_registered(&self, event: &Registered<'_>, call: &Call<'_>) -> Result<(), Error> {
        call.info(format!("registered {} {}", event.agent().did(), event.renewal()));
        Ok(())
    }

    fn on_replaced(&self, event: &Replaced<'_>, call: &Call<'_>) -> Result<(), Error> {
        call.info(format!("replaced {}", event.agent().did()));
        Ok(())
    }

    fn on_delivered(&self, event: &Delivered<'_>, call: &Call<'_>) -> Result<(), Error> {
        let (from, to) = (event.from().did(), event.to().did());
        call.info(format!("delivered {from} {to} {} {}", event.kind(), event.bytes()));
        Ok(())
    }

    fn on_disconnect(&self, event: &Disconnect<'_>, call: &Call<'_>) -> Result<(), Error> {
        let (reason, code) = (event.reason(), event.code());
        call.info(format!("disconnect {reason} {code:?} {}", event.lasted_ms()));
        Ok(())
    }

    fn on_unregister(&self, event: &Unregister<'_>, call: &Call<'_>) -> Result<(), Error> {
        call.info(format!("unregister {}", event.agent().did()));
        Ok(())
    }

    fn on_hook_error(&self, event: &HookError<'_>, call: &Call<'_>) -> Result<(), Error> {
        let (hook, point, kind) = (event.hook(), event.point(), event.kind());
        call.info(format!("{hook} {point} {kind} {} {:?}", event.message(), event.about()));
        Ok(())
    }

    fn on_start(&self, call: &Call<'_>) -> Result<(), Error> {
        call.debug("start");
        Ok(())
    }

    fn on_stop(&self, call: &Call<'_>) -> Result<(), Error> {
        call.warn("stop");
        Ok(())
    }

    fn on_reload(&self, call: &Call<'_>) -> Result<(), Error> {
        call.error("reload");
        Ok(())
    }

    fn on_tick(&self, call: &Call<'_>) -> Result<(), Error> {
        call.log(Level::Trace, "tick");
        Ok(())
    }

    fn shutdown(&self) {
        self.host.info("shutdown");
    }
}

declare_plugin!(Witness);

fn alice() -> Arc<Agent> {
    testkit::agent("did:key:zAlice")
        .name("Alice")
        .capability("chat")
        .capability("exec")
        .attribute("os", "linux")
        .label("tier", "gold")
        .label("team", "a")
        .rate_class("fast")
        .address(Ipv6Addr::LOCALHOST)
        .session(7)
        .build()
}

fn bob() -> Arc<Agent> {
    testkit::agent("did:key:zBob").build()
}

fn reason(answer: Result<Answer, CallFault>) -> String {
    match answer.unwrap().verdicts() {
        [Verdict::Deny { code: DenyCode::Denied, reason }] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_reach_the_plugin_with_all_their_fields() {
    let kit = Kit::<Witness>::new(json!({})).unwrap();
    let (alice, bob) = (alice(), bob());

    let connect = testkit::connect()
        .address([10, 0, 0, 7])
        .path("/other")
        .query("a=b")
        .header("X-Token", "sesame")
        .header("accept", "ä");
    assert_eq!(
        reason(kit.connect(connect)),
        r#"10.0.0.7:50000 /other ?a=b Some("sesame") None [("x-token", "sesame"), ("accept", "ä")]"#
    );

    let key = alice.key[0];
    assert_eq!(
        reason(kit.register(testkit::register(&alice).credentials("secret").renewal())),
        format!(
            "did:key:zAlice key {key:02x} session 7 from [::1]:50000 ioap.v1.1 at {START_MS} named \
             Some(\"Alice\") class Some(\"fast\") can [\"chat\", \"exec\"] has [(\"os\", \
             \"linux\")] is [(\"team\", \"a\"), (\"tier\", \"gold\")] | Some(\"secret\") true"
        )
    );
    assert!(
        reason(kit.register(testkit::register(&bob)))
            .ends_with("named None class None can [] has [] is [] | None false")
    );

    let route = testkit::route(&alice, &bob).kind("ANSWER").id("i").correlation_id("c");
    let route = route.payload(json!({ "sdp": "v=0" }));
    let key = bob.key[0];
    let seen = |target: &str| {
        format!(
            r#"did:key:zAlice -> {target} did:key:zBob {key:02x} i ANSWER {{"sdp":"v=0"}} Some("c")"#
        )
    };
    assert_eq!(reason(kit.route(route.clone())), seen(r#"Some("did:key:zBob")"#));
    assert_eq!(reason(kit.undeliverable(route.absent())), seen("None"));

    let watch = testkit::watch(&alice, "did:key:zBob");
    assert_eq!(reason(kit.watch(watch)), "did:key:zAlice did:key:zBob None");
    let expire = testkit::expire(&alice, Duration::from_millis(1500));
    assert_eq!(reason(kit.expire(expire)), "did:key:zAlice 1500");

    kit.registered(testkit::registered(&alice)).unwrap();
    kit.replaced(testkit::replaced(&alice)).unwrap();
    kit.delivered(testkit::delivered(&alice, &bob, "OFFER", 12)).unwrap();
    kit.disconnect(testkit::disconnect(&alice, "closed")).unwrap();
    kit.unregister(testkit::unregister(&alice)).unwrap();
    kit.hook_error(testkit::hook_error("h", Point::Route, "panic", "oh")).unwrap();
    kit.start().unwrap();
    kit.stop().unwrap();
    kit.reload().unwrap();
    kit.tick().unwrap();
    let host = kit.host().clone();
    kit.shutdown().unwrap();
    let lines = host.lines();
    let lines: Vec<_> = lines.iter().map(|(level, line)| (*level, line.as_str())).collect();
    assert_eq!(
        lines,
        [
            (Level::Info, "registered did:key:zAlice false"),
            (Level::Info, "replaced did:key:zAlice"),
            (Level::Info, "delivered did:key:zAlice did:key:zBob OFFER 12"),
            (Level::Info, "disconnect closed Some(1000) 1000"),
            (Level::Info, "unregister did:key:zAlice"),
            (Level::Info, "h on_route panic oh None"),
            (Level::Debug, "start"),
            (Level::Warn, "stop"),
            (Level::Error, "reload"),
            (Level::Trace, "tick"),
            (Level::Info, "shutdown"),
        ]
    );
}

#[test]
fn looking_at_a_header_or_a_credential_is_noted() {
    let kit = Kit::<Witness>::new(json!({})).unwrap();
    kit.route(testkit::route(&alice(), &bob())).unwrap();
    assert!(!kit.host().secrets_were_read());
    kit.register(testkit::register(&bob())).unwrap();
    assert!(kit.host().secrets_were_read(), "also when there is none");
    let kit = Kit::<Witness>::new(json!({})).unwrap();
    kit.connect(testkit::connect()).unwrap();
    assert!(kit.host().secrets_were_read());
}

/// Answers with what its configuration says.
struct Parrot(Answer);

impl Plugin for Parrot {
    type Config = Answer;
    const POINTS: PointSet = PointSet::of(&[Point::Register, Point::Route, Point::Expire]);

    fn new(answer: Answer, _: Host) -> Result<Self, Error> {
        Ok(Self(answer))
    }

    fn on_register(&self, _: &Register<'_>, _: &Call<'_>) -> Outcome {
        Ok(self.0.clone())
    }

    fn on_route(&self, _: &Route<'_>, _: &Call<'_>) -> Outcome {
        Ok(self.0.clone())
    }
}

#[test]
fn answers_cross_unchanged() {
    let metadata = Metadata {
        name: Some("Shown".into()),
        capabilities: vec!["a".into(), String::new()],
        attributes: [("x".into(), "y".into())].into(),
    };
    let bare = Set::default().metadata(Metadata::default());
    let registering = [
        CONTINUE,
        allow(),
        deny(DenyCode::NotRelayed, ""),
        extend(Duration::from_nanos(1)),
        set().into(),
        set().label("a", "b").label("c", "").rate_class("").metadata(metadata).into(),
        extend(Duration::from_secs(9)).and(set().label("n", "1")).and(bare).and(allow()),
    ];
    for answer in registering {
        let kit = Kit::<Parrot>::new(serde_json::to_value(&answer).unwrap()).unwrap();
        assert_eq!(kit.register(testkit::register(&bob())), Ok(answer));
    }
    let routing = [
        redirect("did:key:zC"),
        hold(Duration::from_secs(5)),
        copy("a").and(copy("b")).and(redirect("c")).and(Verdict::Hold(Duration::ZERO)),
    ];
    for answer in routing {
        let kit = Kit::<Parrot>::new(serde_json::to_value(&answer).unwrap()).unwrap();
        assert_eq!(kit.route(testkit::route(&alice(), &bob())), Ok(answer));
    }
}

/// Asks for all that may be a cluster's, in on_route.
struct Sharer;

impl Plugin for Sharer {
    type Config = NoConfig;
    const POINTS: PointSet = PointSet::of(&[Point::Route]);

    fn new(NoConfig {}: NoConfig, _: Host) -> Result<Self, Error> {
        Ok(Self)
    }

    fn on_route(&self, _: &Route<'_>, call: &Call<'_>) -> Outcome {
        let second = Duration::from_secs(1);
        let errors = [
            call.kv_get("k").map(drop),
            call.kv_set("k", 1, None),
            call.kv_delete("k").map(drop),
            call.kv_incr("k", 1, None).map(drop),
            call.kv_cas("k", None, 1, None).map(drop),
            call.kv_expire("k", None).map(drop),
            call.rate_limit("k", 1, second).map(drop),
            call.agent("did:key:zBob").map(drop),
            call.agents(&AgentFilter::default()).map(drop),
        ];
        assert!(errors.iter().all(|error| *error == Err(StateError::Unavailable)), "{errors:?}");
        call.agents(&AgentFilter::default())?;
        Ok(CONTINUE)
    }
}

#[test]
fn a_cluster_that_is_away_is_an_error_and_nothing_that_is_absent() {
    let host = TestHost::new();
    host.add_agent(&bob());
    host.set_away(true);
    let kit = Kit::<Sharer>::with_host(json!({}), host).unwrap();
    let fault = kit.route(testkit::route(&alice(), &bob()));
    assert_eq!(fault, Err(CallFault::Failed("the shared state cannot be reached".into())));
}

#[test]
fn the_kit_refuses_what_a_gateway_would() {
    let kit = |answer: Answer| Kit::<Parrot>::new(serde_json::to_value(answer).unwrap()).unwrap();
    let fault = kit(redirect("x")).register(testkit::register(&bob()));
    assert_eq!(fault, Err(CallFault::BadReturn("redirect means nothing at on_register".into())));
    let copies: Answer = (0..9).map(|_| Verdict::Copy("x".into())).collect::<Vec<_>>().into();
    let fault = kit(copies).route(testkit::route(&alice(), &bob()));
    assert_eq!(fault, Err(CallFault::BadReturn("9 copies are more than 8".into())));
    let fault = kit(CONTINUE).connect(testkit::connect());
    let missing = "on_connect is not in the plugin's POINTS";
    assert_eq!(fault, Err(CallFault::BadReturn(missing.into())));
    // A point whose method is not written says `continue`.
    assert_eq!(kit(allow()).expire(testkit::expire(&bob(), Duration::ZERO)), Ok(CONTINUE));
}

/// Does with the host what tests ask it to, in on_register.
struct Asker {
    host: Host,
    kept: std::sync::Mutex<Vec<AgentRef>>,
}

impl Plugin for Asker {
    type Config = NoConfig;
    const POINTS: PointSet = PointSet::of(&[Point::Register, Point::Route]);
    const NEEDS: Capabilities = Capabilities::TIMER.with(Capabilities::DEFER);

    fn new(NoConfig {}: NoConfig, host: Host) -> Result<Self, Error> {
        Ok(Self { host, kept: std::sync::Mutex::default() })
    }

    fn on_register(&self, event: &Register<'_>, call: &Call<'_>) -> Outcome {
        assert_eq!((call.now_ms(), call.generation()), (START_MS, 3));
        let minute = Some(Duration::from_secs(60));

        assert_eq!(call.kv_get("k"), Ok(None));
        call.kv_set("k", "text", minute)?;
        assert_eq!(self.host.kv_get("k"), Ok(Some(Value::Text("text".into()))));
        assert_eq!(call.kv_cas("k", None, 1, None), Ok(false));
        assert_eq!(call.kv_cas("k", Some(&"text".into()), vec![1, 2], None), Ok(true));
        assert_eq!(call.kv_get("k"), Ok(Some(Value::Bytes([1, 2][..].into()))));
        assert_eq!(call.kv_expire("k", minute), Ok(true));
        assert_eq!(call.kv_expire("none", minute), Ok(false));
        assert_eq!(call.kv_incr("k", 1, None), Err(StateError::NotANumber));
        assert_eq!(call.kv_delete("k"), Ok(true));
        assert_eq!(call.kv_delete("k"), Ok(false));
        assert_eq!(call.kv_incr("n", 5, minute), Ok(5));
        assert_eq!(call.kv_incr("n", -7, minute), Ok(-2));
        assert_eq!(call.kv_incr("n", i64::MIN, minute), Err(StateError::Overflow));
        call.kv_set_json("j", &json!({ "a": [1, null] }), None)?;
        assert_eq!(call.kv_get_json("j")?, Some(json!({ "a": [1, null] })));
        assert!(call.kv_get_json::<Vec<u8>>("j").is_err());

        let second = Duration::from_secs(1);
        let twice: Vec<_> = (0..3).map(|_| call.rate_limit("r", 2, second)).collect();
        assert_eq!(twice, [Ok(true), Ok(true), Ok(false)]);
        assert_eq!(call.rate_limit("r", 0, second), Err(StateError::BadRate));

        assert_eq!(call.connection_get("c"), Ok(None));
        call.connection_set("c", 4)?;
        assert_eq!(call.connection_get("c"), Ok(Some(Value::Int(4))));
        call.connection_remove("c")?;
        assert_eq!(call.connection_get("c"), Ok(None));
        call.connection_set("c", 5)?;

        let found = self.host.agent("did:key:zBob")?.ok_or("no Bob")?;
        assert!(found.has_capability("exec") && !found.has_capability("chat"));
        assert!(call.agent("did:key:zNobody")?.is_none());
        let can = |capability: &str| AgentFilter {
            capability: Some(capability.into()),
            ..AgentFilter::default()
        };
        assert_eq!(call.agents(&AgentFilter::default())?.len(), 2);
        assert_eq!(call.agents(&AgentFilter { limit: 1, ..can("exec") })?.len(), 1);
        assert_eq!(call.agents(&can("nothing"))?.len(), 0);
        let label = Some(("tier".into(), "gold".into()));
        assert_eq!(call.agents(&AgentFilter { label, ..can("exec") })?.len(), 1);
        self.kept.lock().unwrap().extend([found.clone(), event.agent().keep()]);

        call.send("did:key:zBob", "INTENT", "{}")?;
        assert_eq!(call.send("did:key:zNobody", "INTENT", "{}"), Err(Refused::Absent));
        let refused = call.send("did:key:zBob", "INTENT", "[]");
        assert_eq!(refused, Err(Refused::Invalid("the payload is no JSON object".into())));
        call.metric("asked", 2)?;
        call.timer(second, 42)?;
        Ok(CONTINUE)
    }

    fn on_route(&self, _: &Route<'_>, call: &Call<'_>) -> Outcome {
        let refused = call.defer().map(drop);
        Err(refused.unwrap_err().into())
    }

    fn on_timer(&self, tag: u64, call: &Call<'_>) -> Result<(), Error> {
        assert_eq!(call.connection_get("c"), Err(StateError::NoConnection));
        assert!(call.disconnect("did:key:zBob", "time"));
        assert!(!call.disconnect("did:key:zBob", "time"));
        // What was kept is as it was.
        let kept = self.kept.lock().unwrap();
        let kept: Vec<_> = kept.iter().map(AgentRef::did).collect();
        call.info(format!("{tag} at {} with {kept:?}", call.now_ms() - START_MS));
        Ok(())
    }
}

#[test]
fn a_plugin_uses_the_host_in_calls_and_outside_of_them() {
    let host = TestHost::new();
    host.set_generation(3);
    let alice = alice();
    host.add_agent(&alice);
    host.add_agent(&testkit::agent("did:key:zBob").capability("exec").build());
    let connection = Arc::new(Connection::default());
    let kit = Kit::<Asker>::with_host(json!({}), host.clone()).unwrap();

    let register = testkit::register(&alice).on(&connection);
    assert_eq!(kit.register(register), Ok(CONTINUE));
    assert_eq!(host.sent().len(), 1);
    assert_eq!((host.counter("asked"), host.timers()), (2, 1));

    kit.advance(Duration::from_secs(61)).unwrap();
    assert_eq!(host.disconnected(), [("did:key:zBob".into(), "time".into())]);
    let line = r#"42 at 1000 with ["did:key:zBob", "did:key:zAlice"]"#;
    assert_eq!(host.lines(), [(Level::Info, line.into())]);
    assert_eq!(host.kv_get("n"), Ok(None), "it lived for a minute");

    // Agents that the plugin keeps go with it.
    assert!(Arc::strong_count(&alice) > 2);
    drop(kit);
    host.remove_agent(&alice);
    assert_eq!(Arc::strong_count(&alice), 1);
}

#[test]
fn a_refusal_says_why() {
    let kit = Kit::<Asker>::new(json!({})).unwrap();
    let fault = kit.route(testkit::route(&alice(), &bob())).unwrap_err();
    let why = "only verdicts of on_connect and on_register can be put off";
    assert_eq!(fault, CallFault::Failed(why.into()));
}

#[test]
fn a_config_that_does_not_fit_is_refused_with_its_key() {
    let fault = Kit::<Witness>::new(json!({ "colour": "red" })).unwrap_err();
    let CallFault::Failed(why) = fault else { panic!("{fault:?}") };
    assert!(why.starts_with("config.colour: unknown field `colour`, "), "{why}");
    assert!(!why.contains("column"), "{why}");
}

/// Decides later, as its configuration says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Later {
    Allow,
    Fail,
    Drop,
    Twice,
    Both,
    Panic,
}

impl Plugin for Later {
    type Config = Self;
    const POINTS: PointSet = PointSet::of(&[Point::Connect]);
    const NEEDS: Capabilities = Capabilities::DEFER;

    fn new(config: Self, _: Host) -> Result<Self, Error> {
        Ok(config)
    }

    fn on_connect(&self, _: &Connect<'_>, call: &Call<'_>) -> Outcome {
        let deferred = call.defer()?;
        match self {
            Self::Allow => drop(std::thread::spawn(move || deferred.complete(Ok(allow())))),
            Self::Fail => {
                std::thread::spawn(move || deferred.complete(Err("no answer".into())));
            }
            Self::Drop => drop(std::thread::spawn(move || drop(deferred))),
            Self::Twice => {
                let host = Host::clone(call);
                let token = deferred.into_token();
                assert!(host.complete(token, Ok(CONTINUE)));
                assert!(!host.complete(token, Ok(allow())));
                assert!(!host.complete(token + 1, Ok(allow())));
            }
            Self::Both => return Ok(allow()),
            Self::Panic => panic!("deferred, then panicked"),
        }
        Ok(CONTINUE)
    }
}

#[test]
fn a_deferred_verdict_comes_from_another_thread() {
    let ask = |how: &str| {
        let kit = Kit::<Later>::new(json!(how)).unwrap();
        let answer = kit.connect(testkit::connect());
        (answer, kit.host().open())
    };
    let failed = |why: &str| Err(CallFault::Failed(why.into()));
    assert_eq!(ask("allow"), (Ok(allow()), vec![]));
    assert_eq!(ask("fail"), (failed("no answer"), vec![]));
    assert_eq!(ask("drop"), (failed("the deferred verdict was dropped"), vec![]));
    assert_eq!(ask("twice"), (Ok(CONTINUE), vec![]));
    let both = CallFault::BadReturn("it both answered and deferred".into());
    assert_eq!(ask("both"), (Err(both), vec![]));
    let panicked = CallFault::Panicked("deferred, then panicked".into());
    assert_eq!(ask("panic"), (Err(panicked), vec![]));
}

#[test]
fn a_declared_plugin_describes_itself_and_can_be_linked() {
    let library = Library::linked(plugin(), Capabilities::NONE).unwrap();
    assert_eq!((library.name(), library.version()), ("conexus-plugin-api", "0.1.0"));
    assert!(library.rustc().starts_with("rustc ") && library.target().contains('-'));
    assert_eq!(library.points(), PointSet::of(Point::ALL));
    let host: Arc<dyn Services> = Arc::new(TestHost::new());
    let instance = library.instantiate("{}", Arc::clone(&host)).unwrap();
    let event = Event::Watch(Arc::new(testkit::watch(&alice(), "x")));
    let answer = instance.call(&event, &host).unwrap();
    assert!(matches!(answer, Returned::Answer(answer) if !answer.is_continue()));
}
