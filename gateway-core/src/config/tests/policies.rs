//! Hooks, chains, plugins and rate classes as an operator writes them.

use std::time::Duration;

use conexus_plugin_api::Point;
use serde_json::json;

use super::*;

const HOOK_USE: &str = r#"expected "script:NAME" or "plugin:NAME""#;
const NAMES: &str = r#"expected 1 to 64 of a-z, 0-9, "_" and "-""#;

fn hook<'a>(loaded: &'a Loaded, name: &str) -> &'a HookSettings {
    &loaded.settings.policies.hooks[name]
}

fn chain(loaded: &Loaded, point: Point) -> &[ChainEntry] {
    &loaded.settings.policies.chains[&Chain(point)]
}

#[test]
fn the_tables_are_read_with_their_defaults() {
    let desk = Desk::new(&[(
        "etc/g.toml",
        r#"
[hook.members]
use = "script:allowlist"
config = { file = "agents.txt", since = 2026-01-02, deep = { list = [{ key_file = "/k" }] } }
[hook.jwt]
use = "plugin:jwt-auth"
blocking = true
tick = "10s"
namespace = "shared"
[hook.jwt.config]
leeway = 1.5
[[chain.on_register]]
hook = "members"
[[chain.on_register]]
hook = "jwt"
mode = "shadow"
on_error = "open"
budget = "2s"
warn = "1s"
[plugins.jwt-auth]
path = "lib/libjwt.so"
sha256 = "ABCDEFabcdef0123456789012345678901234567890123456789012345678901"
crate = "jwt_auth"
[rate_class.bulk]
messages_per_second = 7
"#,
    )]);
    let sources = Sources { config: Some("etc/g.toml".into()), ..desk.sources };
    let loaded = load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let folder = desk.folder.path().join("etc");
    let members = hook(&loaded, "members");
    assert_eq!(members.source, HookSource::Script("allowlist".to_owned()));
    assert_eq!(
        json!(members.config),
        json!({
            "file": folder.join("agents.txt"),
            "since": "2026-01-02",
            "deep": { "list": [{ "key_file": "/k" }] },
        })
    );
    assert_eq!(members.files, [PathBuf::from("/k"), folder.join("agents.txt")]);
    assert_eq!((members.blocking, members.tick, &members.namespace), (false, None, &None));
    let jwt = hook(&loaded, "jwt");
    assert_eq!(jwt.source, HookSource::Plugin("jwt-auth".to_owned()));
    assert_eq!(json!(jwt.config), json!({ "leeway": 1.5 }));
    assert_eq!((jwt.blocking, jwt.tick), (true, Some(Duration::from_secs(10))));
    assert_eq!(jwt.namespace.as_deref(), Some("shared"));
    let plain = ChainEntry {
        hook: "members".to_owned(),
        mode: Mode::Enforce,
        on_error: None,
        budget: None,
        warn: None,
    };
    let full = ChainEntry {
        hook: "jwt".to_owned(),
        mode: Mode::Shadow,
        on_error: Some(FailMode::Open),
        budget: Some(Duration::from_secs(2)),
        warn: Some(Duration::from_secs(1)),
    };
    assert_eq!(chain(&loaded, Point::Register), [plain, full]);
    let plugin = &loaded.settings.policies.plugins["jwt-auth"];
    assert_eq!(plugin.path, folder.join("lib/libjwt.so"));
    assert!(plugin.sha256.as_deref().unwrap().starts_with("abcdefabcdef"));
    assert_eq!(plugin.crate_name.as_deref(), Some("jwt_auth"));
    let bulk = RateClass { messages_per_second: 7, ..RateClass::default() };
    assert_eq!(loaded.settings.policies.rate_classes["bulk"], bulk);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.policy_origins["hook.jwt.tick"].to_string(), "etc/g.toml:8:8");
    assert_eq!(loaded.policy_origins["chain.on_register[1].mode"].to_string(), "etc/g.toml:16:8");
}

