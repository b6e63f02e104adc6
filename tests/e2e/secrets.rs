//! No secret that a gateway is given comes out of it again: not in its log at its most talkative, not
//! in any answer, file or command. Hooks fail over secrets on purpose, with words that quote them.

use std::{fs, path::Path};

use conexus_protocol::{AgentToken, Draft, Identity, Subprotocol, Timestamp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, client_async, tungstenite::client::IntoClientRequest as _,
};

use crate::{
    hooks::setup::probe_library,
    support::{
        agent::Agent,
        http,
        process::{Process, conexus, folder_with, write},
        soon,
    },
};

/// Who presents what to whom. Each is a word of its own, found wherever it stands.
const CREDENTIALS: &str = "planted-credentials-5b1d";
const ADMIN_TOKEN: &str = "planted-admin-token-9c02";
const AGENTS_TOKEN: &str = "planted-agents-token-77aa";
const ICE: &str = "planted-ice-credential-13f5";
const TURN: &str = "planted-turn-secret-b7c9";
const HOOK_ENV: &str = "planted-hook-env-e801";
const HOOK_FILE: &str = "planted-hook-file-4d4d";
const AUTHORIZATION: &str = "planted-authorization-66b9";
const COOKIE: &str = "planted-cookie-f00c";
const QUERY: &str = "planted-query-2be2";
const WRONG_TOKEN: &str = "planted-wrong-token-3e3e";
const MISTAKEN: &str = "planted-token-for-a-hash-8a8a";

const PLANTED: [&str; 12] = [
    CREDENTIALS,
    ADMIN_TOKEN,
    AGENTS_TOKEN,
    ICE,
    TURN,
    HOOK_ENV,
    HOOK_FILE,
    AUTHORIZATION,
    COOKIE,
    QUERY,
    WRONG_TOKEN,
    MISTAKEN,
];

/// As talkative as a log can be made, also by those who try.
const LEVEL: &str = "log.level=trace,tungstenite::protocol=trace,hyper::proto=trace";

const CONFIG: &str = r#"
[policy]
watch = false
breaker_errors = 2
budget = "5s"

[http]
agents = "token"
agents_token = { env = "AGENTS_TOKEN" }

[ice]
servers = [{ urls = ["turn:turn.example:3478"], username = "conexus", credential = { file = "secret/ice" } },
           { urls = ["turn:minted.example:3478"], secret = { file = "secret/turn" } }]

[telemetry]
decision_log = "decisions.jsonl"

[hook.clumsy]
use = "script:clumsy"
config = { key = { env = "HOOK_KEY" }, deep = [{ key = { secret_file = "secret/hook" } }] }

[hook.blunt]
use = "script:blunt"
config = { key = { env = "HOOK_KEY" }, deep = [{ key = { secret_file = "secret/hook" } }] }

[hook.wild]
use = "plugin:probe"
config = { act = "panic", gate = { env = "HOOK_KEY" } }

[hook.herald]
use = "script:herald"

[hook.audit]
use = "plugin:audit-log"
config = { path = "audit.jsonl" }
"#;

/// The points, and the hooks that are asked there. All of them fail, which counts for nothing.
const VERDICTS: [&str; 4] = ["on_connect", "on_register", "on_route", "on_undeliverable"];
const OBSERVERS: [&str; 3] = ["on_registered", "on_hook_error", "on_disconnect"];

/// It cannot read what it is given, and says what that was.
const CLUMSY: &str = r#"
fn on_connect(event) { parse_int(event.query_param("token")) }
fn on_register(event) { parse_int(event.credentials) }
fn on_route(event) { parse_int(config.key) }
fn on_undeliverable(event) { parse_int(config.deep[0].key) }
fn on_disconnect(event) { throw "no more of " + config.key }
"#;

