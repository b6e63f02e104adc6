//! The typed settings and, by the same declaration, the table of keys.
//!
//! A line reads `key: type = default, kind`: the kind is what the walk over the files checks,
//! with the bounds of a single value. A key that is unset by default has an `example`, too. What ties
//! several keys together is in `rules`.
//!
//! What stands above a section or a key is the operator's documentation: `gateway.toml`,
//! `docs/configuration.md` and the JSON schema are made from it (`docs/regenerate`).

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use conexus_protocol::MessageType;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    choices::{
        Activity, AgentsAccess, ClientAuth, Compat, ForwardedHeader, LogFormat, RedisMode,
        RoutedSignatures, TlsVersion,
    },
    kind::Kind,
    origins::AllowedOrigin,
    policies::Policies,
    proxy_networks::ProxyNetwork,
    secret::Secret,
    table::{Key, section_path, sections},
    tokens::AdminTokens,
    units, urls,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

sections! {
    /// The listener and the gateway's identity.
    server: ServerSettings {
        /// Address and port to listen on; port 0 takes a free one.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)), Kind::Address;
        /// The URLs that agents dial, such as ["wss://gateway.example/ws"]. A registration on
        /// ioap.v1.1 names one of them, so that no other gateway can pass it on. While the list is
        /// empty, only loopback URLs with the listener's port count, and a listener beyond loopback
        /// does not offer ioap.v1.1.
        #[serde(with = "urls")]
        public_urls: Vec<Url> = Vec::new(), Kind::PublicUrls;
        /// The gateway's private key, a PKCS#8 PEM file that is made on first start. A relative
        /// path starts at the folder of the file that sets it; the default, at the working directory.
        identity: PathBuf = PathBuf::from("conexus.key"), Kind::Path;
        /// How this gateway calls itself to agents and in logs; "" makes a name from its identity.
        node_id: String = String::new(), Kind::Text;
        /// How long a gateway that is to stop goes on as usual while GET /ready already says no, so
        /// that load balancers notice before agents are refused (docs/lifecycle.md).
        #[serde(with = "units::duration")]
        drain_delay: Duration = Duration::ZERO, Kind::duration(Duration::ZERO);
        /// Over how long a stopping gateway closes its sessions, one after the other, while it serves
        /// the others; "0s" closes all at once. A part of drain_timeout, at most half of it.
        #[serde(with = "units::duration")]
        drain_spread: Duration = Duration::ZERO, Kind::duration(Duration::ZERO);
        /// How long a stopping gateway waits for its sessions to end, after drain_delay.
        #[serde(with = "units::duration")]
        drain_timeout: Duration = Duration::from_secs(10), Kind::duration(Duration::from_millis(100));
        /// Agents told to reconnect come back at random moments over this span, not all at once, or
        /// over a longer one that reconnect_rate asks for.
        #[serde(with = "units::duration")]
        reconnect_spread: Duration = Duration::from_secs(5), Kind::duration(Duration::ZERO);
        /// How many agents a second may come back on average after this gateway has told all of them
        /// to: with more agents reconnect_spread is stretched, up to 5m. 0 means no limit.
        reconnect_rate: u32 = 1000, Kind::count(0, 1_000_000);
    }

    /// TLS, with which agents dial wss:// (docs/tls.md). The files are watched and read again when they
    /// change; nobody is disconnected for that.
    tls: TlsSettings {
        /// The certificate, a PEM file: the gateway's own first, then what it was issued by. Without
        /// one the listener speaks ws:// in the clear. Turning TLS on or off needs a restart. A relative
        /// path starts at the folder of the file that sets it. Unset unless given.
        certificate: Option<PathBuf> = None, Kind::Path, example r#""/etc/conexus/tls.crt""#;
        /// The certificate's private key, a PEM file with PKCS#8, PKCS#1 or SEC1, not encrypted.
        /// Unset unless given.
        key: Option<PathBuf> = None, Kind::Path, example r#""/etc/conexus/tls.key""#;
        /// The oldest version that is spoken: "1.2" or "1.3".
        min_version: TlsVersion = TlsVersion::V1_2, Kind::Choice(TlsVersion::WORDS);
        /// The authorities that issue agents' certificates, a PEM file. Unset unless given.
        client_ca: Option<PathBuf> = None, Kind::Path, example r#""/etc/conexus/agents-ca.pem""#;
        /// Whether agents show a certificate of tls.client_ca: "off" (they are not asked), "optional"
        /// (one that is shown must be valid) or "required" (all but /health and /ready is refused without
        /// one). The hook on_connect sees whose it is.
        client_auth: ClientAuth = ClientAuth::Off, Kind::Choice(ClientAuth::WORDS);
    }

    /// The public HTTP routes beside the WebSocket.
    http: HttpSettings {
        /// Who may read GET /agents: "public", "token" (as a bearer token) or "off".
        agents: AgentsAccess = AgentsAccess::Public, Kind::Choice(AgentsAccess::WORDS);
        /// The token of agents = "token". Unset unless given.
        agents_token: Option<Secret> = None, Kind::Secret, example r#"{ env = "AGENTS_TOKEN" }"#;
        /// The most agents on one page of GET /agents.
        agents_page: usize = 1000, Kind::count(1, 10_000);
        /// The labels by which GET /agents may be searched, as in ?label=team:red. Labels are what
        /// policy says of agents, and are not shown there; whoever may read the list can find out
        /// who has which value of the ones named here.
        agents_labels: Vec<String> = Vec::new(), Kind::Labels;
        /// Web pages that may connect: `"https://app.example.com"`, `"https://*.example.com"`. A browser
        /// names its page's origin; a WebSocket with one that is not listed is refused, one with
        /// none (a program's) is not. Listed pages may also read GET /agents, /health, /ice and /ready,
        /// and POST to /ice/outcome.
        /// While empty, no page is refused a WebSocket, and none may read the others.
        allowed_origins: Vec<AllowedOrigin> = Vec::new(), Kind::Origins;
        /// Addresses and networks of proxies in front of the gateway, ["10.0.0.0/8"]. What they say
        /// of their clients' addresses counts in logs, hooks and limits; nobody else's word does.
        trusted_proxies: Vec<ProxyNetwork> = Vec::new(), Kind::Networks;
        /// Which header trusted proxies tell it by: "x-forwarded-for", "forwarded" (RFC 7239) or
        /// "off". They must set it, or add to it: what stands furthest to the right and is no
        /// trusted proxy's address counts.
        forwarded: ForwardedHeader = ForwardedHeader::XForwardedFor, Kind::Choice(ForwardedHeader::WORDS);
        /// Whether connections from trusted proxies begin with a PROXY header, of version 1 or 2.
        /// One that does not is closed.
        proxy_protocol: bool = false, Kind::Flag;
        /// Whether /demo/ is a page on which two tabs of a browser find each other by this gateway and then
        /// chat directly. For a listener on loopback alone.
        demo: bool = false, Kind::Flag;
    }

    /// How strictly the protocol is taken.
    protocol: ProtocolSettings {
        /// "reference" tolerates the quirks of the reference client on ioap.v1, "strict" does not.
        compat: Compat = Compat::Reference, Kind::Choice(Compat::WORDS);
        /// Refuse clients that offer no known WebSocket subprotocol.
        require_subprotocol: bool = true, Kind::Flag;
    }

    /// Signatures and freshness.
    signatures: SignatureSettings {
        /// Signatures of routed messages: "required", "when_present" (one that is there must
        /// verify) or "off" (left to the receiver; serves the reference client best, which changes
        /// some messages after signing them).
        routed: RoutedSignatures = RoutedSignatures::WhenPresent, Kind::Choice(RoutedSignatures::WORDS);
        /// How far the timestamp of an ioap.v1 registration may be from the gateway's clock.
        #[serde(with = "units::duration")]
        max_clock_skew: Duration = Duration::from_secs(60), Kind::duration(Duration::from_secs(1));
        /// How many recent registrations are remembered against replay. When full, further ones
        /// on ioap.v1 are refused rather than old ones forgotten; so are those of one agent beyond
        /// a hundredth of it (16 at least).
        replay_cache: usize = 100_000, Kind::count(1, 100_000_000);
    }

    /// Which agents are reachable, and until when.
    presence: PresenceSettings {
        /// Silent for this long means gone.
        #[serde(with = "units::duration")]
        timeout: Duration = Duration::from_secs(300), Kind::duration(Duration::from_millis(100));
        /// How often silent sockets are pinged, at most half of the timeout. Unset means a third
        /// of it.
        #[serde(with = "units::optional_duration")]
        heartbeat: Option<Duration> = None, Kind::duration(Duration::from_millis(10)),
            example r#""100s""#;
        /// What counts as a sign of life: "frames" (any, WebSocket pongs included) or "messages".
        activity: Activity = Activity::Frames, Kind::Choice(Activity::WORDS);
        /// How long after its lease ended an agent's connection is closed at the latest. It is
        /// neither listed nor routed to from the moment that the lease ends.
        #[serde(with = "units::duration")]
        cleanup_interval: Duration = Duration::from_secs(60), Kind::duration(Duration::from_millis(10));
        /// The longest that the on_expire hook may extend a lease at once.
        #[serde(with = "units::duration")]
        max_extension: Duration = Duration::from_secs(3600), Kind::duration(Duration::ZERO);
    }

    /// What one agent, one address and all of them may cost.
    limits: LimitSettings {
        /// A connection whose first request has not come this long after it was accepted is closed:
        /// PROXY header, TLS handshake and request head altogether.
        #[serde(with = "units::duration")]
        handshake_timeout: Duration = Duration::from_secs(10), Kind::duration(Duration::from_millis(10));
        /// An upgraded connection that has not registered after this long is closed.
        #[serde(with = "units::duration")]
        register_timeout: Duration = Duration::from_secs(10), Kind::duration(Duration::from_millis(10));
        /// Connections at once; 0 means no limit.
        connections: usize = 10_000, Kind::count(0, 100_000_000);
        /// Connections at once from one address, or from one /64 of IPv6; 0 means no limit.
        connections_per_address: usize = 0, Kind::count(0, 100_000_000);
        /// Attempts to connect per second from one address, or from one /64 of IPv6; 0 means no
        /// limit. Looked at before anything else, TLS included.
        connects_per_second_per_address: u32 = 0, Kind::count(0, 1_000_000);
        /// Attempts to connect at once before that rate counts; 0 means as many as the rate.
        connect_burst_per_address: u32 = 0, Kind::count(0, 1_000_000);
        /// Registrations per second from one address, or from one /64 of IPv6, failed ones
        /// included; 0 means no limit. Looked at before a signature is verified.
        registrations_per_second_per_address: u32 = 0, Kind::count(0, 1_000_000);
        /// Registrations at once before that rate counts; 0 means as many as the rate.
        registration_burst_per_address: u32 = 0, Kind::count(0, 1_000_000);
        /// Registrations per minute of one agent, all of whose proofs hold; 0 means no limit. Two
        /// programs with one key, which take it from each other all the time, are slowed by it.
        registrations_per_minute_per_did: u32 = 0, Kind::count(0, 1_000_000);
        /// The largest message, "1KiB" to "16MiB". The reference client takes at most 1 MiB.
        #[serde(with = "units::size")]
        message_bytes: usize = 64 * KIB, Kind::size(KIB, 16 * MIB);
        /// Malformed messages per minute after which a connection is closed.
        bad_messages_per_minute: u32 = 120, Kind::count(1, u32::MAX as usize);
        /// Messages that wait for one agent's socket. When full, senders are told.
        outbox_messages: usize = 256, Kind::count(1, 1_000_000);
        /// Bytes that wait for one agent's socket, at least limits.message_bytes.
        #[serde(with = "units::size")]
        outbox_bytes: usize = MIB, Kind::size(KIB, 1024 * MIB);
        /// A socket that takes nothing worth mentioning (16 KiB, or all there is) for this long is
        /// closed.
        #[serde(with = "units::duration")]
        write_timeout: Duration = Duration::from_secs(10), Kind::duration(Duration::from_millis(10));
        /// What an agent may publish about itself, as JSON; at most limits.message_bytes.
        #[serde(with = "units::size")]
        metadata_bytes: usize = 4 * KIB, Kind::size(0, 16 * MIB);
        /// Agents that one agent may watch: be told of when they come and go.
        watches: usize = 256, Kind::count(1, 4096);
        /// Messages per second from one agent; 0 means no limit.
        messages_per_second: u32 = 0, Kind::count(0, u32::MAX as usize);
        /// Messages at once before the rate counts; 0 means as many as messages_per_second.
        message_burst: u32 = 0, Kind::count(0, u32::MAX as usize);
        /// Bytes of messages per second from one agent, "64KiB"; "0B" means no limit.
        #[serde(with = "units::size")]
        bytes_per_second: usize = 0, Kind::size(0, 1024 * MIB);
        /// Bytes at once before that rate counts, at least limits.message_bytes; "0B" means as many
        /// as bytes_per_second, or limits.message_bytes where that is more.
        #[serde(with = "units::size")]
        bytes_burst: usize = 0, Kind::size(0, 1024 * MIB);
        /// Messages refused for their rate, per minute, after which a connection is closed.
        rate_strikes: u32 = 100, Kind::count(1, u32::MAX as usize);
    }

    /// Messages kept for agents that are reconnecting.
    mailbox: MailboxSettings {
        /// How long a message waits for an agent that is absent; "0s" keeps none.
        #[serde(with = "units::duration")]
        hold: Duration = Duration::ZERO, Kind::duration(Duration::ZERO);
        /// Messages kept for one agent.
        messages_per_agent: usize = 64, Kind::count(1, 1_000_000);
        /// Bytes kept for one agent, at least limits.message_bytes.
        #[serde(with = "units::size")]
        bytes_per_agent: usize = 256 * KIB, Kind::size(KIB, 1024 * MIB);
        /// Messages kept of one sender, for whomever they are.
        messages_per_sender: usize = 256, Kind::count(1, 1_000_000);
        /// Bytes kept in all.
        #[serde(with = "units::size")]
        total_bytes: usize = 64 * MIB, Kind::size(KIB, 1024 * 1024 * MIB);
    }

    /// What the gateway carries from agent to agent.
    routing: RoutingSettings {
        /// Message types that are relayed: of OFFER, ANSWER, ICE_CANDIDATE, ERROR, INTENT,
        /// EXEC_REQUEST and EXEC_RESPONSE. The others are between an agent and the gateway.
        relay: Vec<MessageType> = vec![
            MessageType::Offer,
            MessageType::Answer,
            MessageType::IceCandidate,
            MessageType::Error,
        ], Kind::Relay;
    }

    /// STUN and TURN servers that ioap.v1.1 agents are told of when they register, and registered
    /// agents at GET /ice (docs/ice.md). A reload takes this section over.
    ice: IceSettings {
        /// Each { urls = ["turn:turn.example:3478"], secret = "…" }; urls may be stun:, stuns:,
        /// turn: or turns:. The secret is what coturn calls static-auth-secret: each agent gets a
        /// credential of its own that is made from it. In its place there may be
        /// username = "…", credential = "…", which are then the same for all. Secret and credential
        /// may also be { file = "…" } or { env = "…" }.
        servers: Vec<IceServerSettings> = Vec::new(), Kind::IceServers;
        /// How long a credential is valid that was made from a secret. Agents with long sessions
        /// get newer ones at GET /ice.
        #[serde(with = "units::duration")]
        credential_ttl: Duration = Duration::from_secs(3600), Kind::duration(Duration::from_secs(60));
        /// Answers to one session of an agent at GET /ice per minute; 0 means no limit. A new session
        /// is told the servers anyway (REGISTERED, on ioap.v1.1), and begins anew.
        requests_per_minute: u32 = 12, Kind::count(0, 60_000);
        /// Whether agents may tell, at POST /ice/outcome, how they connected to each other: by which kinds
        /// of candidates, and how long it took. It is counted, for metrics; who told it of whom is not
        /// kept. requests_per_minute is the limit of these, too, counted apart.
        outcomes: bool = false, Kind::Flag;
    }

    /// How hooks are asked, and what becomes of the ones that fail. The hooks themselves are at
    /// the end.
    policy: PolicySettings {
        /// Reload when a file that the policy was made from changes.
        watch: bool = true, Kind::Flag;
        /// How long one call of a hook may take, unless its chain says otherwise.
        #[serde(with = "units::duration")]
        budget: Duration = Duration::from_millis(50), Kind::duration(Duration::from_millis(1));
        /// Failures of one hook within breaker_window that open its breaker: it is then not
        /// asked for breaker_cooldown, and its on_error decides.
        breaker_errors: u32 = 5, Kind::count(1, 1_000_000);
        /// The span over which breaker_errors counts.
        #[serde(with = "units::duration")]
        breaker_window: Duration = Duration::from_secs(30), Kind::duration(Duration::from_millis(1));
        /// How long a hook whose breaker opened is not asked.
        #[serde(with = "units::duration")]
        breaker_cooldown: Duration = Duration::from_secs(30), Kind::duration(Duration::from_millis(1));
        /// Threads for hooks with blocking = true and for ones that turned out slow.
        blocking_threads: usize = 8, Kind::count(1, 1024);
        /// Calls that may wait for such a thread; further ones fail as overloaded.
        blocking_queue: usize = 1024, Kind::count(1, 1_000_000);
        /// Threads given up on, since a call did not return within its budget, after which no
        /// new one is started in their place.
        lost_threads: usize = 16, Kind::count(0, 1024);
        /// Decisions put off by plugins at once.
        deferred: usize = 10_000, Kind::count(1, 1_000_000);
        /// Events that may wait for observers; further ones are dropped and counted.
        observer_queue: usize = 8192, Kind::count(1, 1_000_000);
        /// Generations that may be alive at once, old ones with calls still running included.
        generations: usize = 16, Kind::count(2, 1024);
        /// Plugin libraries that may be loaded in the life of the process; none is ever unloaded.
        libraries: usize = 256, Kind::count(1, 100_000);
    }

    /// Rhai scripts, and what one call of a script may use.
    scripts: ScriptSettings {
        /// The folder of the scripts; helper modules are in its folder lib. A relative path starts
        /// at the folder of the file that sets it; the default, at the working directory.
        path: PathBuf = PathBuf::from("scripts"), Kind::Path;
        /// Operations of one call.
        max_operations: usize = 1_000_000, Kind::count(1000, 10_000_000);
        /// Calls of functions within functions.
        max_call_levels: usize = 32, Kind::count(1, 256);
        /// Nesting of expressions.
        max_expression_depth: usize = 64, Kind::count(8, 256);
        /// The longest text.
        #[serde(with = "units::size")]
        max_string_bytes: usize = 64 * KIB, Kind::size(KIB, 16 * MIB);
        /// Elements of the longest array.
        max_array_size: usize = 10_000, Kind::count(1, 100_000);
        /// Entries of the largest map.
        max_map_size: usize = 10_000, Kind::count(1, 100_000);
        /// Variables at once.
        max_variables: usize = 256, Kind::count(16, 100_000);
    }

    /// The state that hooks keep in the gateway: key-value entries, counters, rate limits. It is in
    /// memory and outlives reloads. At a bound nothing is evicted: what does not fit is refused, and
    /// what is there can still be changed unless it grows.
    state: StateSettings {
        /// Entries in all. One costs about 120 bytes beside its key and value.
        max_entries: usize = 1_000_000, Kind::count(1, 1_000_000_000);
        /// Bytes of keys and values in all.
        #[serde(with = "units::size")]
        max_bytes: usize = 256 * MIB, Kind::size(KIB, 1024 * 1024 * MIB);
        /// The longest key.
        #[serde(with = "units::size")]
        max_key_bytes: usize = 512, Kind::size(16, MIB);
        /// The largest value.
        #[serde(with = "units::size")]
        max_value_bytes: usize = 64 * KIB, Kind::size(16, 16 * MIB);
    }

    /// Several gateways that are one to their agents, by way of a Redis that they share
    /// (docs/cluster.md). Without `cluster.redis.url` the gateway is alone.
    cluster: ClusterSettings {
        /// What the names of all keys and channels in Redis begin with: gateways with the same one are
        /// the nodes of one cluster.
        prefix: String = "conexus".to_owned(), Kind::KeyPrefix;
        /// How long a node that is not heard of counts as there. It renews its lease three times in
        /// this time. When a node dies, its agents are gone for everyone after that.
        #[serde(with = "units::duration")]
        lease: Duration = Duration::from_secs(5), Kind::duration(Duration::from_millis(300));
        /// How long a node waits for what it asks another one. A registration whose older session is on a
        /// node that is there and does not answer asks again, for at most `cluster.lease`.
        #[serde(with = "units::duration")]
        takeover_timeout: Duration = Duration::from_secs(2), Kind::duration(Duration::from_millis(10));
        /// For how long this node remembers on which node an agent is, and its labels. Who has moved is
        /// found at once all the same; labels may be as old as this.
        #[serde(with = "units::duration")]
        cache_age: Duration = Duration::from_secs(5), Kind::duration(Duration::ZERO);
        /// How many agents of other nodes are remembered at most. One costs about 1 KiB.
        cache_entries: usize = 100_000, Kind::count(16, 100_000_000);
        /// Messages for one other node that may be under way, its confirmation included; further ones
        /// are refused (`queue_full`).
        queue_messages: usize = 16_384, Kind::count(16, 10_000_000);
        /// The same in bytes, at least limits.message_bytes.
        #[serde(with = "units::size")]
        queue_bytes: usize = 64 * MIB, Kind::size(64 * KIB, 1024 * 1024 * MIB);
    }

    /// The Redis that the nodes of a cluster share: Redis 7 or later, or Valkey.
    cluster_redis: RedisSettings {
        /// Where it is: redis://HOST:PORT, or rediss://HOST:PORT for TLS, and /DATABASE behind that if
        /// need be. It makes this gateway a node of a cluster. Unset unless given.
        url: Option<String> = None, Kind::RedisUrl, example r#""redis://127.0.0.1:6379""#;
        /// What is there: "single" (one Redis), "sentinel" (Sentinels, which know where the Redis is
        /// that takes writes) or "cluster" (a Redis Cluster, over which the agents are divided).
        mode: RedisMode = RedisMode::Single, Kind::Choice(RedisMode::WORDS);
        /// Further Sentinels, or machines of the Redis Cluster: they are asked when that of
        /// cluster.redis.url does not answer.
        seeds: Vec<String> = Vec::new(), Kind::HostsAndPorts;
        /// The user of its access control list; Redis calls the usual one "default". Unset unless given.
        username: Option<String> = None, Kind::Text, example r#""conexus""#;
        /// Its password. Unset unless given.
        password: Option<Secret> = None, Kind::Secret, example r#"{ env = "REDIS_PASSWORD" }"#;
        /// What Sentinels call the Redis that is wanted. Unset unless given.
        sentinel_master: Option<String> = None, Kind::Text, example r#""mymaster""#;
        /// The user whom Sentinels know. Unset unless given.
        sentinel_username: Option<String> = None, Kind::Text, example r#""conexus""#;
        /// The password of Sentinels. Unset unless given.
        sentinel_password: Option<Secret> = None, Kind::Secret,
            example r#"{ env = "SENTINEL_PASSWORD" }"#;
        /// With rediss://, the authorities whose certificates count: a file of PEM. A relative path starts
        /// at the folder of the file that sets it. Unset takes the public authorities.
        ca: Option<PathBuf> = None, Kind::Path, example r#""/etc/conexus/redis-ca.pem""#;
        /// The certificate that this gateway shows to Redis, a file of PEM. Unset shows none.
        certificate: Option<PathBuf> = None, Kind::Path, example r#""/etc/conexus/redis-client.pem""#;
        /// Its private key. Unset unless given.
        key: Option<PathBuf> = None, Kind::Path, example r#""/etc/conexus/redis-client.key""#;
        /// The name that Redis's certificate is for, where that is another one than the host by which it is
        /// reached. Unset takes the host.
        server_name: Option<String> = None, Kind::Text, example r#""redis.example""#;
        /// How long it may take to connect or to answer before it counts as away. Less than a third of
        /// cluster.lease, so that one slow answer loses no lease.
        #[serde(with = "units::duration")]
        timeout: Duration = Duration::from_secs(1), Kind::duration(Duration::from_millis(50));
    }

    /// The operator's own listener: the admin API (docs/admin-api.md).
    admin: AdminSettings {
        /// Whether there is one.
        enabled: bool = true, Kind::Flag;
        /// Its address and port; port 0 takes a free one. Beyond loopback there must be an
        /// [admin_token.NAME].
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 9100)), Kind::Address;
        /// Whether it speaks TLS, with the certificate that section tls names. It asks for no client's certificate.
        tls: bool = false, Kind::Flag;
    }

    /// What is recorded.
    telemetry: TelemetrySettings {
        /// A file to which every decision of a hook is appended as a line of JSON. A relative path
        /// starts at the folder of the file that sets it. Unset records none.
        decision_log: Option<PathBuf> = None, Kind::Path, example r#""decisions.jsonl""#;
        /// At this size the file is renamed to end in ".1", replacing an older one, and begun anew.
        #[serde(with = "units::size")]
        decision_log_bytes: usize = 256 * MIB, Kind::size(64 * KIB, 1024 * 1024 * MIB);
        /// Registrations, renewals and ends of sessions that are remembered for GET /api/v1/history,
        /// and a quarter as many refused registrations; 0 remembers none.
        history: usize = 10_000, Kind::count(0, 10_000_000);
        /// Where spans of messages are sent by OpenTelemetry's protocol, OTLP over HTTP, such as
        /// "http://127.0.0.1:4318". Takes a binary built with --features otlp. Unset sends none.
        otlp_endpoint: Option<String> = None, Kind::HttpUrl,
            example r#""http://127.0.0.1:4318""#;
        /// Of a thousand messages, how many have a span sent. Those whose sender traces them go by
        /// the sender's own choice.
        otlp_per_thousand: u32 = 1000, Kind::count(0, 1000);
    }

    /// The log, which goes to standard error.
    log: LogSettings {
        /// "error", "warn", "info", "debug", "trace" or "off"; per module as in
        /// "info,conexus_gateway::session=debug".
        level: String = "info".to_owned(), Kind::LogLevel;
        /// "auto" (for people, in colour on a terminal), "human" (without colour) or "json".
        format: LogFormat = LogFormat::Auto, Kind::Choice(LogFormat::WORDS);
    }
}

