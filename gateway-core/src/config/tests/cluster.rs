//! The sections of a cluster, one of which is within the other.

use super::*;

const URL: &str = "cluster.redis.url=redis://127.0.0.1:6379";

#[test]
fn a_section_within_another_is_set_by_every_layer_and_told_where() {
    let desk = Desk::new(&[
        (
            "gateway.toml",
            "[cluster]\nprefix = \"a\"\n[cluster.redis]\nusername = \"one\"\ntimeout = \"1s\"",
        ),
        (
            "conf.d/10.toml",
            "cluster.redis = { timeout = \"900ms\", password = { file = \"redis\" } }",
        ),
        ("conf.d/20.toml", "cluster.lease = \"6s\"\ncluster.redis.timeout = \"800ms\""),
        ("conf.d/redis", "s3cret\n"),
    ])
    .env("CONEXUS_CLUSTER__REDIS__URL", "redis://10.0.0.1:6379/2")
    .env("CONEXUS_CLUSTER__REDIS__USERNAME", "two")
    .set("cluster.redis.username=three");
    let loaded = desk.load();
    let Settings { cluster, cluster_redis: redis, .. } = &loaded.settings;
    assert_eq!((cluster.prefix.as_str(), cluster.lease), ("a", Duration::from_secs(6)));
    assert_eq!(redis.url.as_deref(), Some("redis://10.0.0.1:6379/2"));
    assert_eq!(redis.username.as_deref(), Some("three"));
    assert_eq!(redis.password.as_ref().unwrap().expose(), "s3cret");
    assert_eq!(redis.timeout, Duration::from_millis(800));
    let origin = |key: &str| loaded.origins[key].to_string();
    assert_eq!(origin("cluster.prefix"), "gateway.toml:2:10");
    assert_eq!(origin("cluster.redis.password"), "conf.d/10.toml:1:49");
    assert_eq!(origin("cluster.redis.timeout"), "conf.d/20.toml:2:25");
    assert_eq!(origin("cluster.redis.url"), "environment variable CONEXUS_CLUSTER__REDIS__URL");
    assert_eq!(origin("cluster.redis.username"), "--set");
    assert_eq!(origin("cluster.cache_age"), "default");
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

#[test]
fn a_slip_in_a_section_within_another_is_told_with_what_was_meant() {
    let table: &[(&str, &str)] = &[
        (
            "[cluster.redis]\nulr = \"redis://a\"",
            "2:1: cluster.redis.ulr: unknown key; did you mean cluster.redis.url?",
        ),
        (
            "[cluster]\nurl = \"redis://a\"",
            "2:1: cluster.url: unknown key; did you mean cluster.redis.url?",
        ),
        (
            "[cluster.reddis]\nurl = \"redis://a\"",
            "1:10: cluster.reddis: unknown section; did you mean cluster.redis?",
        ),
        ("[redis]\nurl = \"x\"", "1:2: redis: unknown section; did you mean cluster.redis?"),
        (
            "[cluster]\nredis = \"redis://a\"",
            "2:1: cluster.redis: is a section; expected [cluster.redis]",
        ),
        (
            "[cluster.redis]\nurl = 1",
            "2:7: cluster.redis.url: expected a URL such as \"redis://127.0.0.1:6379\", found a number",
        ),
        (
            "[cluster.redis]\nurl = \"http://a\"",
            "2:7: cluster.redis.url: \"http://a\" has the scheme \"http\"; expected \"redis://HOST:PORT\" or \"rediss://HOST:PORT\"",
        ),
        (
            "[cluster.redis]\nurl = \"redis://a/x\"",
            "2:7: cluster.redis.url: \"redis://a/x\": \"x\" is no number of a database",
        ),
    ];
    for (text, expected) in table {
        let faults = Desk::new(&[("gateway.toml", text)]).faults();
        assert_eq!(faults, [format!("gateway.toml:{expected}")], "{text}");
    }
    let faults = Desk::new(&[]).env("CONEXUS_CLUSTER__REDIS__ULR", "x").set("cluster.redis=x");
    assert_eq!(
        faults.faults(),
        [
            "environment variable CONEXUS_CLUSTER__REDIS__ULR: cluster.redis.ulr: unknown key; did you mean cluster.redis.url?",
            "--set: cluster.redis: is a section; expected [cluster.redis]",
        ]
    );
}

#[test]
fn a_password_in_the_url_is_refused_and_not_told() {
    let faults = Desk::new(&[]).set("cluster.redis.url=redis://me:hunter2@a:6379").faults();
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert!(fault.contains("cluster.redis.username and cluster.redis.password"), "{fault}");
    assert!(!fault.contains("hunter2"));
}

#[test]
fn a_prefix_has_nothing_in_it_that_redis_takes_for_more_than_a_letter() {
    for right in ["conexus", "a", "team.eu-1:conexus_2"] {
        assert_eq!(
            Desk::new(&[])
                .set(URL)
                .set(&format!("cluster.prefix={right}"))
                .load()
                .settings
                .cluster
                .prefix,
            right
        );
    }
    for wrong in ["", "a b", "{a}", "a*", "a\tb", "ü", &"a".repeat(65)] {
        let desk = Desk::new(&[("gateway.toml", &format!("[cluster]\nprefix = {wrong:?}"))]);
        let faults = desk.faults();
        assert!(faults[0].contains("2:10: cluster.prefix: "), "{faults:?}");
        assert!(faults[0].contains("expected 1 to 64 of A-Z"), "{faults:?}");
    }
}

#[test]
fn one_slow_answer_must_not_cost_the_lease() {
    let of = |set: &[&str]| set.iter().fold(Desk::new(&[]).set(URL), |desk, set| desk.set(set));
    assert_eq!(
        of(&["cluster.lease=3s"]).faults(),
        [
            "--set: cluster.lease: cluster.redis.timeout (1s) must be less than a third of cluster.lease (3s)"
        ]
    );
    of(&["cluster.lease=3s", "cluster.redis.timeout=999ms"]).load();
    // Alone it has no lease to lose, which is warned of.
    let alone = Desk::new(&[]).set("cluster.lease=3s").load();
    assert_eq!(alone.warnings, ["cluster.lease has no effect without cluster.redis.url"]);
    let large = of(&["limits.message_bytes=1MiB", "cluster.queue_bytes=512KiB"]);
    assert_eq!(
        large.faults(),
        [
            "--set: cluster.queue_bytes: cluster.queue_bytes (512KiB) must be at least limits.message_bytes (1MiB)"
        ]
    );
}

#[test]
fn what_has_no_effect_or_goes_in_the_clear_is_warned_of() {
    let warned = |set: &[&str]| {
        let desk = set.iter().fold(Desk::new(&[]), |desk, set| desk.set(set));
        desk.load().warnings
    };
    assert!(warned(&[]).is_empty() && warned(&[URL]).is_empty());
    assert_eq!(
        warned(&["cluster.prefix=x", "cluster.redis.password=hunter2", "cluster.cache_age=5s"]),
        [
            "cluster.prefix has no effect without cluster.redis.url",
            "cluster.redis.password has no effect without cluster.redis.url",
        ]
    );
    for quiet in
        ["redis://localhost", "redis://[::1]:7000", "redis://127.0.0.2/1", "rediss://redis.example"]
    {
        assert!(warned(&[&format!("cluster.redis.url={quiet}")]).is_empty(), "{quiet}");
    }
    let [warning] = &warned(&["cluster.redis.url=redis://redis:6379"])[..] else { panic!() };
    assert!(warning.starts_with("NO TLS: cluster.redis.url (redis://redis:6379)"), "{warning}");
}

#[test]
fn what_nodes_need_in_common_is_hinted_at() {
    let hints = |desk: Desk| hints(&desk.load().settings);
    assert!(hints(Desk::new(&[])).is_empty());
    let named =
        Desk::new(&[]).set(URL).set("server.node_id=a").set(r#"server.public_urls=["wss://a/ws"]"#);
    let [common] = &hints(named)[..] else { panic!() };
    assert!(common.contains("server.public_urls (wss://a/ws)"), "{common}");
    let [_, unnamed] = &hints(Desk::new(&[]).set(URL))[..] else { panic!() };
    assert!(unnamed.starts_with("server.node_id is not set"), "{unnamed}");
}

#[test]
fn what_does_not_go_with_the_kind_of_redis_is_told() {
    let table: &[(&[&str], &str)] = &[
        (
            &["mode=sentinel"],
            "cluster.redis.mode = \"sentinel\" needs cluster.redis.sentinel_master",
        ),
        (
            &["mode=cluster", "url=redis://127.0.0.1:6379/2"],
            "cluster.redis.url names a database, but a Redis Cluster has none but 0",
        ),
        (&["certificate=a.pem"], "cluster.redis.certificate needs cluster.redis.key"),
        (&["key=a.pem"], "cluster.redis.key needs cluster.redis.certificate"),
    ];
    for (set, expected) in table {
        let desk =
            set.iter().fold(Desk::new(&[]), |desk, set| desk.set(&format!("cluster.redis.{set}")));
        let faults = desk.faults();
        assert!(faults.len() == 1 && faults[0].ends_with(expected), "{faults:?}");
    }
    for wrong in ["redis-2.example", "redis-2.example:x", "redis://redis-2:6379", "a:1/2", "u@a:1"]
    {
        let text = format!("[cluster.redis]\nseeds = [\"127.0.0.1:6379\", \"[::1]:1\", {wrong:?}]");
        let faults = Desk::new(&[("gateway.toml", &text)]).faults();
        assert!(faults.len() == 1 && faults[0].contains("no host with a port"), "{faults:?}");
    }
}

#[test]
fn what_has_no_effect_with_the_kind_of_redis_is_told() {
    let warned = |set: &[&str]| {
        let url = Desk::new(&[]).set(URL);
        let desk = set.iter().fold(url, |desk, set| desk.set(&format!("cluster.redis.{set}")));
        desk.load().warnings
    };
    assert!(warned(&["mode=sentinel", "sentinel_master=m", "sentinel_username=u"]).is_empty());
    assert!(warned(&["mode=cluster"]).is_empty());
    for set in [
        ["sentinel_master=m", "mode=single"],
        ["sentinel_password=p", "mode=cluster"],
        ["ca=a.pem", "mode=single"],
        ["server_name=redis.example", "mode=single"],
    ] {
        let warnings = warned(&set);
        assert!(warnings.len() == 1 && warnings[0].contains("has no effect"), "{warnings:?}");
    }
}
