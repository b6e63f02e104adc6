//! STUN and TURN servers for agents: credentials minted for each, at REGISTERED and at `GET /ice`, that
//! a real TURN server takes.

pub(crate) mod coturn;
mod outcomes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_client::{Client, HttpError, Metadata};
use conexus_gateway::{
    config::{Activity, IceServerSettings, Secret, Settings},
    hooks::{Decision, Fixed, Judge},
    ice::TurnCredential,
};
use conexus_plugin_api::{Point, host::Expire};
use conexus_protocol::{AgentToken, IceServer, Identity, Subprotocol, Timestamp};
use serde_json::Value;

use self::coturn::Coturn;
use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    http,
    process::{Process, folder_with, post, run, write},
    scrape::Scrape,
    soon, until,
};

const MINUTE: Duration = Duration::from_secs(60);

fn turn(urls: &[&str], secret: &str) -> IceServerSettings {
    let urls = urls.iter().map(|&url| url.into()).collect();
    let secret = Some(Secret::new(secret));
    IceServerSettings { urls, username: None, credential: None, secret }
}

/// With one TURN server, which shares a secret.
fn shared(settings: &mut Settings) {
    settings.ice.servers = vec![turn(&["turn:turn.example:3478"], "north")];
}

/// A token of an agent's own for the gateway that it has dialed.
fn token(agent: &Agent) -> String {
    AgentToken::sign(&agent.identity, &agent.url, Timestamp::now(), MINUTE)
}

/// `GET /ice` with a token: status, head, body.
async fn ask(addr: std::net::SocketAddr, token: &str) -> (u16, String, Value) {
    let bearer = format!("Bearer {token}");
    let (status, head, body) =
        http::get_raw(addr, "/ice", &[("Authorization", bearer.as_str())]).await;
    assert!(head.to_ascii_lowercase().contains("cache-control: no-store"), "{head}");
    (status, head, serde_json::from_str(&body).unwrap())
}

/// Whether a server's entry is what the secret makes for this agent; when that expires.
fn expiry(server: &IceServer, secret: &str, agent: &Agent) -> i64 {
    let username = server.username.as_deref().unwrap();
    let (expires, user) = username.split_once(':').unwrap();
    assert_eq!(user, agent.identity.key().did());
    let expires = expires.parse().unwrap();
    let minted = TurnCredential::mint(&Secret::new(secret), user, expires);
    assert_eq!(server.credential.as_deref(), Some(minted.password.as_str()));
    expires
}

fn seconds() -> i64 {
    Timestamp::now().as_unix_millis() / 1000
}

#[tokio::test]
async fn relay_only_ice_goes_through_a_real_turn_server_with_minted_credentials() {
    let turn_server = Coturn::start("north").await;
    let url = turn_server.url();
    let gateway = TestGateway::start_with(|s| s.ice.servers = vec![turn(&[&url], "north")]).await;
    // One agent has it from REGISTERED, the other one by asking.
    let mut first = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let told = first.register().await.unwrap().ice_servers;
    let second = Agent::v1(&gateway).await;
    let (status, _, body) = ask(gateway.addr, &token(&second)).await;
    assert_eq!(status, 200, "{body}");
    let asked: Vec<IceServer> = serde_json::from_value(body["ice_servers"].clone()).unwrap();
    assert_eq!((&*told[0].urls, &*asked[0].urls), (&[url.clone()][..], &[url][..]));

    let credential = |server: &IceServer| {
        let (username, password) = (server.username.clone(), server.credential.clone());
        (username.unwrap(), password.unwrap())
    };
    let relayed = turn_server.relay([credential(&told[0]), credential(&asked[0])]).await;
    assert_eq!(relayed["pair"], "relay relay", "{relayed}");
    assert_eq!(relayed["heard"], serde_json::json!(["from a", "from b"]), "{relayed}");
}

#[tokio::test]
async fn a_turn_server_refuses_what_has_expired_or_another_secret_made() {
    let turn_server = Coturn::start("north").await;
    let user = Identity::generate().did().to_owned();
    let mint = |secret: &str, expires| {
        let TurnCredential { username, password } =
            TurnCredential::mint(&Secret::new(secret), &user, expires);
        (username, password)
    };
    let soon = seconds() + 60;
    for (what, credential) in
        [("expired", mint("north", seconds() - 1)), ("of another secret", mint("south", soon))]
    {
        let answer = turn_server.relay([credential.clone(), credential]).await;
        assert_eq!(answer, serde_json::json!({ "refused": 401 }), "{what}");
    }
    let good = mint("north", soon);
    assert_eq!(turn_server.relay([good.clone(), good]).await["pair"], "relay relay");
}