/// A STUN or TURN server, as WebRTC's `RTCIceServer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServerSettings {
    /// At least one of `stun:`, `stuns:`, `turn:` or `turns:`.
    pub urls: Vec<String>,
    /// For TURN, the same for all agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN, the same for all agents, who are told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Secret>,
    /// For TURN: what the server and this gateway know, and no agent is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

impl TlsSettings {
    /// Whether there is a certificate.
    pub const fn is_on(&self) -> bool {
        self.certificate.is_some() && self.key.is_some()
    }
}

impl Settings {
    /// How often silent sockets are pinged: as set, else a third of the timeout.
    pub fn heartbeat(&self) -> Duration {
        self.presence.heartbeat.unwrap_or(self.presence.timeout / 3)
    }

    /// How many messages an agent may send at once, where their rate is limited.
    pub fn message_burst(&self) -> u32 {
        match self.limits.message_burst {
            0 => self.limits.messages_per_second,
            burst => burst,
        }
    }

    /// How many bytes an agent may send at once at this rate: one message at least.
    pub fn bytes_burst(&self, bytes_per_second: usize, burst: usize) -> usize {
        match burst {
            0 => bytes_per_second.max(self.limits.message_bytes),
            burst => burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_is_a_third_of_the_timeout_unless_set() {
        let mut settings = Settings::default();
        assert_eq!(settings.heartbeat(), Duration::from_secs(100));
        settings.presence.heartbeat = Some(Duration::from_secs(7));
        assert_eq!(settings.heartbeat(), Duration::from_secs(7));
    }

    #[test]
    fn burst_follows_the_rate_unless_set() {
        let mut settings = Settings::default();
        settings.limits.messages_per_second = 20;
        assert_eq!(settings.message_burst(), 20);
        settings.limits.message_burst = 5;
        assert_eq!(settings.message_burst(), 5);
    }
}