#[test]
fn a_later_layer_replaces_keys_of_a_hook_and_chains_whole() {
    let loaded = Desk::new(&[
        (
            "gateway.toml",
            "[hook.a]\nuse = \"script:one\"\nconfig = { x = 1, y = 2 }\ntick = \"1s\"\n[hook.b]\nuse = \"script:b\"\n\
             [[chain.on_route]]\nhook = \"a\"\n[[chain.on_route]]\nhook = \"b\"\n[[chain.on_watch]]\nhook = \"b\"",
        ),
        ("conf.d/a.toml", "[hook.a]\nconfig = { x = 3 }\n[[chain.on_route]]\nhook = \"b\""),
    ])
    .env("CONEXUS_HOOK__A__USE", "script:two")
    .env("CONEXUS_RATE_CLASS__BULK__MESSAGES_PER_SECOND", "5")
    .set("hook.a.blocking=true")
    .set(r#"chain.on_watch=[{ hook = "a", mode = "off" }, { hook = "b" }]"#)
    .set("chain.on_expire=[]")
    .load();
    let a = hook(&loaded, "a");
    assert_eq!(a.source, HookSource::Script("two".to_owned()));
    assert_eq!(json!(a.config), json!({ "x": 3 }));
    assert_eq!((a.tick, a.blocking), (Some(Duration::from_secs(1)), true));
    let hooks = |point| -> Vec<_> {
        chain(&loaded, point).iter().map(|entry| (entry.hook.as_str(), entry.mode)).collect()
    };
    assert_eq!(hooks(Point::Route), [("b", Mode::Enforce)]);
    assert_eq!(hooks(Point::Watch), [("a", Mode::Off), ("b", Mode::Enforce)]);
    assert_eq!(hooks(Point::Expire), []);
    assert_eq!(loaded.settings.policies.rate_classes["bulk"].messages_per_second, 5);

    let origin = |key: &str| loaded.policy_origins[key].to_string();
    assert_eq!(origin("hook.a.use"), "environment variable CONEXUS_HOOK__A__USE");
    assert_eq!(origin("hook.a.config"), "conf.d/a.toml:2:10");
    assert_eq!(origin("hook.a.tick"), "gateway.toml:4:8");
    assert_eq!(origin("chain.on_route"), "conf.d/a.toml:3:9");
    assert_eq!(origin("chain.on_watch"), "--set");
    assert_eq!(loaded.replaced_chains["chain.on_route"].to_string(), "gateway.toml:7:9");
    assert!(!loaded.replaced_chains.contains_key("chain.on_expire"));
}

#[test]
fn each_fault_of_a_policy_names_its_place_and_what_is_accepted() {
    let hook = |key: &str| format!("[hook.a]\nuse = \"script:a\"\n{key}");
    let chain = |text: &str| format!("[hook.members]\nuse = \"script:a\"\n{text}");
    let table: &[(String, String)] = &[
        (hook("uze = 1"), "3:1: hook.a.uze: unknown key; did you mean hook.a.use?".into()),
        (hook("frobnicate = 1"), "3:1: hook.a.frobnicate: unknown key".into()),
        ("[hook.a]".into(), format!("1:7: hook.a: use is missing; {HOOK_USE}")),
        ("[hook.a]\nuse = \"a\"".into(), format!("2:7: hook.a.use: \"a\" is not accepted; {HOOK_USE}")),
        (
            "[hook.a]\nuse = \"script:../../etc/x\"".into(),
            format!("2:7: hook.a.use: \"script:../../etc/x\" is not accepted; {HOOK_USE}"),
        ),
        ("[hook.a]\nuse = 1".into(), format!("2:7: hook.a.use: {HOOK_USE}, found a number")),
        (
            "[hook.A]\nuse = \"script:a\"".into(),
            format!("1:7: hook.A: \"A\" is no name; {NAMES}"),
        ),
        ("[hook]\na = 1".into(), "2:1: hook.a: is a table; expected [hook.a]".into()),
        ("hook = 1".into(), "1:1: hook: is a section; expected [hook.NAME]".into()),
        ("[hooks.a]\nuse = 1".into(), "1:2: hooks: unknown section; did you mean hook?".into()),
        (
            hook("config = 1"),
            "3:10: hook.a.config: expected a table such as { key = \"value\" }, found a number".into(),
        ),
        (hook("config = { x = inf }"), "3:16: hook.a.config: is no number that JSON can hold".into()),
        (
            hook("config = { key = { env = \"ABSENT\" } }"),
            "3:26: hook.a.config.key: the secret's environment variable ABSENT is not set".into(),
        ),
        (
            hook("config = { list = [{ file = \"\" }] }"),
            "3:29: hook.a.config.list[0].file: is empty; expected a path".into(),
        ),
        (hook("blocking = 1"), "3:12: hook.a.blocking: expected true or false, found a number".into()),
        (
            hook("tick = \"0s\""),
            "3:8: hook.a.tick: \"0s\" is too short; expected at least \"10ms\"".into(),
        ),
        (
            hook("namespace = \"a b\""),
            format!("3:13: hook.a.namespace: \"a b\" is not accepted; {NAMES}"),
        ),
        (
            "[hook.a]\nuse = \"plugin:jvt\"\n[plugins.jwt]\npath = \"x\"".into(),
            "2:7: hook.a.use: there is no [plugins.jvt], and no plugin of that name is built in; did you mean plugin:jwt?".into(),
        ),
        (
            chain("[[chain.on_register]]\nhook = \"members\"\n[[chain.on_register]]\nhook = \"membrs\""),
            "6:8: chain.on_register[1].hook: there is no [hook.membrs]; did you mean members?".into(),
        ),
        (
            chain("[[chain.on_route]]\nhook = \"members\"\n[[chain.on_route]]\nhook = \"members\""),
            "6:8: chain.on_route[1].hook: \"members\" is in this chain already".into(),
        ),
        (
            chain("[[chain.on_rout]]\nhook = \"members\""),
            "3:9: chain.on_rout: no such point; did you mean chain.on_route?".into(),
        ),
        (
            chain("[[chain.on_tick]]\nhook = \"members\""),
            "3:9: chain.on_tick: is called at every hook that has it, and has no chain".into(),
        ),
        (
            chain("[chain.on_route]\nhook = \"members\""),
            "3:1: chain.on_route: expected [[chain.on_route]] or a list of tables such as [{ hook = \"NAME\" }]".into(),
        ),
        (
            chain("[chain]\non_route = [\"members\"]"),
            "4:12: chain.on_route: expected [[chain.on_route]] or a list of tables such as [{ hook = \"NAME\" }]".into(),
        ),
        (
            chain("[[chain.on_route]]\nmode = \"off\""),
            "3:1: chain.on_route[0]: hook is missing; expected the NAME of a [hook.NAME]".into(),
        ),
        (
            chain("[[chain.on_route]]\nhook = \"members\"\nmode = \"shaddow\""),
            "5:8: chain.on_route[0].mode: \"shaddow\" is not accepted; expected \"enforce\", \"shadow\" or \"off\"".into(),
        ),
        (
            chain("[[chain.on_route]]\nhook = \"members\"\non_error = \"deny\""),
            "5:12: chain.on_route[0].on_error: \"deny\" is not accepted; expected \"closed\" or \"open\"".into(),
        ),
        (
            chain("[[chain.on_route]]\nhook = \"members\"\nbudget = \"0s\""),
            "5:10: chain.on_route[0].budget: \"0s\" is too short; expected at least \"1ms\"".into(),
        ),
        (
            chain("[[chain.on_route]]\nhook = \"members\"\nwarn = \"51ms\""),
            "5:8: chain.on_route[0].warn: warn (51ms) must be at most the budget (50ms)".into(),
        ),
        (
            chain("[[chain.on_route]]\nhook = \"members\"\nbudgt = \"1s\""),
            "5:1: chain.on_route[0].budgt: unknown key; did you mean chain.on_route[0].budget?".into(),
        ),
        (
            "[plugins.a]\nsha256 = \"abc\"\npath = \"x\"".into(),
            "2:10: plugins.a.sha256: expected 64 hexadecimal digits".into(),
        ),
        (
            "[plugins.a]\ncrate = \"a\"".into(),
            "1:10: plugins.a: path is missing; expected the library, or a folder with it".into(),
        ),
        (
            "[rate_class.a]\nmessages_per_second = -1".into(),
            "2:23: rate_class.a.messages_per_second: -1 is out of bounds; expected 0 to 4294967295".into(),
        ),
        (
            "[rate_class.a]\nbytes_per_second = \"1MiB\"\nbytes_burst = \"1KiB\"".into(),
            "3:15: rate_class.a.bytes_burst: bytes_burst (1KiB) must be at least limits.message_bytes (64KiB)".into(),
        ),
        (
            format!("[admin_token.unknown]\nsha256 = \"{}\"", "0".repeat(64)),
            "1:14: admin_token.unknown: \"unknown\" is what the audit calls those who have no token; choose another name".into(),
        ),
        (
            "[admin_token.loopback]".into(),
            "1:14: admin_token.loopback: \"loopback\" is what the audit calls those who have no token; choose another name".into(),
        ),
    ];
    for (text, expected) in table {
        let faults = Desk::new(&[("gateway.toml", text)]).faults();
        assert_eq!(faults, [format!("gateway.toml:{expected}")], "{text}");
    }
}

#[test]
fn faults_of_a_policy_on_the_command_line_are_told() {
    for (set, expected) in [
        ("hook.a=1", "hook.a: expected hook.NAME.key"),
        ("hook.a.uze=script:a", "hook.a.uze: unknown key; did you mean hook.a.use?"),
        (
            "hook.a.config={ x",
            "hook.a.config: starts like a list, a table or a text of TOML, but is none",
        ),
        (
            "hook.a.config=text",
            "hook.a.config: expected a table such as { key = \"value\" }, found a text",
        ),
        (
            "chain.on_route=members",
            "chain.on_route: expected [[chain.on_route]] or a list of tables such as [{ hook = \"NAME\" }]",
        ),
        (
            "chain.on_route.hook=members",
            "chain.on_route.hook: a chain is set whole: chain.on_POINT = a list of tables such as [{ hook = \"NAME\" }]",
        ),
        (r#"chain.on_route=[{ hook = "x" }]"#, "chain.on_route[0].hook: there is no [hook.x]"),
        ("plugins.a.path=", "plugins.a.path: \"\" is not accepted; expected a path"),
        (
            "plugins.A.path=x",
            "plugins.A: \"A\" is no name; expected 1 to 64 of a-z, 0-9, \"_\" and \"-\"",
        ),
    ] {
        let desk = Desk::new(&[("gateway.toml", "[hook.a]\nuse = \"script:a\"")]);
        assert_eq!(desk.set(set).faults(), [format!("--set: {expected}")], "{set}");
    }
}

#[test]
fn one_fault_of_a_hook_brings_no_others() {
    let text = "[hook.a]\nuse = \"nothing\"\n[hook.B]\nuse = \"script:b\"\n\
                [[chain.on_route]]\nhook = \"a\"\n[[chain.on_route]]\nhook = \"B\"\nbudget = \"1\"\nwarn = \"1m\"";
    let faults = Desk::new(&[("gateway.toml", text)]).faults();
    let keys: Vec<_> = faults.iter().map(|fault| fault.split(": ").nth(1).unwrap()).collect();
    assert_eq!(keys, ["hook.a.use", "hook.B", "chain.on_route[1].budget"]);
}

#[test]
fn oddities_of_a_policy_are_warned_of() {
    let text = "[hook.a]\nuse = \"script:a\"\n[hook.idle]\nuse = \"script:b\"\n\
                [[chain.on_delivered]]\nhook = \"a\"\non_error = \"closed\"\n[rate_class.x]\nmessage_burst = 1";
    assert_eq!(
        Desk::new(&[("gateway.toml", text)]).load().warnings,
        [
            "gateway.toml:8:13: rate_class.x: message_burst has no effect while messages_per_second is 0",
            "gateway.toml:7:12: chain.on_delivered[0].on_error: has no effect, since nothing is decided at this point",
            "gateway.toml:3:7: hook.idle: no chain names it, so it only starts, ticks and stops",
        ]
    );
}

#[test]
fn a_hook_shares_its_state_with_the_cluster_and_no_name_with_one_that_does_not() {
    let text = "[cluster.redis]\nurl = \"redis://127.0.0.1:6379\"\n[hook.a]\nuse = \"script:a\"\n\
                [hook.b]\nuse = \"script:b\"\nscope = \"cluster\"\nnamespace = \"a\"\n\
                [[chain.on_route]]\nhook = \"a\"\n[[chain.on_route]]\nhook = \"b\"";
    let loaded = Desk::new(&[("gateway.toml", text)]).load();
    assert_eq!(hook(&loaded, "a").scope, HookScope::Local);
    assert_eq!(hook(&loaded, "b").scope, HookScope::Cluster);
    assert_eq!(
        loaded.warnings,
        ["gateway.toml:5:7: hook.b: shares nothing with hook.a, although both have the namespace \
             \"a\": one's state is this node's, the other's the cluster's"]
    );
}

#[test]
fn secrets_of_a_hook_reach_it_and_nobody_else() {
    let text = "[hook.a]\nuse = \"script:a\"\n[hook.a.config]\nenv = \"top\"\nplain = { env = \"KEY\", other = 1 }\n\
                by_env = { env = \"KEY\" }\nby_file = { secret_file = \"key\" }\nlist = [{ env = \"KEY\" }]\n\
                [hook.a.config.long]\nsecret_file = \"key\"\n[[chain.on_route]]\nhook = \"a\"";
    let desk = Desk::new(&[("gateway.toml", text), ("key", "hunter3\n")]).env("KEY", "hunter2");
    let loaded = desk.load();
    let a = hook(&loaded, "a");
    assert_eq!(
        json!(a.config),
        json!({
            "env": "top", "plain": { "env": "KEY", "other": 1 },
            "by_env": "hunter2", "by_file": "hunter3", "list": ["hunter2"], "long": "hunter3",
        })
    );
    assert_eq!(
        json!(a.shown_config),
        json!({
            "env": "top", "plain": { "env": "KEY", "other": 1 },
            "by_env": "<secret>", "by_file": "<secret>", "list": ["<secret>"], "long": "<secret>",
        })
    );
    assert_eq!(a.files, [desk.folder.path().join("key")]);
    let shown = format!("{loaded:?}{:?}{}", a, json!(loaded.settings));
    assert!(!shown.contains("hunter"), "{shown}");

    // Overridden, a secret is not fetched.
    desk.set("hook.a.config={ x = 1 }").load();
    Desk::new(&[("gateway.toml", text)]).set("hook.a.config={ x = 1 }").load();
}

#[test]
fn secrets_of_a_hook_stay_out_of_faults() {
    for text in [
        "[hook.a]\nuse = \"script:a\"\nconfig = \"hunter2\"",
        "[hook.a]\nuse = \"script:a\"\nconfig = { x = \"hunter2\", y = nan }",
        "[hook.a]\nuse = \"script:a\"\nconfigg = { x = \"hunter2\" }",
    ] {
        let faults = Desk::new(&[("gateway.toml", text)]).faults();
        assert!(!faults.concat().contains("hunter2"), "{faults:?}");
    }
}