#[tokio::test]
async fn registered_and_each_renewal_carry_credentials_of_the_agents_own() {
    let gateway = TestGateway::start_with(|s| {
        shared(s);
        s.ice.credential_ttl = 10 * MINUTE;
        let plain = |url: &str| IceServerSettings { secret: None, ..turn(&[url], "") };
        s.ice.servers.push(plain("stun:stun.example"));
    })
    .await;
    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let began = seconds();
    for _ in 0..2 {
        let servers = agent.register().await.unwrap().ice_servers;
        let expires = expiry(&servers[0], "north", &agent);
        assert!((began + 600..=seconds() + 600).contains(&expires), "{expires}");
        assert_eq!((&servers[1].username, &servers[1].credential), (&None, &None));
    }
}

#[tokio::test]
async fn a_registered_agent_is_told_the_servers_over_http_and_until_when() {
    let gateway = TestGateway::start_with(shared).await;
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let agent = Agent::registered(&gateway, subprotocol).await;
        let (status, _, body) = ask(gateway.addr, &token(&agent)).await;
        assert_eq!((status, body["ttl_seconds"].as_u64()), (200, Some(3600)), "{body}");
        let servers: Vec<IceServer> = serde_json::from_value(body["ice_servers"].clone()).unwrap();
        let expires = expiry(&servers[0], "north", &agent);
        let at = Timestamp::parse(body["expires_at"].as_str().unwrap()).unwrap();
        assert_eq!(at.as_unix_millis(), expires * 1000);
    }
    let plain = TestGateway::start().await;
    let agent = Agent::v1_1(&plain).await;
    let (status, _, body) = ask(plain.addr, &token(&agent)).await;
    let nothing = serde_json::json!({ "ice_servers": [], "ttl_seconds": null, "expires_at": null });
    assert_eq!((status, body), (200, nothing), "there are none");
}

#[tokio::test]
async fn nobody_but_a_registered_agent_is_told_anything() {
    let gateway = TestGateway::start_with(shared).await;
    let agent = Agent::v1_1(&gateway).await;
    let (url, now) = (agent.url.clone(), Timestamp::now());
    let (me, url) = (&agent.identity, url.as_str());
    let at = |seconds: i64| Timestamp::from_unix_millis(now.as_unix_millis() + seconds * 1000);
    let sign = AgentToken::sign;
    let good = sign(me, url, now, MINUTE);
    let stranger = Identity::generate();
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0"; // {"alg":"none"}
    for (what, token, expected) in [
        ("for another gateway", sign(me, "wss://other.example/ws", now, MINUTE), 401),
        ("for another port", sign(me, "ws://127.0.0.1:1/ws", now, MINUTE), 401),
        ("too old", sign(me, url, at(-130), MINUTE), 401),
        ("of the future", sign(me, url, at(70), MINUTE), 401),
        ("for too long", sign(me, url, now, 6 * MINUTE), 401),
        ("without a signature", format!("{head}.{claims}."), 401),
        ("with no algorithm", format!("{unsigned}.{claims}."), 401),
        ("no token", "planted".to_owned(), 401),
        ("too long", "x".repeat(5000), 401),
        ("of somebody who is not here", sign(&stranger, url, now, MINUTE), 401),
    ] {
        let (status, head, body) = ask(gateway.addr, &token).await;
        assert_eq!(status, expected, "{what}: {body}");
        assert!(body["error"].as_str().is_some_and(|error| !error.contains(&token)), "{what}");
        assert_eq!(head.to_ascii_lowercase().contains("www-authenticate"), status == 401, "{head}");
    }
    let bare = gateway.get("/ice").await;
    assert_eq!(bare.0, 401);
    let basic = [("Authorization", "Basic Zm9vOmJhcg==")];
    assert_eq!(http::get(gateway.addr, "/ice", &basic).await.0, 401);

    assert_eq!(ask(gateway.addr, &good).await.0, 200);
    drop(agent);
    gateway.has_agents(0).await;
    let gone = ask(gateway.addr, &good).await;
    assert_eq!(gone.0, 401, "it has left");
    // Nobody learns from the answer who is here.
    let here = Agent::v1_1(&gateway).await;
    let forged = good.rsplit_once('.').unwrap().1;
    let claims = sign(&here.identity, url, now, MINUTE);
    let claims = claims.rsplit_once('.').unwrap().0;
    let (status, _, body) = ask(gateway.addr, &format!("{claims}.{forged}")).await;
    assert_eq!((status, body), (401, gone.2));
}

