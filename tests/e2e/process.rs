//! The `conexus` binary as an operator meets it: what it prints and leaves behind, how it takes
//! signals, and how it refuses what is wrong.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::Path,
    process::{ExitStatus, Output, Stdio},
};

use conexus_protocol::{AgentId, Identity, Subprotocol};
use futures_util::StreamExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    net::{TcpListener, TcpSocket},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use crate::support::{
    agent::{Agent, dial_with},
    http,
    process::signal,
    soon,
};

const ANY_PORT: [&str; 4] =
    ["--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"];

/// `conexus` with nothing of the test's own environment.
fn conexus(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conexus"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command that ends by itself.
async fn finished(folder: &Path, arguments: &[&str]) -> Output {
    soon("the command to end", conexus(folder, arguments).output()).await.unwrap()
}

/// What it printed when it succeeded.
async fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = finished(folder, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// What it said when it failed, as programs of this kind do: status 1.
async fn failed(folder: &Path, arguments: &[&str]) -> Output {
    let output = finished(folder, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A running gateway. Dropping it kills it.
struct Running {
    addr: SocketAddr,
    did: String,
    line: String,
    child: Child,
    rest: Lines<BufReader<ChildStdout>>,
    log: Lines<BufReader<ChildStderr>>,
}

impl Running {
    /// In a folder, on a free port.
    async fn start(folder: &Path, arguments: &[&str]) -> Self {
        let arguments = [arguments, &ANY_PORT].concat();
        Self::spawn(conexus(folder, &arguments)).await
    }

    /// Waits for the line that says that agents may come.
    async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let Some(line) = soon("the start", rest.next_line()).await.unwrap() else {
            let mut said = String::new();
            log.get_mut().read_to_string(&mut said).await.unwrap();
            panic!("it did not start: {said}");
        };
        let address = line.split("ws://").nth(1).unwrap().split('/').next().unwrap();
        let did = line.split(" as ").nth(1).unwrap().split(' ').next().unwrap();
        let (addr, did) = (address.parse().unwrap(), did.to_owned());
        Self { addr, did, line, child, rest, log }
    }

    /// A registered agent on `ioap.v1`.
    async fn agent(&self) -> Agent {
        self.agent_over(TcpSocket::new_v4().unwrap()).await
    }

    async fn agent_over(&self, socket: TcpSocket) -> Agent {
        let subprotocol = Subprotocol::V1;
        let (socket, _) = dial_with(self.addr, &[subprotocol.as_str()], socket).await.unwrap();
        let url = format!("ws://{}/ws", self.addr);
        let mut agent =
            Agent { identity: Identity::generate(), socket, subprotocol, nonce: None, url };
        agent.register().await;
        agent
    }

    /// Sends a signal, such as `TERM`.
    async fn signal(&self, name: &str) {
        signal(self.child.id().expect("it runs"), name).await;
    }

    /// The next line of the log with this in it.
    async fn logged(&mut self, what: &str) -> String {
        soon(what, async {
            loop {
                match self.log.next_line().await.unwrap() {
                    Some(line) if line.contains(what) => return line,
                    Some(_) => {}
                    None => panic!("it ended before it logged {what:?}"),
                }
            }
        })
        .await
    }

    async fn ended(&mut self) -> ExitStatus {
        soon("the process to end", self.child.wait()).await.unwrap()
    }

    async fn stop(mut self) {
        self.signal("TERM").await;
        assert!(self.ended().await.success());
    }
}

#[tokio::test]
async fn it_says_in_one_line_where_it_listens_and_who_it_is() {
    let folder = folder_with(&[]);
    let mut gateway = Running::start(folder.path(), &[]).await;
    assert_ne!(gateway.addr.port(), 0);
    AgentId::parse(&gateway.did).unwrap();
    let (addr, did) = (gateway.addr, &gateway.did);
    assert_eq!(gateway.line, format!("conexus listening on ws://{addr}/ws as {did} (0 hooks)"));
    for (path, status) in [("/health", "healthy"), ("/ready", "ready")] {
        let (code, body) = http::get(gateway.addr, path, &[]).await;
        assert_eq!((code, body["status"].as_str()), (200, Some(status)));
    }
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
    assert_eq!(gateway.rest.next_line().await.unwrap(), None, "nothing else is printed");
}

#[tokio::test]
async fn a_first_start_makes_a_key_and_later_ones_keep_it() {
    let folder = folder_with(&[]);
    let gateway = Running::start(folder.path(), &["run"]).await;
    let did = gateway.did.clone();
    assert_eq!(mode(&folder.path().join("conexus.key")), 0o600);
    gateway.stop().await;
    let gateway = Running::start(folder.path(), &["run"]).await;
    assert_eq!(gateway.did, did);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
}

#[tokio::test]
async fn a_signal_tells_agents_1012_and_ends_it_with_success() {
    for signal in ["TERM", "INT"] {
        let folder = folder_with(&[]);
        let mut gateway = Running::start(folder.path(), &[]).await;
        let mut agent = gateway.agent().await;
        gateway.signal(signal).await;
        let (code, reason) = agent.close().await;
        assert_eq!(code, 1012, "{signal}");
        assert!(reason.starts_with("reconnect_in="), "{reason}");
        assert!(soon("the end of the socket", agent.socket.next()).await.is_none());
        drop(agent);
        assert_eq!(gateway.ended().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let folder = folder_with(&[]);
    // With all the time in the world for an agent that takes nothing.
    let patient = ["--set", "server.drain_timeout=1h", "--set", "limits.write_timeout=1h"];
    let mut gateway = Running::start(folder.path(), &patient).await;
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(4096).unwrap();
    let (deaf, mut sender) = (gateway.agent_over(small).await, gateway.agent().await);
    let sdp = "x".repeat(60_000);
    for _ in 0..150 {
        sender.send_offer(&deaf.did(), &sdp).await;
    }
    gateway.signal("TERM").await;
    gateway.logged("a second signal stops at once").await;
    gateway.signal("INT").await;
    let status = gateway.ended().await;
    assert_eq!((status.code(), status.signal()), (Some(130), None), "128 and the signal");
}

#[tokio::test]
async fn a_configuration_file_counts_from_any_folder_and_paths_in_it_start_beside_it() {
    let folder = folder_with(&[
        ("etc/mine.toml", "[server]\nlisten = \"127.0.0.1:0\"\nidentity = \"mine.key\"\n"),
        ("etc/conf.d/10-node.toml", "[server]\nnode_id = \"ten\"\n"),
        ("elsewhere/gateway.toml", "[server]\nnode_id = \"not read\"\n"),
    ]);
    let elsewhere = folder.path().join("elsewhere");
    let file = folder.path().join("etc/mine.toml");
    let arguments = ["--config", file.to_str().unwrap(), "--set", "presence.timeout=45s"];
    let gateway = Running::spawn(conexus(&elsewhere, &arguments)).await;
    let (_, health) = http::get(gateway.addr, "/health", &[]).await;
    assert_eq!(health["node_id"], "ten");
    assert!(folder.path().join("etc/mine.key").exists());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1, "nothing is written here");

    let shown = printed(&elsewhere, &[&["config", "--json"][..], &arguments].concat()).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["presence.timeout"]["value"], "45s");
}

const BROKEN: &str = "\
[presence]
timeout = \"45\"

[limits]
conections = 7
message_bytes = \"1GiB\"
";

/// Each fault of [`BROKEN`] with its place.
fn names_every_fault(said: &str) {
    for (place, about) in [
        ("gateway.toml:2:", "presence.timeout"),
        ("gateway.toml:5:", "connections"),
        ("gateway.toml:6:", "limits.message_bytes"),
        ("--set", "log.nonsense"),
    ] {
        let named = |line: &str| line.contains(place) && line.contains(about);
        assert!(said.lines().any(named), "{place} {about} in\n{said}");
    }
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_every_fault_named() {
    let folder = folder_with(&[("gateway.toml", BROKEN)]);
    let faulty = ["--set", "log.nonsense=1"];
    for command in [&[][..], &["run"], &["config"]] {
        let output = failed(folder.path(), &[command, &faulty].concat()).await;
        assert_eq!(stdout(&output), "", "{command:?}");
        names_every_fault(&stderr(&output));
    }
    let output = failed(folder.path(), &["check", "--set", "log.nonsense=1"]).await;
    names_every_fault(&stdout(&output));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no key was made");
}

#[tokio::test]
async fn a_configuration_file_that_is_not_there_is_an_error_that_names_it() {
    let folder = folder_with(&[]);
    let output = failed(folder.path(), &["--config", "absent.toml"]).await;
    assert!(stderr(&output).contains("absent.toml"), "{}", stderr(&output));
}

#[tokio::test]
async fn check_judges_the_configuration_and_starts_nothing() {
    let folder = folder_with(&[("gateway.toml", "[presence]\ntimeout = \"45s\"\n")]);
    let shown = printed(folder.path(), &["check"]).await;
    assert!(shown.starts_with("settings are valid: 1 file, 1 of "), "{shown}");
    let open = ["check", "--set", "server.listen=0.0.0.0:8000"];
    let shown = printed(folder.path(), &open).await;
    assert!(shown.contains("warning: ") && shown.contains("public_urls"), "{shown}");
    assert!(shown.contains("hint: ") && shown.contains("connections_per_address"), "{shown}");
    let limited = [&open[..], &["--set", "limits.connections_per_address=100"]].concat();
    assert!(!printed(folder.path(), &limited).await.contains("hint: "));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no key was made");
}

#[tokio::test]
async fn check_reads_the_files_of_the_cluster_and_does_not_need_its_redis() {
    let folder = folder_with(&[("ca.pem", "no certificate")]);
    let redis = ["check", "--set", "cluster.redis.url=rediss://127.0.0.1:1"];
    printed(folder.path(), &redis).await;
    for (ca, problem) in [("absent.pem", "cannot be read"), ("ca.pem", "ca.pem: ")] {
        let ca = format!("cluster.redis.ca={ca}");
        let output = failed(folder.path(), &[&redis[..], &["--set", &ca]].concat()).await;
        let shown = stdout(&output);
        assert!(shown.contains("the cluster is of no use:\ncluster.redis.ca: "), "{shown}");
        assert!(shown.contains(problem), "{shown}");
    }
}

#[tokio::test]
async fn config_shows_what_is_in_effect_and_where_it_was_set() {
    let folder = folder_with(&[
        ("gateway.toml", "[limits]\nconnections = 1\nrate_strikes = 1\n[http]\nagents = \"off\"\n"),
        ("conf.d/10-more.toml", "[limits]\nrate_strikes = 2\n"),
    ]);
    let arguments = ["config", "--set", "presence.timeout=45s"];
    let mut command = conexus(folder.path(), &arguments);
    command.env("CONEXUS_LIMITS__OUTBOX_MESSAGES", "3").env("CONEXUS_PORT", "tcp://10.0.0.1:80");
    let output = soon("the settings", command.output()).await.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let shown = stdout(&output);
    for (setting, origin) in [
        ("connections = 1", "# gateway.toml:2:15"),
        ("rate_strikes = 2", "# conf.d/10-more.toml:2:16"),
        ("agents = \"off\"", "# gateway.toml:5:10"),
        ("outbox_messages = 3", "# environment variable CONEXUS_LIMITS__OUTBOX_MESSAGES"),
        ("timeout = \"45s\"", "# --set"),
        ("drain_timeout = \"10s\"", "# default"),
    ] {
        let stands = |line: &str| line.starts_with(setting) && line.ends_with(origin);
        assert!(shown.lines().any(stands), "{setting} {origin} in\n{shown}");
    }
}

#[tokio::test]
async fn keygen_makes_a_key_for_its_owner_alone_and_overwrites_none() {
    let folder = folder_with(&[]);
    let path = folder.path().join("agent.key");
    let made = printed(folder.path(), &["keygen", "--out", "agent.key"]).await;
    assert_eq!(mode(&path), 0o600);
    let of_file = |path: &Path| {
        let identity = Identity::from_pem(&fs::read_to_string(path).unwrap()).unwrap();
        identity.did().to_owned() + "\n"
    };
    assert_eq!(made, of_file(&path));

    let output = failed(folder.path(), &["keygen", "--out", "agent.key"]).await;
    assert!(stderr(&output).contains("agent.key exists"), "{}", stderr(&output));
    assert_eq!(made, of_file(&path));

    let newer = printed(folder.path(), &["keygen", "--out", "agent.key", "--force"]).await;
    assert_ne!(newer, made);
    assert_eq!((newer, mode(&path)), (of_file(&path), 0o600));

    let output = finished(folder.path(), &["keygen"]).await;
    let identity = Identity::from_pem(&stdout(&output)).unwrap();
    assert_eq!(stderr(&output).trim_end(), identity.did());
}

#[tokio::test]
async fn a_key_that_was_made_serves_as_the_gateways_identity() {
    let folder = folder_with(&[]);
    let made = printed(folder.path(), &["keygen", "--out", "its.key"]).await;
    let gateway = Running::start(folder.path(), &["--set", "server.identity=its.key"]).await;
    assert_eq!(gateway.did, made.trim_end());
}

#[tokio::test]
async fn agents_lists_those_of_a_running_gateway() {
    let folder = folder_with(&[]);
    let gateway = Running::start(folder.path(), &[]).await;
    let (a, b) = (gateway.agent().await, gateway.agent().await);
    let url = format!("http://{}", gateway.addr);
    let shown = printed(folder.path(), &["agents", "--url", &url]).await;
    for did in [a.did(), b.did()] {
        assert!(shown.lines().any(|line| line.starts_with(&did)), "{did} in\n{shown}");
    }
    assert!(shown.ends_with("2 of 2 agents\n"), "{shown}");
    let shown = printed(folder.path(), &["agents", "--url", &url, "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["count"], shown["agents"].as_array().unwrap().len()), (&2.into(), 2));
}

#[tokio::test]
async fn agents_of_a_gateway_that_is_not_there_are_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let folder = folder_with(&[]);
    let output = failed(folder.path(), &["agents", "--url", &format!("http://{addr}")]).await;
    assert!(stderr(&output).contains(&addr.to_string()), "{}", stderr(&output));
}

#[tokio::test]
async fn listen_answers_what_send_offers() {
    let folder = folder_with(&[]);
    let gateway = Running::start(folder.path(), &[]).await;
    let url = format!("ws://{}/ws", gateway.addr);
    let mut listening =
        conexus(folder.path(), &["listen", "--url", &url, "--answer", "yes", "--count", "1"])
            .spawn()
            .unwrap();
    let mut printing = BufReader::new(listening.stdout.take().unwrap()).lines();
    let did = soon("its DID", printing.next_line()).await.unwrap().unwrap();

    let arguments = ["send", "--url", &url, "--key", "me.key", &did, "are you there?"];
    let answer = printed(folder.path(), &arguments).await;
    assert_eq!(answer, format!("ANSWER from {did}: {{\"sdp\":\"yes\"}}\n"));
    let heard = soon("the offer", printing.next_line()).await.unwrap().unwrap();
    let me = Identity::from_pem(&fs::read_to_string(folder.path().join("me.key")).unwrap());
    let me = me.unwrap().did().to_owned();
    assert_eq!(heard, format!("OFFER from {me}: {{\"sdp\":\"are you there?\"}}"));
    assert!(soon("listen to end", listening.wait()).await.unwrap().success());

    let output = failed(folder.path(), &arguments).await;
    assert!(stderr(&output).contains("unknown_agent"), "{}", stderr(&output));
}

#[tokio::test]
async fn listen_ends_by_ctrl_c() {
    let folder = folder_with(&[]);
    let gateway = Running::start(folder.path(), &[]).await;
    let url = format!("ws://{}/ws", gateway.addr);
    let mut listening = conexus(folder.path(), &["listen", "--url", &url]).spawn().unwrap();
    let mut printing = BufReader::new(listening.stdout.take().unwrap()).lines();
    let did = soon("its DID", printing.next_line()).await.unwrap().unwrap();
    // From its first line on.
    signal(listening.id().unwrap(), "INT").await;
    assert!(soon("listen to end", listening.wait()).await.unwrap().success());

    let output = failed(folder.path(), &["send", "--url", &url, &did, "x"]).await;
    assert!(stderr(&output).contains("unknown_agent"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let folder = folder_with(&[]);
    let output = failed(folder.path(), &["--set", &format!("server.listen={addr}")]).await;
    let said = stderr(&output);
    let error = said.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert!(error.contains(&format!("cannot listen on {addr}")), "{error}");
    assert!(error.contains("in use"), "{error}");
    assert_eq!(stdout(&output), "");
}

#[tokio::test]
async fn an_identity_that_is_none_is_an_error_that_names_the_file_and_leaves_it_alone() {
    let folder = folder_with(&[("wrong.key", "no key\n")]);
    let arguments = [&ANY_PORT[..], &["--set", "server.identity=wrong.key"]].concat();
    let output = failed(folder.path(), &arguments).await;
    let said = stderr(&output);
    assert!(said.lines().any(|line| line.starts_with("error: ") && line.contains("wrong.key")));
    assert_eq!(stdout(&output), "");
    assert_eq!(fs::read_to_string(folder.path().join("wrong.key")).unwrap(), "no key\n");
}

#[tokio::test]
async fn the_json_log_tells_who_came_and_went() {
    let folder = folder_with(&[]);
    let mut gateway = Running::start(folder.path(), &["--set", "log.format=json"]).await;
    let mut agent = gateway.agent().await;
    let did = agent.did();
    agent.socket.close(None).await.unwrap();
    drop(agent);
    for message in ["agent connected", "agent disconnected"] {
        let line = gateway.logged(message).await;
        let entry: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(entry["level"], "INFO", "{line}");
        assert_eq!(entry["fields"]["message"], message, "{line}");
        assert_eq!(entry["fields"]["agent"], *did, "{line}");
    }
    gateway.signal("TERM").await;
    // Every line of it, to the last.
    let mut last = Value::Null;
    while let Some(line) = soon("the log's end", gateway.log.next_line()).await.unwrap() {
        last = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_eq!(last["fields"]["message"], "stopped");
    assert!(gateway.ended().await.success());
}
