//! The host as the chain sees it: bad scripts, limits, places of errors, values, many threads.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_plugin_api::{Answer, DenyCode, Point, PointSet, Set, Verdict, host::Event};
use serde_json::{Map, Value, json};

use super::{
    ScriptError, ScriptHook, Scripts,
    tests::{World, for_unit_tests as fabricate},
};
use crate::{
    config::ScriptSettings,
    hooks::{CallContext, Hook, HookFault, Returned},
};

/// The memory bound needs the allocator that tells.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn scripts() -> Scripts {
    Scripts::new(&ScriptSettings { path: "/nowhere".into(), ..ScriptSettings::default() })
}

fn config(config: Value) -> Map<String, Value> {
    let Value::Object(config) = config else { panic!("{config}") };
    config
}

fn hook_with(text: &str, values: Value) -> Result<ScriptHook, ScriptError> {
    scripts().compile_text("t.rhai", text)?.instantiate(&config(values))
}

fn hook(text: &str) -> ScriptHook {
    hook_with(text, json!({})).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> String {
    match hook_with(text, json!({})) {
        Ok(_) => panic!("was taken: {text}"),
        Err(error) => error.to_string(),
    }
}

fn within(budget: Duration) -> CallContext {
    CallContext { services: World::new().services(None), deadline: Instant::now() + budget }
}

fn ask_within(hook: &ScriptHook, event: &Event, budget: Duration) -> Result<Answer, HookFault> {
    match hook.call(event, &within(budget))? {
        Returned::Answer(answer) => Ok(answer),
        deferred @ Returned::Deferred(_) => panic!("{deferred:?}"),
    }
}

fn ask(hook: &ScriptHook, event: &Event) -> Result<Answer, HookFault> {
    ask_within(hook, event, Duration::from_secs(60))
}

fn route() -> Event {
    fabricate::route(&World::new())
}

/// What `on_route(e)` with this body answers.
fn body(body: &str) -> Result<Answer, HookFault> {
    ask(&hook(&format!("fn on_route(e) {{\n{body}\n}}")), &route())
}

fn failed(text: &str) -> String {
    match body(text) {
        Err(HookFault::Failed(text)) => text,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn scripts_that_cannot_work_are_refused_with_their_place() {
    for (text, expected) in [
        ("fn on_route(e) {\n  let x = ;\n}", "t.rhai:2:11: "),
        ("fn on_rote(e) { }", "t.rhai:1:4: there is no hook on_rote; did you mean on_route?"),
        (
            "fn on_whatever_this_is(e) { }",
            "t.rhai:1:4: there is no hook on_whatever_this_is; there are",
        ),
        (
            "\nfn on_route() { }",
            "t.rhai:2:4: on_route takes one parameter, the event; this one has 0",
        ),
        (
            "fn on_route(a, b) { }",
            "t.rhai:1:4: on_route takes one parameter, the event; this one has 2",
        ),
        ("fn on_tick(e) { }", "t.rhai:1:4: on_tick takes no parameter; this one has 1"),
        (
            "fn on_route(e) { } fn test_x(a) { }",
            "t.rhai:1:23: test_x is a test and takes no parameter",
        ),
        ("let count = 0;\nfn on_route(e) { }", "t.rhai:1:1: let count at top level"),
        ("fn on_route(e) { unknown + 1 }", "t.rhai:1:18: Undefined variable: unknown"),
        ("fn helper() { }", "t.rhai: no function of it is a hook"),
        ("fn on_route(e) { eval(\"1\") }", "t.rhai:1:18: "),
        ("fn on_route(e) { sleep(1) }", "t.rhai:1:18: there is no sleep() here"),
        (
            "const NOW = timestamp();\nfn on_route(e) { }",
            "t.rhai:1:13: there is no timestamp() here",
        ),
        ("const config = 1;\nfn on_route(e) { }", "t.rhai:1:1: config is there already"),
        ("const MAX = 1;\nfn on_route(MAX) { }", "t.rhai:2:4: MAX is the name of a constant"),
        ("const MAX = 1;\nfn on_route(e) { let MAX = 2; }", "MAX is the name of a constant"),
        ("const MAX = 1;\nfn on_route(e) { for MAX in [1] { } }", "MAX is the name of a constant"),
        (
            "const MAX = 1;\nfn on_route(e) { [1].some(|MAX| MAX > 0); }",
            "MAX is the name of a constant",
        ),
        ("const MAX = 1;\nfn on_route(e) { MAX = 2; }", "t.rhai:2:18: MAX is constant"),
        ("fn on_route(e) { config.x = 2; }", "t.rhai:1:18: config is constant"),
        ("throw \"no\";\nfn on_route(e) { }", "t.rhai:1:1: no"),
        ("loop { }\nfn on_route(e) { }", "more than 1000000 operations"),
        ("const A = kv_get(\"x\");\nfn on_route(e) { }", "t.rhai:1:11: kv_get() asks the gateway"),
        ("fn on_route(e) { regex(e.to, \"(\") }", "t.rhai:1:30: \"(\" is no regular expression"),
        (
            "fn on_route(e) { import \"lib/a\" as a; }",
            "t.rhai:1:18: import belongs to the top level",
        ),
        (
            "import \"lib/\" + \"a\" as a;\nfn on_route(e) { }",
            "t.rhai:1:1: what is imported must be a plain text",
        ),
        ("import \"lib/a\" as a;\nfn on_route(e) { }", "t.rhai:1:1: cannot import \"lib/a\""),
        (&format!("fn on_route(e) {{ {}1{} }}", "(".repeat(500), ")".repeat(500)), "t.rhai:1:"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}\n{error}\nexpected {expected}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let error = refused("let a = 1;\nfn on_rout(e) { }\nfn on_tick(e) { sleep(1) }");
    assert_eq!(error.lines().count(), 4, "{error}");
}

#[test]
fn a_call_ends_at_its_budget_whatever_it_does() {
    for text in [
        "loop { }",
        "let n = 0; while true { n += 1; }",
        "let a = []; for i in 0..9000 { a.push(i); } loop { a.sort(); }",
        "[1].map(|x| { loop { } });",
        "for i in 0..9223372036854775807 { e.type; }",
    ] {
        let settings =
            ScriptSettings { max_operations: 1_000_000_000, ..ScriptSettings::default() };
        let text = format!("fn on_route(e) {{ {text} }}");
        let script = Scripts::new(&settings).compile_text("t.rhai", &text).unwrap();
        let hook = script.instantiate(&Map::new()).unwrap();
        let asked = ask_within(&hook, &route(), Duration::from_millis(20));
        assert_eq!(asked, Err(HookFault::TimedOut), "{text}");
    }
}

#[test]
fn what_a_call_may_use_is_bounded() {
    for (text, expected) in [
        ("loop { }", "t.rhai:2:"),
        ("[1].map(|x| { loop { } });", "more than 1000000 operations"),
        ("try { loop { } } catch { }", "more than 1000000 operations"),
        ("let s = \"x\"; loop { s += s; }", "Length of string"),
        ("let s = \"x\"; s.pad(100000000, \"y\");", "Length of string"),
        ("let s = \"x\"; s.pad(60000, 'x'); s.replace(\"x\", s);", "Length of string"),
        ("let s = \"x\"; s.pad(60000, 'x'); let a = []; loop { a.push(s); }", "Length of string"),
        ("let a = [1]; loop { a += a; }", "Size of array"),
        ("let a = []; a.pad(100000000, 1);", "Size of array"),
        ("let b = blob(100000000);", "Size of array"),
        ("let a = [1]; loop { a = [a, a]; }", "Size of array"),
        ("let m = #{}; for i in 0..20000 { m[`k${i}`] = i; } m + #{}", "Size of object map"),
        ("let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1; }", "more than "),
        ("let m = #{a: 1}; loop { m = #{a: m, b: m}; }", "Size of object map"),
    ] {
        let text = failed(text);
        assert!(text.contains(expected), "{text}\nexpected {expected}");
        assert!(text.starts_with("t.rhai:2:"), "{text}");
    }
    let many: String = (0..300).map(|n| format!("let v{n} = e.bytes + {n};\n")).collect();
    assert!(failed(&many).contains("Too many variables"));
    let deep = hook("fn f(n) { f(n + 1) } fn on_route(e) { f(0) }");
    let Err(HookFault::Failed(text)) = ask(&deep, &route()) else { panic!() };
    assert!(text.contains("Stack overflow") && text.starts_with("t.rhai:1:"), "{text}");
}

#[test]
fn deeply_nested_data_ends_a_call_and_not_the_process() {
    for text in [
        "let a = []; loop { a = [a]; }",
        "let a = []; loop { let b = [take(a)]; a = take(b); }",
        "let a = #{}; loop { a = #{ a: a }; }",
        "let a = #{}; loop { let b = #{ a: take(a) }; a = take(b); }",
        "let f = |x| x; loop { let g = f; f = |x| g.call(x); }",
        "let f = |x| x; loop { f = f.curry(f); }",
    ] {
        let hook = hook(&format!("fn on_route(e) {{ {text} }}"));
        let asked = ask_within(&hook, &route(), Duration::from_secs(3));
        let stopped = matches!(asked, Err(HookFault::Failed(_) | HookFault::TimedOut));
        assert!(stopped, "{text}: {asked:?}");
    }
}

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[test]
fn data_in_many_variables_is_bounded_by_memory() {
    // Every frame and variable keeps as large a value as one may be.
    let lets: String = (0..200).map(|n| format!("let v{n} = a; v{n}[0] = {n};\n")).collect();
    let text = format!(
        "fn f(a, n) {{ {lets} if n > 0 {{ f(a, n - 1) }} }}
         fn on_route(e) {{ let a = []; a.pad(9999, #{{}}); f(a, 20) }}"
    );
    let Err(HookFault::Failed(text)) = ask(&hook(&text), &route()) else { panic!() };
    assert!(text.contains("more than 64 MiB of memory"), "{text}");
}

#[test]
fn errors_name_their_place_and_the_stack_of_the_script() {
    let hook = hook("fn check(x) {\n  throw \"boom \" + x;\n}\nfn on_route(e) {\n  check(7);\n}");
    let text = "t.rhai:2:3: boom 7, in check (t.rhai:2:3), in on_route (t.rhai:5:3)";
    assert_eq!(ask(&hook, &route()), Err(HookFault::Failed(text.to_owned())));
    for (text, expected) in [
        ("e.nothing", "t.rhai:2:3: "),
        ("throw \"no\"", "t.rhai:2:1: no"),
        ("nothing(1)", "t.rhai:2:1: Function not found: nothing (i64)"),
        ("e.type + 1 - 2", "t.rhai:2:"),
        ("1 / 0", "t.rhai:2:3: Division by zero"),
        ("[1].map(|x| throw \"in\")", "t.rhai:2:13: in, in a closure (t.rhai:2:13), in map"),
        ("kv_set(\"k\", 1, \"soon\")", "\"soon\" is not a whole number and a unit"),
        ("Fn(\"sleep\").call(1)", "a hook that waits"),
        ("Fn(\"eval\").call(\"1\")", "eval"),
    ] {
        let text = failed(text);
        assert!(text.contains(expected), "{text}\nexpected {expected}");
    }
}

#[test]
fn a_script_never_denies_by_failing() {
    for text in ["throw deny()", "throw \"denied\"", "let x = (); x.y", "exit(true)"] {
        assert!(body(text).is_err(), "{text}");
    }
}

fn verdicts(answer: Result<Answer, HookFault>) -> Vec<Verdict> {
    answer.unwrap().verdicts().to_vec()
}

#[test]
fn verdicts_are_what_their_functions_say() {
    let did = fabricate::did(1);
    let deny = |code, reason: &str| Verdict::Deny { code, reason: reason.into() };
    for (text, expected) in [
        ("", vec![]),
        ("()", vec![]),
        ("let x = 1;", vec![]),
        ("return;", vec![]),
        ("[]", vec![]),
        ("allow()", vec![Verdict::Allow]),
        ("return allow();", vec![Verdict::Allow]),
        ("deny()", vec![deny(DenyCode::Denied, "")]),
        ("deny(\"rate_limited\")", vec![deny(DenyCode::RateLimited, "")]),
        ("deny(\"not_relayed\", \"no\")", vec![deny(DenyCode::NotRelayed, "no")]),
        (&format!("redirect({did:?})"), vec![Verdict::Redirect(did.clone())]),
        (
            &format!("[copy({did:?}), hold(2)]"),
            vec![Verdict::Copy(did.clone()), Verdict::Hold(Duration::from_secs(2))],
        ),
        ("hold(\"5m\")", vec![Verdict::Hold(Duration::from_secs(300))]),
        ("hold(0.25)", vec![Verdict::Hold(Duration::from_millis(250))]),
    ] {
        assert_eq!(verdicts(body(text)), expected, "{text}");
    }
    let hook = hook(
        "fn on_register(e) { [extend(\"10m\"), set(#{ labels: #{ region: \"eu\" }, rate_class: \"slow\" })] }",
    );
    let set = Set {
        labels: [("region".into(), "eu".into())].into(),
        rate_class: Some("slow".into()),
        metadata: None,
    };
    let answer = ask(&hook, &fabricate::register(&World::new()));
    let expected = vec![Verdict::Extend(Duration::from_secs(600)), Verdict::Set(set)];
    assert_eq!(verdicts(answer), expected);
    assert_eq!(hook.points(), PointSet::of(&[Point::Register]));
}

#[test]
fn a_statement_that_ends_with_a_semicolon_gives_nothing_back_unless_it_is_a_verdict() {
    for text in [
        "incr(\"n\");",
        "incr(\"n\"); // said; and done }",
        "if e.type == \"OFFER\" { incr(\"n\"); }",
        "if e.type == \"\" { } else if true { `${1};`; incr(\"n\"); }",
        "switch e.type { \"OFFER\" => { incr(\"n\"); } _ => () }",
        "try { incr(\"n\"); } catch { }",
        "if true { 1 };",
        "if config.x == () { incr(\"n\"); }",
        "{ { incr(\"n\"); } }",
        "e.to.len();",
        "[1, 2];",
    ] {
        assert_eq!(body(text), Ok(Answer::CONTINUE), "{text}");
    }
    for text in
        ["deny();", "if true { deny(); }", "if true { deny() };", "[deny()];", "return deny();"]
    {
        assert_eq!(verdicts(body(text)).len(), 1, "{text}");
    }
    for text in ["incr(\"n\")", "if true { incr(\"n\") }", "return 1;"] {
        assert!(matches!(body(text), Err(HookFault::BadReturn(_))), "{text}");
    }
    let observer = hook("fn on_tick() { 5 } fn on_stop() { deny() }");
    assert_eq!(verdicts(ask(&observer, &Event::Tick)), []);
    assert!(matches!(ask(&observer, &Event::Stop), Err(HookFault::BadReturn(_))));
}

#[test]
fn what_is_no_verdict_or_has_no_meaning_there_is_a_bad_return() {
    for (text, expected) in [
        ("true", "true or false, which is no verdict"),
        ("1", "a number, which is no verdict"),
        ("\"deny\"", "a text, which is no verdict"),
        ("#{}", "a map, which is no verdict"),
        ("e", "which is no verdict"),
        ("[allow(), 1]", "a number, which is no verdict"),
        ("extend(5)", "extend() means nothing at on_route"),
        ("set(#{})", "set() means nothing at on_route"),
        ("deny(\"forbidden\")", "does not know the code \"forbidden\""),
        ("redirect(\"did:web:x\")", "is no DID"),
        ("copy(\"\")", "is no DID"),
        ("hold(-1)", "is no duration"),
        ("hold(\"1 fortnight\")", "unknown unit"),
        ("set(#{ lables: #{} })", "does not know \"lables\""),
        ("set(#{ labels: #{ a: 1 } })", "a is a text"),
    ] {
        match body(text) {
            Err(HookFault::BadReturn(said)) => {
                assert!(said.contains(expected), "{text}: {said}");
                assert!(said.starts_with("t.rhai:"), "{said}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn constants_and_configuration_are_seen_in_functions_and_closures() {
    let text = "
        const MAX = config.most + 1;
        const NAMES = [\"a\", \"b\"];
        fn helper() { if 5 > MAX { \"helped\" } else { \"not\" } }
        fn on_route(e) {
            let over = [1, 5, 9].filter(|n| n > MAX);
            if over.len() == 2 && \"b\" in NAMES && config.deep.er == \"x\" && config.none == () {
                return deny(\"denied\", helper());
            }
        }";
    let hook = hook_with(text, json!({ "most": 2, "deep": { "er": "x" } })).unwrap();
    let denied = Verdict::Deny { code: DenyCode::Denied, reason: "helped".into() };
    assert_eq!(verdicts(ask(&hook, &route())), [denied]);
}

#[test]
fn lists_of_the_configuration_are_read_once_and_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agents.txt");
    fs::write(&path, "# who may\n\nalice\n  bob  \r\n").unwrap();
    let text = "
        const WHO = lines(\"file\");
        fn on_route(e) {
            let all = []; for who in WHO { all.push(who); }
            if \"bob\" in WHO && !(\"carol\" in WHO) && WHO.len == 2 && all == [\"alice\", \"bob\"]
                && WHO.contains(\"alice\") && !(() in WHO) && lines(\"deep.also\").len() == 1 {
                allow()
            }
        }";
    let values = json!({ "file": path, "deep": { "also": ["x"] } });
    let hook = hook_with(text, values).unwrap();
    fs::write(&path, "").unwrap();
    assert_eq!(verdicts(ask(&hook, &route())), [Verdict::Allow]);
    assert_eq!(hook.files().len(), 1);
    assert_eq!(hook.files()[0].path, path);

    let error = hook_with(text, json!({ "file": folder.path().join("none") })).unwrap_err();
    assert!(error.to_string().contains("none: "), "{error}");
    let error = hook_with(text, json!({})).unwrap_err().to_string();
    assert!(error.contains("t.rhai:2:21: the configuration has no list \"file\""), "{error}");
}

#[test]
fn modules_come_from_the_folder_lib_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("scripts");
    fs::create_dir_all(root.join("lib")).unwrap();
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    fs::write(folder.path().join("outside.rhai"), "fn f() { 1 }").unwrap();
    write("beside.rhai", "fn f() { 1 }");
    write("lib/base.rhai", "const ONE = 1; fn one() { ONE }");
    write(
        "lib/nets.rhai",
        "import \"lib/base\" as base; const LIMIT = 2;\nfn two() { base::one() + 1 }\nfn boom() { throw LIMIT }",
    );
    write("lib/a.rhai", "import \"lib/b\" as b;");
    write("lib/b.rhai", "import \"lib/a\" as a;");
    write("lib/bad.rhai", "fn f( {");
    write("twice.rhai", "import \"lib/nets\" as nets; const LIMIT = 3; fn on_route(e) { }");
    write(
        "good.rhai",
        "import \"lib/nets\" as nets; fn on_route(e) { if nets::two() == 2 { allow() } }",
    );
    write("throws.rhai", "import \"lib/nets\" as nets;\nfn on_route(e) {\n  nets::boom()\n}");
    std::os::unix::fs::symlink(folder.path().join("outside.rhai"), root.join("lib/link.rhai"))
        .unwrap();
    let scripts = Scripts::new(&ScriptSettings { path: root.clone(), ..ScriptSettings::default() });

    let script = scripts.compile("good").unwrap();
    let names: Vec<_> =
        script.files().iter().filter_map(|file| file.path.strip_prefix(&root).ok()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let good = script.instantiate(&Map::new()).unwrap();
    assert_eq!(verdicts(ask(&good, &route())), [Verdict::Allow]);

    let throws = scripts.compile("throws").unwrap().instantiate(&Map::new()).unwrap();
    let text = "lib/nets.rhai:3:13: 2, in boom (lib/nets.rhai:3:13), in on_route (throws.rhai:3:9)";
    assert_eq!(ask(&throws, &route()), Err(HookFault::Failed(text.into())));

    let error = scripts.compile("twice").unwrap_err().to_string();
    assert!(error.contains("LIMIT is a constant of"), "{error}");

    let outside = folder.path().join("outside");
    for (path, expected) in [
        ("lib/a", "a circle"),
        ("lib/none", "cannot import \"lib/none\""),
        ("lib/bad", "lib/bad.rhai:1:7"),
        ("beside", "is not in the folder lib"),
        ("lib/../beside", "is not a plain name"),
        ("../outside", "is not a plain name"),
        (outside.to_str().unwrap(), "is not a plain name"),
        ("lib/link", "leads out of the folder"),
        ("", "is not"),
    ] {
        write("try.rhai", &format!("import {path:?} as m;\nfn on_route(e) {{ }}"));
        let error = scripts.compile("try").unwrap_err().to_string();
        assert!(error.contains(expected), "{path}: {error}");
    }
    // Whoever sets up the folder may link what they like.
    std::os::unix::fs::symlink(root.join("good.rhai"), root.join("linked.rhai")).unwrap();
    assert!(scripts.compile("linked").is_ok());
    for name in ["../outside", "/etc/passwd", "none", ""] {
        assert!(scripts.compile(name).is_err(), "{name}");
    }
}

#[test]
fn fields_of_a_message_are_there() {
    let text = "
        let all = [
            type_of(e) == \"route event\", e.type == \"OFFER\", e.to == e.target.did, e.id.len() > 0,
            e.payload.sdp == \"v=0\", e.bytes == e.text.bytes, e.correlation_id == (),
            e.from.ip == \"127.0.0.1\", e.from.session == 1, e.from.subprotocol == \"ioap.v1.1\",
            e.from.name == (), e.from.capabilities == [], e.from.attributes == #{},
            e.from.labels == #{}, e.from.label(\"x\") == (), e.from.attribute(\"x\") == (),
            e.from.rate_class == (), !e.from.has_capability(\"x\"), e.from != e.target,
            e.from.connected_at == now(), e.payload_text == json_text(e.payload), !e.undeliverable,
        ];
        for (holds, n) in all { if !holds { throw `${n}`; } }";
    assert_eq!(verdicts(body(text)), []);
}

#[test]
fn host_functions_do_what_they_say() {
    let text = r##"
        kv_set("n", 1); kv_set("t", "x", "1s"); kv_set("m", #{ a: [1, 2.5, true] });
        let all = [
            kv_get("n") == 1, kv_get("t") == "x", kv_get("m").a[1] == 2.5, kv_get("none") == (),
            incr("n") == 2, incr("n", 5) == 7, incr("c", 1, "1m") == 1, kv_delete("n"),
            !kv_delete("n"), kv_cas("q", (), 1), !kv_cas("q", 2, 3), kv_cas("q", 1, 3, 5),
            kv_expire("q", ()), !kv_expire("none", 5),
            rate_limit("r", 1, "1m"), !rate_limit("r", 1, "1m"),
            agent(e.from.did) == (), agents().len() == 0, agents(#{ capability: "c" }).len() == 0,
            !send(e.from.did, "ERROR", #{}), !disconnect(e.from.did, "x"),
            cidr("10.1.2.3", "10.0.0.0/8"), cidr("10.1.2.3", ["fc00::/7", "10.1.2.3"]),
            !cidr("x", ["10.0.0.0/8"]), is_ip("::1"), glob("abc", "a*"), glob("abc", ["x", "?bc"]),
            regex("abc", "^a.c$"), "abc".regex("b"), !regex("abc", "^b"),
            base64_encode("hi") == "aGk=", base64_decode("aGk=") == "hi", base64_decode("*") == (),
            sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            json_parse("{\"a\":[1]}").a[0] == 1, json_text(#{ a: () }) == "{\"a\":null}",
            now_ms() == now() * 1000, seconds("2m") == 120.0,
            local_time("UTC").year == 2024, local_time("UTC").day_name == "monday",
            local_time("+05:30").hour == 5, local_time("+05:30").minute == 30,
            local_time("Europe/Berlin", "2024-07-01T10:00:00Z").hour == 12,
            local_time("-01:00").weekday == 7,
        ];
        log("one"); log("warn", "two"); print(all.len()); debug("three");
        metric("seen"); metric("seen", 2);
        for (holds, n) in all { if !holds { throw `${n}`; } }"##;
    assert_eq!(verdicts(body(text)), []);
    for (text, expected) in [
        ("kv_set(\"k\", ())", "to remove a value, use kv_delete()"),
        ("kv_set(\"k\", 1, 0)", "above zero"),
        ("kv_set(\"k\", |x| x)", "has no place in JSON"),
        ("kv_set(\"k\", \"x\"); incr(\"k\")", "the value is no number"),
        ("rate_limit(\"k\", 0, 1)", "a rate needs"),
        ("rate_limit(\"k\", -1, 1)", "is no number of times"),
        ("agents(#{ caps: \"x\" })", "does not know \"caps\""),
        ("cidr(\"10.0.0.1\", \"10.0.0.0/64\")", "is no network"),
        ("let p = \"(\"; regex(\"x\", p)", "is no regular expression"),
        ("local_time(\"Mars/Base\")", "there is no time zone"),
        ("log(\"loud\", \"x\")", "there is no level"),
        ("json_parse(\"{\")", "no JSON"),
        ("send(e.from.did, \"ERROR\", 1)", "a payload is an object"),
    ] {
        let said = failed(text);
        assert!(said.contains(expected) && said.starts_with("t.rhai:2:"), "{text}: {said}");
    }
}

#[test]
fn what_the_decision_log_leaves_out_is_noted_when_it_is_read() {
    let world = World::new();
    for (text, secret) in [
        ("fn on_connect(e) { e.header(\"Origin\"); e.ip; e.path; () }", false),
        ("fn on_connect(e) { e.query_param(\"a\"); () }", true),
        ("fn on_connect(e) { e.query; () }", true),
        ("fn on_connect(e) { e.header(\"sec-websocket-protocol\"); () }", true),
        ("fn on_connect(e) { e.header(\"authorization\"); () }", true),
        ("fn on_connect(e) { e.headers; () }", true),
    ] {
        let hook = hook(text);
        let services = world.services(None);
        let context = CallContext { services, deadline: Instant::now() + Duration::from_secs(60) };
        hook.call(&fabricate::connect(), &context).unwrap();
        assert_eq!(world.take_secret_read(), secret, "{text}");
    }
}

#[test]
fn calls_from_many_threads_do_not_see_each_other() {
    let text = "fn double(n) { let sum = 0; for i in 0..n { sum += 2; } sum }
        fn on_route(e) {
            let n = e.payload.n;
            kv_set(`k${n}`, double(n));
            deny(\"denied\", `${kv_get(`k${n}`)}`)
        }";
    let (hook, world) = (Arc::new(hook(text)), World::new());
    std::thread::scope(|scope| {
        for n in 0..8_i64 {
            let (hook, world) = (hook.clone(), world.clone());
            scope.spawn(move || {
                let event = fabricate::route_with(&world, &json!({ "n": n }));
                for _ in 0..50 {
                    let deadline = Instant::now() + Duration::from_secs(60);
                    let context = CallContext { services: world.services(None), deadline };
                    let Returned::Answer(answer) = hook.call(&event, &context).unwrap() else {
                        panic!()
                    };
                    let reason = (n * 2).to_string();
                    let denied = Verdict::Deny { code: DenyCode::Denied, reason };
                    assert_eq!(answer.verdicts(), [denied]);
                }
            });
        }
    });
}

#[test]
fn a_panic_inside_is_contained() {
    let asked = hook("fn on_route(e) { e.panic_for_a_test(); }");
    assert!(
        matches!(ask(&asked, &route()), Err(HookFault::Panicked(text)) if text.contains("for a test"))
    );
    assert!(ask(&asked, &fabricate::register(&World::new())).is_ok());
}

#[test]
fn hooks_without_an_event_are_called() {
    let hook = hook("fn on_start() { kv_set(\"n\", 1); } fn on_tick() { throw \"tock\" }");
    assert_eq!(verdicts(ask(&hook, &Event::Start)), []);
    let tock = HookFault::Failed("t.rhai:1:50: tock".into());
    assert_eq!(ask(&hook, &Event::Tick), Err(tock));
}