const BLUNT: &str = r#"
fn on_connect(event) { throw `odd: ${event.header("Authorization")} ${event.header("cookie")} ${event.query}` }
fn on_register(event) { throw #{ what: "odd", credentials: event.credentials, key: config.key } }
fn on_route(event) { redirect("did:key:" + config.key) }
fn on_undeliverable(event) { throw [config.deep, config.key] }
fn on_registered(event) { throw `told with ${config.deep[0].key}` }
"#;

/// It tells on the others.
const HERALD: &str = r#"
fn on_hook_error(event) { log("warn", `${event.hook} at ${event.point}: ${event.message}`) }
"#;

fn config() -> String {
    let hash = hash(ADMIN_TOKEN);
    let mut config =
        format!("[admin_token.ops]\nsha256 = \"{hash}\"\nscope = \"operate\"\n{CONFIG}");
    for point in VERDICTS {
        for hook in ["clumsy", "blunt", "wild"] {
            config += &format!("[[chain.{point}]]\nhook = \"{hook}\"\non_error = \"open\"\n");
        }
    }
    for point in OBSERVERS {
        config += &format!("[[chain.{point}]]\nhook = \"audit\"\n");
    }
    config += "[[chain.on_hook_error]]\nhook = \"herald\"\n";
    config +=
        "[[chain.on_registered]]\nhook = \"blunt\"\n[[chain.on_disconnect]]\nhook = \"clumsy\"\n";
    config += &format!("[plugins.probe]\npath = {:?}\n", probe_library());
    config
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gateway with all of it, and everything that was got out of it so far, by where it came from.
struct Planted {
    folder: TempDir,
    gateway: Process,
    found: Vec<(String, String)>,
    /// What agents alone were told: credentials that were made for them, and what they asked with.
    minted: Vec<String>,
}

impl Planted {
    async fn start() -> Self {
        let folder = folder_with(&[
            ("gateway.toml", &config()),
            ("secret/ice", ICE),
            ("secret/turn", TURN),
            ("secret/hook", HOOK_FILE),
            ("scripts/clumsy.rhai", CLUMSY),
            ("scripts/blunt.rhai", BLUNT),
            ("scripts/herald.rhai", HERALD),
        ]);
        let gateway = Process::spawn(command(folder.path(), &["--set", LEVEL])).await;
        Self { folder, gateway, found: Vec::new(), minted: Vec::new() }
    }

    fn keep(&mut self, from: impl Into<String>, text: impl Into<String>) {
        self.found.push((from.into(), text.into()));
    }

    /// Anything of a GET on the admin listener, its head included.
    async fn admin(&mut self, path: &str) -> (u16, Value) {
        let (status, body) = self.admin_text(path).await;
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    async fn admin_text(&mut self, path: &str) -> (u16, String) {
        let token = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("Authorization", token.as_str())];
        let (status, head, body) = http::get_raw(self.gateway.admin, path, &headers).await;
        self.keep(format!("GET {path}"), format!("{head}\n{body}"));
        (status, body)
    }

    async fn operate(&mut self, method: &str, path: &str, body: &str) -> u16 {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = soon("an answer", async {
            let mut stream = TcpStream::connect(self.gateway.admin).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        })
        .await;
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        self.keep(format!("{method} {path}"), answer);
        status
    }

    /// What a command prints, however it ends.
    async fn command(&mut self, arguments: &[&str]) {
        let output =
            soon("a command", command(self.folder.path(), arguments).output()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.keep(
            format!("conexus {arguments:?}"),
            [text(&output.stdout), text(&output.stderr)].concat(),
        );
    }

    /// Follows an agent by `conexus trace`, and keeps what that prints and records.
    async fn follow(&mut self, agent: &mut Agent) {
        let (did, admin) = (agent.did(), format!("http://{}", self.gateway.admin));
        let arguments = ["trace", &did, "--admin", &admin, "--record", "trace.jsonl"];
        let mut child = command(self.folder.path(), &arguments).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        soon("it to follow", err.read_line(&mut said)).await.unwrap();
        agent.send_offer(&did, "followed").await;
        agent.text().await;
        soon("a line", out.read_line(&mut said)).await.unwrap();
        assert!(said.contains("OFFER"), "{said}");
        child.start_kill().unwrap();
        soon("its end", child.wait()).await.unwrap();
        err.read_to_string(&mut said).await.unwrap();
        out.read_to_string(&mut said).await.unwrap();
        self.keep("conexus trace", said);
        self.command(&["trace", "--diagram", "trace.jsonl"]).await;
    }

    /// An agent that presents everything that it has.
    async fn agent(&mut self) -> Agent {
        let addr = self.gateway.addr;
        let url = format!("ws://{addr}/ws?token={QUERY}");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in [
            ("Sec-WebSocket-Protocol", "ioap.v1.1".to_owned()),
            ("Authorization", format!("Bearer {AUTHORIZATION}")),
            ("Cookie", format!("theme=dark; sid={COOKIE}")),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(addr).await.unwrap();
        let stream = MaybeTlsStream::Plain(stream);
        let (socket, response) = soon("the upgrade", client_async(request, stream)).await.unwrap();
        self.keep("the upgrade", format!("{response:?}"));
        let identity = Identity::generate();
        let url = format!("ws://{addr}/ws");
        let subprotocol = Subprotocol::V1_1;
        let mut agent = Agent { identity, socket, subprotocol, nonce: None, url };
        let challenge = agent.text().await;
        let value: Value = serde_json::from_str(&challenge).unwrap();
        agent.nonce = Some(value["payload"]["nonce"].as_str().unwrap().to_owned());
        self.keep("CHALLENGE", challenge);
        self.register(&mut agent).await;
        agent
    }

    async fn register(&mut self, agent: &mut Agent) {
        let mut register = agent.registration();
        register.credentials = Some(CREDENTIALS.into());
        agent.send(Draft::new(agent.did(), register).sign(&agent.identity)).await;
        let welcome = agent.text().await;
        // The one message that is meant to have one.
        assert!(welcome.contains(r#""type":"REGISTERED""#) && welcome.contains(ICE), "{welcome}");
        let said: Value = serde_json::from_str(&welcome).unwrap();
        let rest = self.take_minted(&said["payload"]["ice_servers"], welcome.replace(ICE, ""));
        self.keep("REGISTERED", rest);
        self.ask_for_servers(agent).await;
    }

    /// Notes what was made for the agent; the text without it.
    fn take_minted(&mut self, servers: &Value, text: String) -> String {
        let credential = servers[1]["credential"].as_str().unwrap().to_owned();
        let rest = text.replace(&credential, "");
        self.minted.push(credential);
        rest
    }

    /// `GET /ice`, by the agent and by somebody whose token is worth nothing.
    async fn ask_for_servers(&mut self, agent: &Agent) {
        let now = Timestamp::now();
        let minute = std::time::Duration::from_secs(60);
        for url in [agent.url.as_str(), "wss://other.example/ws"] {
            let token = AgentToken::sign(&agent.identity, url, now, minute);
            let bearer = format!("Bearer {token}");
            let headers = [("Authorization", bearer.as_str())];
            let (status, head, body) = http::get_raw(self.gateway.addr, "/ice", &headers).await;
            let said: Value = serde_json::from_str(&body).unwrap();
            let body = match status {
                200 => self.take_minted(&said["ice_servers"], body.replace(ICE, "")),
                _ => body,
            };
            self.keep("GET /ice", [head, body].concat());
            self.minted.push(token);
        }
        let wrong = format!("Bearer {WRONG_TOKEN}");
        let headers = [("Authorization", wrong.as_str())];
        let (status, head, body) = http::get_raw(self.gateway.addr, "/ice", &headers).await;
        assert_eq!(status, 401);
        self.keep("GET /ice", [head, body].concat());
    }

    /// Whatever there is to read, with an agent's name where one is asked for.
    async fn read_everything(&mut self, did: &str) {
        let (status, api) = self.admin("/api/v1/openapi.json").await;
        assert_eq!(status, 200);
        let paths = api["paths"].as_object().unwrap().clone();
        let mut read = 0;
        for (path, item) in paths {
            if item.get("get").is_none() || path == "/events" {
                continue;
            }
            let (status, _) = self.admin(&path.replace("{did}", did)).await;
            assert_eq!(status, 200, "{path}");
            read += 1;
        }
        assert!(read > 8, "{read} routes");
        let (_, page) = self.admin_text("/").await;
        for file in
            page.split(['"', '\'']).filter(|part| part.starts_with('/') || part.contains(".js"))
        {
            self.admin(&format!("/{}", file.trim_start_matches(['.', '/']))).await;
        }
        self.admin(&format!("/api/v1/overview?token={QUERY}")).await;
        let admin = self.gateway.admin;
        for (name, value) in
            [("Authorization", format!("Bearer {WRONG_TOKEN}")), ("Cookie", COOKIE.to_owned())]
        {
            let answer = http::get_raw(admin, "/api/v1/agents", &[(name, value.as_str())]).await;
            assert_eq!(answer.0, 401);
            self.keep("a wrong token", [answer.1, answer.2].concat());
        }
        let bearer = format!("Bearer {AGENTS_TOKEN}");
        for path in ["/health", "/ready", "/agents", "/nothing?a=b"] {
            let headers = [("Authorization", bearer.as_str())];
            let (_, head, body) = http::get_raw(self.gateway.addr, path, &headers).await;
            self.keep(path, [head, body].concat());
        }
    }

    /// Reloads that are refused, for mistakes that are easily made with secrets.
    async fn refuse_reloads(&mut self) {
        let (file, good) = (self.folder.path().join("gateway.toml"), config());
        let script = self.folder.path().join("scripts/broken.rhai");
        write(&script, "const PORT = parse_int(config.key);\nfn on_route(event) {}\n");
        let hook = |name: &str, rest: &str| format!("{good}\n[hook.{name}]\n{rest}\n");
        let faulty = [
            hook("broken", "use = \"script:broken\"\nconfig = { key = { env = \"HOOK_KEY\" } }"),
            hook(
                "broken",
                "use = \"plugin:probe\"\n\
                 config = { act = \"pass\", busy_ms = { secret_file = \"secret/hook\" } }",
            ),
            hook("broken", "use = \"plugin:probe\"\nconfig = { act = { env = \"HOOK_KEY\" } }"),
            format!("{good}\n[admin_token.other]\nsha256 = \"{MISTAKEN}\"\n"),
            good.replace("agents_token = {", &format!("agents_token = \"{AGENTS_TOKEN}\" {{")),
            good.replace(
                "agents_token = { env",
                &format!("agents_token = {{ {AGENTS_TOKEN} = 1, env"),
            ),
            good.replace("secret = {", &format!("secret = \"{TURN}\" {{")),
            good.replace("secret = {", &format!("username = \"u\", secret = \"{TURN}\", x = {{")),
            good.replace(
                "servers = [{",
                &format!("servers = [{{ credential = 7, password = \"{ICE}\", "),
            ),
        ];
        for text in faulty {
            assert_ne!(text, good);
            write(&file, &text);
            assert_eq!(self.operate("POST", "/api/v1/reload", "").await, 409, "{text}");
            self.gateway.signal("HUP").await;
            self.command(&["check"]).await;
            self.command(&["config"]).await;
            self.admin("/api/v1/hooks").await;
            self.admin("/api/v1/overview").await;
        }
        write(&file, &good);
        assert_eq!(self.operate("POST", "/api/v1/reload", "").await, 200);
    }

    /// Stops it; nothing of all that has a secret in it.
    async fn search(mut self) {
        let log = self.gateway.last_words().await;
        assert!(log.iter().any(|line| line.contains("TRACE")), "the log is at its most talkative");
        for hook in ["clumsy", "blunt", "wild"] {
            let failed = |line: &&String| line.contains("hook failed") && line.contains(hook);
            assert!(log.iter().any(|line| failed(&line)), "{hook} has failed");
        }
        self.keep("the log", log.join("\n"));
        let mut files = Vec::new();
        files_in(self.folder.path(), &mut files);
        for name in ["decisions.jsonl", "audit.jsonl"] {
            assert!(files.iter().any(|(path, text)| path.ends_with(name) && !text.is_empty()));
        }
        // What was put there by hand.
        let ours = |path: &str| path.contains("/secret/") || path.ends_with("gateway.toml");
        self.found.extend(files.into_iter().filter(|(path, _)| !ours(path)));
        let hash = hash(ADMIN_TOKEN);
        let mut leaks = Vec::new();
        for (from, text) in &self.found {
            let minted = self.minted.iter().map(String::as_str);
            for secret in PLANTED.into_iter().chain([hash.as_str()]).chain(minted) {
                for line in text.lines().filter(|line| line.contains(secret)) {
                    leaks.push(format!("{secret} from {from}: {line}"));
                }
            }
        }
        leaks.dedup();
        assert!(
            leaks.is_empty(),
            "{} leaks, such as {:#?}",
            leaks.len(),
            &leaks[..leaks.len().min(12)]
        );
    }
}

/// `conexus` with the secrets of its environment.
fn command(folder: &Path, arguments: &[&str]) -> tokio::process::Command {
    let ports = ["--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"];
    let mut command = conexus(folder, &[&ports[..], arguments].concat());
    command
        .env("AGENTS_TOKEN", AGENTS_TOKEN)
        .env("HOOK_KEY", HOOK_ENV)
        .env("CONEXUS_ADMIN_TOKEN", ADMIN_TOKEN);
    command
}

/// Every file below a folder, as text.
fn files_in(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_in(&path, found);
        } else {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.push((path.display().to_string(), text));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_comes_out_of_a_gateway_whatever_fails() {
    let mut planted = Planted::start().await;
    let events = Watched::open(planted.gateway.admin).await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        let mut agent = planted.agent().await;
        planted.register(&mut agent).await;
        agents.push(agent);
    }
    let [a, b, _] = &mut agents[..] else { panic!("three agents") };
    a.send_offer(&b.did(), "x").await;
    let text = b.text().await;
    planted.keep("a message", text);
    a.send_offer(Identity::generate().did(), "x").await;
    let text = a.text().await;
    planted.keep("a refusal", text);
    let did = a.did();
    planted.read_everything(&did).await;
    planted.operate("POST", &format!("/api/v1/agents/{}/disconnect", b.did()), "{}").await;
    let ban = format!(r#"{{"did":"{}","seconds":60}}"#, b.did());
    planted.operate("POST", "/api/v1/bans", &ban).await;
    planted.operate("PUT", "/api/v1/log", r#"{"level":"trace"}"#).await;
    planted.operate("PUT", "/api/v1/log", r#"{"level":"trace,tungstenite=trace"}"#).await;

    planted.follow(a).await;

    planted.refuse_reloads().await;
    // Whatever is said about a message after all of that.
    a.send_offer(&did, "x").await;
    a.text().await;
    let admin = format!("http://{}", planted.gateway.admin);
    let public = format!("http://{}", planted.gateway.addr);
    planted.command(&["config"]).await;
    planted.command(&["config", "--json"]).await;
    planted.command(&["hooks", "--admin", &admin]).await;
    planted.command(&["hooks", "--json", "--admin", &admin]).await;
    planted.command(&["reload", "--admin", &admin]).await;
    planted.command(&["agents", "--url", &public]).await;
    planted.command(&["check"]).await;
    planted.read_everything(&did).await;
    let seen = events.close().await;
    assert!(seen.contains(OVERVIEW), "{seen}");
    planted.keep("/events", seen);
    drop(agents);
    planted.search().await;
}

const OVERVIEW: &str = "event: overview";

/// The stream of events, of which everything is kept.
struct Watched {
    stop: tokio::sync::oneshot::Sender<()>,
    reading: tokio::task::JoinHandle<String>,
}

impl Watched {
    async fn open(admin: std::net::SocketAddr) -> Self {
        let request = format!(
            "GET /events HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(admin).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let reading = tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut stopping = false;
            // The overview comes once a second, whatever else happens.
            while !stopping || !String::from_utf8_lossy(&seen).contains(OVERVIEW) {
                tokio::select! {
                    read = stream.read_buf(&mut seen) => {
                        if read.unwrap() == 0 {
                            break;
                        }
                    }
                    _ = &mut stopped, if !stopping => stopping = true,
                }
            }
            String::from_utf8_lossy(&seen).into_owned()
        });
        Self { stop, reading }
    }

    /// What there was, an overview included.
    async fn close(self) -> String {
        let _ = self.stop.send(());
        soon("the stream of events", self.reading).await.unwrap()
    }
}