/// Never says whether an agent whose lease ran out may stay.
struct Thinking(Arc<AtomicBool>);

impl Judge for Thinking {
    fn asks(&self, point: Point) -> bool {
        point == Point::Expire
    }

    fn on_expire(self: Arc<Self>, _: Arc<Expire>) -> Decision<Option<Duration>> {
        self.0.store(true, SeqCst);
        Decision::Later(Box::pin(std::future::pending()))
    }
}

#[tokio::test]
async fn an_agent_whose_lease_has_lapsed_is_told_nothing_though_its_socket_is_open() {
    let asked = Arc::new(AtomicBool::new(false));
    let policy = Fixed(Arc::new(Thinking(Arc::clone(&asked))));
    let gateway = TestGateway::start_with_policy(policy, |s| {
        shared(s);
        s.presence.timeout = Duration::from_millis(300);
        s.presence.activity = Activity::Messages;
        s.presence.cleanup_interval = Duration::from_secs(3600);
    })
    .await;
    let mut agent = Agent::v1_1(&gateway).await;
    let token = token(&agent);
    until("its lease to lapse", || asked.load(SeqCst)).await;
    assert_eq!(ask(gateway.addr, &token).await.0, 401);
    // Its socket is as good as ever: a sign of life and it is told again.
    agent.ping().await;
    assert_eq!(ask(gateway.addr, &token).await.0, 200);
}

#[tokio::test]
async fn an_agent_that_asks_too_often_is_told_when_to_ask_again() {
    let gateway = TestGateway::start_with(|s| {
        shared(s);
        s.ice.requests_per_minute = 2;
    })
    .await;
    let (agent, other) = (Agent::v1_1(&gateway).await, Agent::v1_1(&gateway).await);
    let token = token(&agent);
    assert_eq!(ask(gateway.addr, &token).await.0, 200);
    assert_eq!(ask(gateway.addr, &token).await.0, 200);
    let (status, head, body) = ask(gateway.addr, &token).await;
    assert_eq!(status, 429, "{body}");
    let head = head.to_ascii_lowercase();
    let wait = head.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!((1..=31).contains(&wait.parse::<u32>().unwrap()), "{head}");
    assert_eq!(ask(gateway.addr, &self::token(&other)).await.0, 200, "others may");
}

const CONFIG: &str = r#"
[[ice.servers]]
urls = ["turn:turn.example:3478"]
secret = { file = "turn" }
"#;

#[tokio::test]
async fn a_secret_is_rotated_and_a_server_added_without_a_restart() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("turn", "north\n")]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut agent = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    let servers = agent.register().await.unwrap().ice_servers;
    expiry(&servers[0], "north", &agent);

    // The file of the secret alone has changed, and is watched.
    write(&folder.path().join("turn"), "south\n");
    gateway.logged("generation=2").await;
    let headers = [("Host", "localhost")];
    assert_eq!(post(gateway.admin, "/api/v1/reload", &headers).await.0, 200);
    let servers = agent.register().await.unwrap().ice_servers;
    expiry(&servers[0], "south", &agent);

    write(
        &folder.path().join("gateway.toml"),
        &format!("{CONFIG}\n[[ice.servers]]\nurls=[\"stun:s\"]\n"),
    );
    // A reload that was begun before has ended when this one has.
    assert_eq!(post(gateway.admin, "/api/v1/reload", &headers).await.0, 200);
    let (status, _, body) = ask(gateway.addr, &token(&agent)).await;
    assert_eq!((status, body["ice_servers"][1]["urls"][0].as_str()), (200, Some("stun:s")));

    // A reload that is refused leaves the servers alone.
    write(&folder.path().join("gateway.toml"), "[[ice.servers]]\nurls = [\"turn:x\"]\n");
    assert_eq!(post(gateway.admin, "/api/v1/reload", &headers).await.0, 409);
    let (_, _, body) = ask(gateway.addr, &token(&agent)).await;
    assert_eq!(body["ice_servers"].as_array().unwrap().len(), 2);

    let bearer = "Bearer planted";
    let (status, _, _) = http::get_raw(gateway.addr, "/ice", &[("Authorization", bearer)]).await;
    assert_eq!(status, 401);
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count("conexus_ice_credentials_minted_total", &[]), 4);
    for (outcome, count) in [("ok", 2), ("unauthenticated", 1), ("banned", 0)] {
        let labels = [("outcome", outcome)];
        assert_eq!(scrape.count("conexus_ice_requests_total", &labels), count, "{outcome}");
    }
}

