//! Loading as an operator meets it: layers, places, suggestions.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::*;

mod cluster;
mod policies;

/// A working directory with files in it.
struct Desk {
    folder: TempDir,
    sources: Sources,
}

impl Desk {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let working_dir = folder.path().to_owned();
        Self { folder, sources: Sources { working_dir, ..Sources::default() } }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.push((name.into(), value.into()));
        self
    }

    fn set(mut self, assignment: &str) -> Self {
        self.sources.set.push(assignment.into());
        self
    }

    fn load(&self) -> Loaded {
        load(&self.sources).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn faults(&self) -> Vec<String> {
        let errors = load(&self.sources).expect_err("the configuration is faulty");
        errors.to_string().lines().map(str::to_owned).collect()
    }
}

fn repository_file() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap()
}

/// The defaults as they are in a working directory.
fn defaults_in(desk: &Desk) -> Settings {
    let mut defaults = Settings::default();
    defaults.server.identity = desk.folder.path().join("conexus.key");
    defaults.scripts.path = desk.folder.path().join("scripts");
    defaults
}

/// The file with its commented-out defaults in effect.
fn uncommented(text: &str) -> String {
    let default = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(char::is_alphabetic))
            .map(str::to_owned)
    };
    text.lines().map(|line| default(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn without_any_layer_the_defaults_hold() {
    let desk = Desk::new(&[]);
    let loaded = desk.load();
    assert_eq!(loaded.settings, defaults_in(&desk));
    assert!(loaded.files.is_empty() && loaded.warnings.is_empty());
    assert!(loaded.origins.values().all(|origin| *origin == Origin::Default));
}

#[test]
fn the_file_of_the_repository_uncommented_is_exactly_the_defaults() {
    for text in [repository_file(), uncommented(&repository_file())] {
        let desk = Desk::new(&[("gateway.toml", &text)]);
        let settings = Settings { policies: Policies::default(), ..desk.load().settings };
        assert_eq!(settings, defaults_in(&desk));
    }
}

#[test]
fn the_file_of_the_repository_shows_every_key_with_its_default() {
    let text = uncommented(&repository_file());
    let desk = Desk::new(&[("gateway.toml", &text)]);
    let origins = desk.load().origins;
    let defaults = Settings::default();
    for key in KEYS {
        match defaults.toml(key) {
            Some(_) => assert_ne!(origins[key.path], Origin::Default, "{} is missing", key.path),
            None => assert!(text.contains(&format!("\n# {} = ", key.name())), "{}", key.path),
        }
    }
    for (section, _) in SECTIONS {
        assert!(text.contains(&format!("\n[{section}]\n")), "[{section}] is missing");
    }
}

#[test]
fn later_layers_win_and_leave_the_other_keys_alone() {
    let desk = Desk::new(&[
        ("gateway.toml", "[limits]\nconnections = 1\noutbox_messages = 1\nrate_strikes = 1\nmessages_per_second = 1\nmessage_burst = 1"),
        ("conf.d/20-b.toml", "[limits]\noutbox_messages = 3\nrate_strikes = 3\nmessages_per_second = 3\nmessage_burst = 3"),
        ("conf.d/10-a.toml", "[limits]\noutbox_messages = 2"),
        ("conf.d/.hidden.toml", "[limits]\nconnections = 99"),
        ("conf.d/notes.txt", "not TOML"),
    ])
    .env("CONEXUS_LIMITS__MESSAGES_PER_SECOND", "4")
    .env("CONEXUS_LIMITS__MESSAGE_BURST", "4")
    .set("limits.message_burst=5")
    .set("limits.message_burst=6");
    let loaded = desk.load();
    let limits = &loaded.settings.limits;
    assert_eq!(
        (
            limits.connections,
            limits.outbox_messages,
            limits.rate_strikes,
            limits.messages_per_second,
            limits.message_burst
        ),
        (1, 3, 3, 4, 6)
    );
    let origin = |key: &str| loaded.origins[key].to_string();
    assert_eq!(origin("limits.connections"), "gateway.toml:2:15");
    assert_eq!(origin("limits.outbox_messages"), "conf.d/20-b.toml:2:19");
    assert_eq!(
        origin("limits.messages_per_second"),
        "environment variable CONEXUS_LIMITS__MESSAGES_PER_SECOND"
    );
    assert_eq!(origin("limits.message_burst"), "--set");
    assert_eq!(origin("limits.message_bytes"), "default");
    let names: Vec<_> = loaded.files.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["gateway.toml", "10-a.toml", "20-b.toml"]);
}

#[test]
fn a_list_in_a_later_layer_replaces_the_earlier_one() {
    let desk = Desk::new(&[("gateway.toml", "[routing]\nrelay = [\"OFFER\", \"ANSWER\"]")])
        .set(r#"routing.relay=["INTENT"]"#);
    assert_eq!(desk.load().settings.routing.relay, [conexus_protocol::MessageType::Intent]);
}

#[test]
fn a_named_file_must_exist_and_brings_its_own_conf_d() {
    let mut desk = Desk::new(&[
        ("gateway.toml", "[log]\nlevel = \"warn\""),
        ("etc/other.toml", "[log]\nlevel = \"debug\""),
        ("etc/conf.d/x.toml", "[log]\nformat = \"json\""),
    ]);
    desk.sources.config = Some("etc/other.toml".into());
    let settings = desk.load().settings;
    assert_eq!((settings.log.level.as_str(), settings.log.format), ("debug", LogFormat::Json));

    desk.sources.config = Some("etc/absent.toml".into());
    let faults = desk.faults();
    assert!(faults[0].starts_with("etc/absent.toml: cannot be read: "), "{faults:?}");
}

#[test]
fn variables_without_two_underscores_are_not_settings() {
    let desk = Desk::new(&[])
        .env("CONEXUS_PORT", "tcp://10.0.0.1:8000")
        .env("CONEXUS_SERVICE_HOST", "10.0.0.1")
        .env("OTHER__KEY", "1");
    desk.load();
}

#[test]
fn environment_and_command_line_need_quotes_only_where_toml_would_mislead() {
    let desk = Desk::new(&[])
        .env("CONEXUS_SERVER__LISTEN", "[::1]:9000")
        .set("presence.timeout=45s")
        .set("server.node_id=7")
        .set("http.agents_token=true")
        .set("log.level = \"debug\"")
        .set("protocol.require_subprotocol=false")
        .set(r#"server.public_urls=["wss://gateway.example/ws"]"#);
    let settings = desk.load().settings;
    assert_eq!(settings.server.listen, "[::1]:9000".parse::<SocketAddr>().unwrap());
    assert_eq!(settings.presence.timeout, Duration::from_secs(45));
    assert_eq!(settings.server.node_id, "7");
    assert!(settings.http.agents_token.unwrap().matches("true"));
    assert_eq!(settings.log.level, "debug");
    assert!(!settings.protocol.require_subprotocol);
    assert_eq!(settings.server.public_urls[0].as_str(), "wss://gateway.example/ws");
}

#[test]
fn a_slip_in_a_table_on_the_command_line_does_not_become_the_secret() {
    let faults = Desk::new(&[]).set("http.agents_token={ file = token }").faults();
    assert_eq!(
        faults,
        ["--set: http.agents_token: starts like a list, a table or a text of TOML, but is none"]
    );
}

#[test]
fn paths_start_at_the_folder_of_the_file_that_sets_them() {
    let identity = |desk: Desk| {
        let path = desk.load().settings.server.identity;
        path.strip_prefix(desk.folder.path()).map(PathBuf::from).unwrap_or(path)
    };
    let file = "[server]\nidentity = \"keys/gateway.pem\"";
    let mut named = Desk::new(&[("etc/g.toml", file)]);
    named.sources.config = Some("etc/g.toml".into());
    assert_eq!(identity(named), PathBuf::from("etc/keys/gateway.pem"));
    let below = Desk::new(&[("conf.d/a.toml", file)]);
    assert_eq!(identity(below), PathBuf::from("conf.d/keys/gateway.pem"));
    assert_eq!(identity(Desk::new(&[]).set("server.identity=k.pem")), PathBuf::from("k.pem"));
    assert_eq!(identity(Desk::new(&[]).set("server.identity=/k.pem")), PathBuf::from("/k.pem"));
}

#[test]
fn the_folder_of_scripts_and_the_decision_log_start_beside_the_file_that_sets_them() {
    let file = "[scripts]\npath = \"policy\"\n[telemetry]\ndecision_log = \"log/decisions.jsonl\"";
    let desk = Desk::new(&[("conf.d/a.toml", file)]);
    let (settings, folder) = (desk.load().settings, desk.folder.path().join("conf.d"));
    assert_eq!(settings.scripts.path, folder.join("policy"));
    assert_eq!(settings.telemetry.decision_log, Some(folder.join("log/decisions.jsonl")));
}

#[test]
fn secrets_come_from_text_file_or_environment() {
    let with_file = Desk::new(&[
        ("conf.d/a.toml", "[http]\nagents_token = { file = \"token\" }"),
        ("conf.d/token", "from-file\n"),
    ]);
    assert!(with_file.load().settings.http.agents_token.unwrap().matches("from-file"));

    let with_env = Desk::new(&[("gateway.toml", "[http.agents_token]\nenv = \"TOKEN\"")])
        .env("TOKEN", "from-env");
    assert!(with_env.load().settings.http.agents_token.unwrap().matches("from-env"));

    // Overridden, the variable that is not set does not matter, nor do the two tables mix.
    let overridden = Desk::new(&[
        ("gateway.toml", "[http]\nagents_token = { env = \"ABSENT\" }"),
        ("token", "from-file"),
    ])
    .set("http.agents_token={ file = \"token\" }");
    assert!(overridden.load().settings.http.agents_token.unwrap().matches("from-file"));
}

#[test]
fn ice_servers_are_read_in_either_spelling() {
    let inline = "[ice]\nservers = [{ urls = [\"stun:a\"] }, { urls = [\"turn:b\"], username = \"u\", credential = { env = \"C\" } }]";
    let tables = "[[ice.servers]]\nurls = [\"stun:a\"]\n[[ice.servers]]\nurls = [\"turn:b\"]\nusername = \"u\"\ncredential = { env = \"C\" }";
    for text in [inline, tables] {
        let loaded = Desk::new(&[("gateway.toml", text)]).env("C", "s3cret").load();
        let servers = &loaded.settings.ice.servers;
        assert_eq!(servers[0].urls, ["stun:a"]);
        assert_eq!(servers[1].credential.as_ref().unwrap().expose(), "s3cret");
        assert!(!format!("{loaded:?}").contains("s3cret"));
        assert!(loaded.secret_files.is_empty());
    }
}

#[test]
fn a_secret_of_ice_servers_is_read_from_a_file_that_is_known_afterwards() {
    let text = "[[ice.servers]]\nurls = [\"stun:s\", \"turns:b\"]\nsecret = { file = \"turn\" }";
    let desk = Desk::new(&[("gateway.toml", text), ("turn", "s3cret\n")]);
    let loaded = desk.load();
    let servers = &loaded.settings.ice.servers;
    assert_eq!(servers[0].secret.as_ref().unwrap().expose(), "s3cret");
    assert!(loaded.secret_files[0].ends_with("turn") && loaded.secret_files[0].is_absolute());
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

#[test]
fn each_fault_names_its_place_and_what_is_accepted() {
    let table: &[(&str, &str)] = &[
        (
            "[limits]\n\nmesage_bytes = \"1KiB\"",
            "3:1: limits.mesage_bytes: unknown key; did you mean limits.message_bytes?",
        ),
        ("[presense]\ntimeout = \"1s\"", "1:2: presense: unknown section; did you mean presence?"),
        ("[frobnicate]\nx = 1", "1:2: frobnicate: unknown section"),
        ("[server]\nhold = \"5s\"", "2:1: server.hold: unknown key; did you mean mailbox.hold?"),
        ("listen = \"127.0.0.1:1\"", "1:1: listen: unknown key; did you mean server.listen?"),
        ("[log]\nzzzzzz = 1", "2:1: log.zzzzzz: unknown key"),
        ("log = \"debug\"", "1:1: log: is a section; expected [log]"),
        ("[server.tls]\ncert = \"x\"", "1:9: server.tls: unknown key; did you mean admin.tls?"),
        (
            "[presence]\n  timeout = 45",
            "2:13: presence.timeout: 45 has no unit; expected a duration such as \"250ms\", \"45s\", \"5m\" or \"1h\"",
        ),
        (
            "presence.timeout = \"45\"",
            "1:20: presence.timeout: \"45\" has no unit; expected a duration such as \"250ms\", \"45s\", \"5m\" or \"1h\"",
        ),
        (
            "[presence]\ntimeout = \"0s\"",
            "2:11: presence.timeout: \"0s\" is too short; expected at least \"100ms\"",
        ),
        (
            "[mailbox]\nhold = \"9999999h\"",
            "2:8: mailbox.hold: \"9999999h\" is too long; expected at most \"8760h\"",
        ),
        (
            "[limits]\nmessage_bytes = \"64KB\"",
            "2:17: limits.message_bytes: \"64KB\" has an unknown unit; expected a size such as \"512B\", \"64KiB\", \"1MiB\" or \"2GiB\"",
        ),
        (
            "[limits]\nmessage_bytes = \"1B\"",
            "2:17: limits.message_bytes: \"1B\" is out of bounds; expected \"1KiB\" to \"16MiB\"",
        ),
        (
            "[limits]\nmessage_bytes = \"17MiB\"",
            "2:17: limits.message_bytes: \"17MiB\" is out of bounds; expected \"1KiB\" to \"16MiB\"",
        ),
        (
            "[limits]\nconnections = -1",
            "2:15: limits.connections: -1 is out of bounds; expected 0 to 100000000",
        ),
        (
            "[limits]\nconnections = \"many\"",
            "2:15: limits.connections: expected a whole number, found a text",
        ),
        (
            "[limits]\nconnections = 1.5",
            "2:15: limits.connections: expected a whole number, found a fraction",
        ),
        (
            "[protocol]\nrequire_subprotocol = \"yes\"",
            "2:23: protocol.require_subprotocol: expected true or false, found a text",
        ),
        (
            "[http]\nagents = \"nobody\"",
            "2:10: http.agents: \"nobody\" is not accepted; expected \"public\", \"token\" or \"off\"",
        ),
        (
            "[server]\nlisten = \"localhost\"",
            "2:10: server.listen: \"localhost\" is not accepted; expected an IP address and a port such as \"127.0.0.1:8000\"",
        ),
        (
            "[log]\nlevel = \"inof\"",
            "2:9: log.level: \"inof\" is not accepted; expected a level such as \"info\" or a list such as \"info,conexus_gateway::session=debug\"",
        ),
        (
            "[server]\npublic_urls = [\n  \"wss://a/ws\",\n  \"http://b\",\n]",
            "4:3: server.public_urls: \"http://b\" has the scheme \"http\"; expected ws or wss",
        ),
        (
            "[server]\npublic_urls = [\"wss://a/#x\"]",
            "2:16: server.public_urls: \"wss://a/#x\" has a query or fragment; expected scheme, host and path only",
        ),
        (
            "[server]\npublic_urls = \"wss://a\"",
            "2:15: server.public_urls: expected a list of URLs such as [\"wss://gateway.example/ws\"], found a text",
        ),
        (
            "[routing]\nrelay = [\"OFFER\", \"PING\"]",
            "2:19: routing.relay: PING cannot be relayed; expected \"OFFER\", \"ANSWER\", \"ICE_CANDIDATE\", \"INTENT\", \"EXEC_REQUEST\", \"EXEC_RESPONSE\" or \"ERROR\"",
        ),
        (
            "[routing]\nrelay = [\"WATCH\"]",
            "2:10: routing.relay: WATCH cannot be relayed; expected \"OFFER\", \"ANSWER\", \"ICE_CANDIDATE\", \"INTENT\", \"EXEC_REQUEST\", \"EXEC_RESPONSE\" or \"ERROR\"",
        ),
        (
            "[routing]\nrelay = [\"offer\"]",
            "2:10: routing.relay: \"offer\" is no message type; expected \"OFFER\", \"ANSWER\", \"ICE_CANDIDATE\", \"INTENT\", \"EXEC_REQUEST\", \"EXEC_RESPONSE\" or \"ERROR\"",
        ),
        (
            "[[ice.servers]]\nurls = [\"http://x\"]",
            "2:8: ice.servers: urls: expected a list of stun:, stuns:, turn: or turns: URLs",
        ),
        (
            "[ice]\nservers = [{ urls = [\"stun:s\"] }, { urls = [\"turn:x\"], username = \"u\" }]",
            "2:35: ice.servers: turn:x needs a secret, or a username and a credential: WebRTC refuses it without",
        ),
        (
            "[ice]\nservers = [{ urls = [\"turn:x\"], secret = \"s\", username = \"u\" }]",
            "2:12: ice.servers: secret makes a credential for each agent, so there is neither a username nor a credential beside it",
        ),
        (
            "[ice]\nservers = [{ urls = [\"stun:x\"], secret = \"s\" }]",
            "2:12: ice.servers: secret is for turn: and turns: servers",
        ),
        (
            "[ice]\ncredential_ttl = \"59s\"",
            "2:18: ice.credential_ttl: \"59s\" is too short; expected at least \"1m\"",
        ),
        (
            "[hook.a]\nuse = \"script:a\"\nscope = \"clusters\"",
            "3:9: hook.a.scope: \"clusters\" is not accepted; expected \"local\" or \"cluster\"",
        ),
        (
            "[hook.a]\nuse = \"script:a\"\nscope = \"cluster\"",
            "3:9: hook.a.scope: \"cluster\" needs cluster.redis.url: this gateway is alone, so the hook's state cannot be shared, and each of its calls would fail",
        ),
        (
            "[server]\ndrain_spread = \"6s\"",
            "2:16: server.drain_spread: server.drain_spread (6s) must be at most half of server.drain_timeout (10s)",
        ),
        (
            "[presence]\nheartbeat = \"151s\"",
            "2:13: presence.heartbeat: presence.heartbeat (151s) must be at most half of presence.timeout (5m)",
        ),
        (
            "[presence]\ntimeout = \"9s\"\nheartbeat = \"5s\"",
            "3:13: presence.heartbeat: presence.heartbeat (5s) must be at most half of presence.timeout (9s)",
        ),
        (
            "[limits]\nmessage_bytes = \"2MiB\"",
            "2:17: limits.message_bytes: limits.outbox_bytes (1MiB) must be at least limits.message_bytes (2MiB)",
        ),
        (
            "[limits]\nmetadata_bytes = \"65KiB\"",
            "2:18: limits.metadata_bytes: limits.message_bytes (64KiB) must be at least limits.metadata_bytes (65KiB)",
        ),
        (
            "[mailbox]\nhold = \"5s\"\nbytes_per_agent = \"32KiB\"",
            "3:19: mailbox.bytes_per_agent: mailbox.bytes_per_agent (32KiB) must be at least limits.message_bytes (64KiB)",
        ),
        (
            "[mailbox]\ntotal_bytes = \"32KiB\"",
            "2:15: mailbox.total_bytes: mailbox.total_bytes (32KiB) must be at least mailbox.bytes_per_agent (256KiB)",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:9100\"",
            "2:10: admin.listen: admin.listen (0.0.0.0:9100) must be on loopback, such as \"127.0.0.1:9100\", unless there is an [admin_token.NAME]: whoever reaches it may change the policy",
        ),
        (
            "[http]\ndemo = true\n[server]\nlisten = \"0.0.0.0:8000\"",
            "2:8: http.demo: http.demo needs server.listen (0.0.0.0:8000) to be on loopback, such as \"127.0.0.1:8000\"",
        ),
        ("[tls]\ncertificate = \"c.pem\"", "2:15: tls.certificate: tls.certificate needs tls.key"),
        ("[tls]\nkey = \"k.pem\"", "2:7: tls.key: tls.key needs tls.certificate"),
        (
            "[tls]\nclient_auth = \"optional\"",
            "2:15: tls.client_auth: tls.client_auth needs tls.client_ca, unless it is \"off\"",
        ),
        ("[admin]\ntls = true", "2:7: admin.tls: admin.tls needs tls.certificate and tls.key"),
        (
            "[http]\nagents = \"token\"",
            "2:10: http.agents: http.agents = \"token\" needs http.agents_token",
        ),
        (
            "[http]\nagents_token = { env = \"ABSENT\" }",
            "2:16: http.agents_token: the secret's environment variable ABSENT is not set",
        ),
        ("[http]\nagents_token = \"\"", "2:16: http.agents_token: the secret is empty"),
        ("[log]\nlevel = \"info\"\nlevel = \"debug\"", "3:1: duplicate key `level` in table `log`"),
    ];
    for (text, expected) in table {
        let faults = Desk::new(&[("gateway.toml", text)]).faults();
        assert_eq!(faults, [format!("gateway.toml:{expected}")], "{text}");
    }
}

#[test]
fn every_fault_of_every_layer_is_told_at_once() {
    let desk = Desk::new(&[
        ("gateway.toml", "[presence]\ntimeout = \"45\"\n\n[limits]\nmessage_bytes = \"1MiB\"\noutbox_bytes = \"512KiB\"\nfoo = 1\n"),
        ("conf.d/bad.toml", "[log\n"),
        ("conf.d/wrong.toml", "[http]\nagents = 1\n"),
    ])
    .env("CONEXUS_PRESENCE__TIMEOT", "45s")
    .set("signatures.routed=sometimes")
    .set("nothing");
    assert_eq!(
        desk.faults(),
        [
            "gateway.toml:2:11: presence.timeout: \"45\" has no unit; expected a duration such as \"250ms\", \"45s\", \"5m\" or \"1h\"",
            "gateway.toml:7:1: limits.foo: unknown key",
            "conf.d/bad.toml:1:5: invalid table header; expected `.`, `]`",
            "conf.d/wrong.toml:2:10: http.agents: expected \"public\", \"token\" or \"off\", found a number",
            "environment variable CONEXUS_PRESENCE__TIMEOT: presence.timeot: unknown key; did you mean presence.timeout?",
            "--set: signatures.routed: \"sometimes\" is not accepted; expected \"required\", \"when_present\" or \"off\"",
            "--set: no \"=\"; expected section.key=value",
            "gateway.toml:6:16: limits.outbox_bytes: limits.outbox_bytes (512KiB) must be at least limits.message_bytes (1MiB)",
        ]
    );
}

#[test]
fn secrets_stay_out_of_faults() {
    for text in [
        "[http]\nagents_token = [\"hunter2\"]",
        "[http]\nagents_token = { file = \"x\", token = \"hunter2\" }",
        "[http]\nagents_tokn = \"hunter2\"",
        "[http]\nagents_token = \"hunter2\" x",
        "[http]\nagents_token = \"hunter2",
        "[server]\npublic_urls = [\"wss://me:hunter2@gateway.example\"]",
        "[[ice.servers]]\nurls = [\"turn:x\"]\ncredential = [\"hunter2\"]",
        "[[ice.servers]]\nurls = [\"turn:x\"]\npassword = \"hunter2\"",
        "[[ice.servers]]\nurls = [\"turn:x\"]\nsecret = [\"hunter2\"]",
        "[[ice.servers]]\nurls = [\"turn:x\"]\nsecret = \"hunter2\"\nusername = \"u\"",
    ] {
        let faults = Desk::new(&[("gateway.toml", text)]).faults();
        assert!(!faults.concat().contains("hunter2"), "{faults:?}");
    }
    for set in
        ["http.agents_token", "http.agents_token={hunter2", "http.agents_tokn=hunter2", "hunter2"]
    {
        let desk = match set.contains('=') {
            true => Desk::new(&[]).set(set),
            false => Desk::new(&[]).set(&format!("{set}hunter2")),
        };
        let faults = desk.faults();
        assert!(!faults.concat().contains("hunter2"), "{faults:?}");
    }
}

#[test]
fn oddities_are_warned_of() {
    let warned = |set: &[&str]| {
        let desk = set.iter().fold(Desk::new(&[]), |desk, set| desk.set(set));
        desk.load().warnings
    };
    assert_eq!(
        warned(&["server.listen=0.0.0.0:8000"]),
        [
            "ioap.v1.1 is not offered: server.listen (0.0.0.0:8000) is beyond loopback and server.public_urls is empty, so agents that name the URL they dialed can register from this machine alone",
            "NO TLS: server.listen (0.0.0.0:8000) is beyond loopback and there is no tls.certificate, so that whoever is on the way can read all messages and change those without a signature"
        ]
    );
    let (beyond, urls) = ("server.listen=0.0.0.0:8000", r#"server.public_urls=["wss://a/ws"]"#);
    let (certificate, key) = ("tls.certificate=c.pem", "tls.key=k.pem");
    assert_eq!(warned(&[beyond, urls]).len(), 1, "in the clear");
    assert!(warned(&[beyond, urls, certificate, key]).is_empty());
    let plain = r#"server.public_urls=["ws://a/ws"]"#;
    assert_eq!(warned(&[beyond, plain, certificate, key]).len(), 1);
    assert_eq!(warned(&["tls.min_version=1.3", "tls.client_ca=a.pem"]).len(), 2);
    assert_eq!(warned(&["tls.client_ca=a.pem", certificate, key]).len(), 1);
    assert_eq!(warned(&["http.agents_token=x"]).len(), 1);
    assert_eq!(warned(&["limits.message_burst=5"]).len(), 1);
    assert!(warned(&[r#"ice.servers=[{ urls = ["stun:x"] }]"#]).is_empty());
}

#[test]
fn every_choice_is_read_as_it_is_listed() {
    for key in KEYS {
        let kind::Kind::Choice(words) = &key.kind else { continue };
        for word in *words {
            let desk = Desk::new(&[])
                .set(&format!("{}={word}", key.path))
                .set("http.agents_token=x")
                .set("tls.client_ca=ca.pem")
                .set("cluster.redis.sentinel_master=x");
            assert_eq!(desk.load().settings.value(key), *word);
        }
    }
}

#[test]
fn a_folder_in_place_of_the_file_is_told() {
    let faults = Desk::new(&[("gateway.toml/x", "")]).faults();
    assert!(faults[0].starts_with("gateway.toml: cannot be read: "), "{faults:?}");
}