#[tokio::test]
async fn a_client_has_the_newest_servers_and_asks_only_when_half_their_time_is_over() {
    let limited = |ttl: Duration| {
        TestGateway::start_with(move |s| {
            shared(s);
            s.ice.credential_ttl = ttl;
            s.ice.requests_per_minute = 1;
        })
    };
    let connect = |gateway: &TestGateway| {
        Client::builder(gateway.url(), Identity::generate()).no_reconnect().connect()
    };
    let gateway = limited(60 * MINUTE).await;
    let client = soon("the client", connect(&gateway)).await.unwrap();
    let told = client.ice_servers();
    assert_eq!(told.len(), 1);
    for _ in 0..3 {
        assert_eq!(
            soon("them", client.refresh_ice_servers()).await.unwrap(),
            told,
            "not asked for"
        );
    }

    // Over as soon as they are told.
    let gateway = limited(Duration::ZERO).await;
    let client = soon("the client", connect(&gateway)).await.unwrap();
    assert_eq!(client.ice_servers().len(), 1);
    assert_eq!(soon("them", client.refresh_ice_servers()).await.unwrap().len(), 1);
    let error = soon("a refusal", client.refresh_ice_servers()).await.unwrap_err();
    assert!(matches!(error, HttpError::Refused { status: 429, .. }), "{error:?}");
    assert!(error.to_string().contains("requests_per_minute"), "{error}");
    assert_eq!(client.ice_servers().len(), 1, "what there is stays");

    // A renewal brings newer ones, too.
    let before = client.ice_servers();
    until("the next second", || seconds().to_string() > before[0].username.clone().unwrap()).await;
    soon("a renewal", client.update_metadata(Metadata::default())).await.unwrap();
    assert_ne!(client.ice_servers(), before);
    assert!(!format!("{:?}", client.session()).contains(&before[0].credential.clone().unwrap()));
}

#[tokio::test]
async fn a_client_on_v1_is_told_when_it_asks() {
    let gateway = TestGateway::start_with(|s| {
        shared(s);
        // Beyond loopback and without a name, the newer protocol is not offered.
        s.server.listen = ([0, 0, 0, 0], 0).into();
    })
    .await;
    let url = format!("ws://127.0.0.1:{}/ws", gateway.addr.port());
    let connecting = Client::builder(url, Identity::generate()).no_reconnect().connect();
    let client = soon("the client", connecting).await.unwrap();
    assert_eq!(client.session().unwrap().subprotocol, Subprotocol::V1);
    soon("a pong", client.ping()).await.unwrap();
    assert!(client.ice_servers().is_empty());
    let servers = soon("them", client.refresh_ice_servers()).await.unwrap();
    assert_eq!((servers.len(), client.ice_servers()), (1, servers));
}

#[tokio::test]
async fn the_command_prints_what_an_agent_is_told() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("turn", "north\n")]);
    let gateway = Process::start(folder.path(), &[]).await;
    let url = format!("ws://{}/ws", gateway.addr);
    let plain = run(folder.path(), &["ice", "--url", &url, "--key", "me.key"]).await;
    assert_eq!(plain.code, Some(0), "{}", plain.err);
    assert!(plain.out.starts_with("turn:turn.example:3478\n  username: "), "{}", plain.out);
    let json = run(folder.path(), &["ice", "--url", &url, "--key", "me.key", "--json"]).await;
    let servers: Vec<IceServer> = serde_json::from_str(&json.out).unwrap();
    let (expires, user) = servers[0].username.as_ref().unwrap().split_once(':').unwrap();
    let minted = TurnCredential::mint(&Secret::new("north"), user, expires.parse().unwrap());
    assert_eq!(servers[0].credential, Some(minted.password));
}
