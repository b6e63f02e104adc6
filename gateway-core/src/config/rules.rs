//! What ties several keys together, and what is odd without being wrong.

use std::net::IpAddr;

use url::Url;

use super::{
    choices::{AgentsAccess, ClientAuth, RedisMode, TlsVersion},
    settings::{KEYS, Settings},
    units::{format_duration, format_size},
};

/// A condition over several keys. A breach is reported where the first of them that was set at
/// all was set, and not at all while one of them is wrong in itself.
pub(super) struct Rule {
    pub(super) keys: &'static [&'static str],
    pub(super) breach: fn(&Settings) -> Option<String>,
}

/// Stands for all of `[admin_token.NAME]`.
pub(super) const TOKENS: &str = "admin_token";

pub(super) const RULES: &[Rule] = &[
    Rule { keys: &["presence.heartbeat", "presence.timeout"], breach: slow_heartbeat },
    Rule { keys: &["server.drain_spread", "server.drain_timeout"], breach: long_spread },
    Rule { keys: &["http.agents", "http.agents_token"], breach: missing_token },
    Rule { keys: &["limits.outbox_bytes", "limits.message_bytes"], breach: small_outbox },
    Rule { keys: &["limits.metadata_bytes", "limits.message_bytes"], breach: large_metadata },
    Rule { keys: &["limits.bytes_burst", "limits.message_bytes"], breach: small_bytes_burst },
    Rule { keys: &["http.proxy_protocol", "http.trusted_proxies"], breach: proxies_of_nobody },
    Rule { keys: &["http.demo", "server.listen"], breach: open_demo },
    Rule {
        keys: &["mailbox.bytes_per_agent", "limits.message_bytes", "mailbox.hold"],
        breach: small_share,
    },
    Rule { keys: &["mailbox.total_bytes", "mailbox.bytes_per_agent"], breach: small_mailbox },
    Rule { keys: &["admin.listen", "admin.enabled", TOKENS], breach: open_admin },
    Rule { keys: &["tls.certificate", "tls.key"], breach: half_a_certificate },
    Rule { keys: &["tls.client_auth", "tls.client_ca"], breach: missing_authority },
    Rule {
        keys: &["cluster.redis.mode", "cluster.redis.sentinel_master"],
        breach: missing_sentinel_master,
    },
    Rule { keys: &["cluster.redis.mode", "cluster.redis.url"], breach: database_of_a_cluster },
    Rule {
        keys: &["cluster.redis.certificate", "cluster.redis.key"],
        breach: half_a_redis_certificate,
    },
    Rule { keys: &["admin.tls", "tls.certificate", "tls.key"], breach: missing_certificate },
    Rule {
        keys: &["cluster.redis.timeout", "cluster.lease", "cluster.redis.url"],
        breach: slow_engine,
    },
    Rule { keys: &["cluster.queue_bytes", "limits.message_bytes"], breach: small_queue },
];

/// Pings at more than half of the timeout leave no second chance (PROTOCOL duty 8).
fn slow_heartbeat(settings: &Settings) -> Option<String> {
    let (heartbeat, timeout) = (settings.heartbeat(), settings.presence.timeout);
    (heartbeat > timeout / 2).then(|| {
        format!(
            "presence.heartbeat ({}) must be at most half of presence.timeout ({})",
            format_duration(heartbeat),
            format_duration(timeout)
        )
    })
}

/// What remains after the spread needs time to be written and closed.
fn long_spread(Settings { server, .. }: &Settings) -> Option<String> {
    (server.drain_spread > server.drain_timeout / 2).then(|| {
        format!(
            "server.drain_spread ({}) must be at most half of server.drain_timeout ({})",
            format_duration(server.drain_spread),
            format_duration(server.drain_timeout)
        )
    })
}

fn missing_token(settings: &Settings) -> Option<String> {
    let missing =
        settings.http.agents == AgentsAccess::Token && settings.http.agents_token.is_none();
    missing.then(|| r#"http.agents = "token" needs http.agents_token"#.to_owned())
}

fn small_outbox(Settings { limits, .. }: &Settings) -> Option<String> {
    at_least(
        ("limits.outbox_bytes", limits.outbox_bytes),
        ("limits.message_bytes", limits.message_bytes),
    )
}

fn large_metadata(Settings { limits, .. }: &Settings) -> Option<String> {
    at_least(
        ("limits.message_bytes", limits.message_bytes),
        ("limits.metadata_bytes", limits.metadata_bytes),
    )
}

fn small_bytes_burst(Settings { limits, .. }: &Settings) -> Option<String> {
    small_burst(("limits.bytes_burst", limits.bytes_burst), limits.message_bytes)
}

/// A message that is larger than the burst could never be sent.
pub(super) fn small_burst(burst: (&str, usize), message_bytes: usize) -> Option<String> {
    (burst.1 != 0).then(|| at_least(burst, ("limits.message_bytes", message_bytes))).flatten()
}

fn proxies_of_nobody(Settings { http, .. }: &Settings) -> Option<String> {
    let of_nobody = http.proxy_protocol && http.trusted_proxies.is_empty();
    of_nobody.then(|| {
        "http.proxy_protocol needs http.trusted_proxies: a PROXY header is taken from those alone"
            .to_owned()
    })
}

/// It shows how to begin; nobody else's browser should run it in this gateway's name.
fn open_demo(Settings { server, http, .. }: &Settings) -> Option<String> {
    let open = http.demo && !server.listen.ip().is_loopback();
    open.then(|| {
        format!(
            "http.demo needs server.listen ({}) to be on loopback, such as \"127.0.0.1:8000\"",
            server.listen
        )
    })
}

fn small_share(Settings { limits, mailbox, .. }: &Settings) -> Option<String> {
    if mailbox.hold.is_zero() {
        return None;
    }
    at_least(
        ("mailbox.bytes_per_agent", mailbox.bytes_per_agent),
        ("limits.message_bytes", limits.message_bytes),
    )
}

fn small_mailbox(Settings { mailbox, .. }: &Settings) -> Option<String> {
    at_least(
        ("mailbox.total_bytes", mailbox.total_bytes),
        ("mailbox.bytes_per_agent", mailbox.bytes_per_agent),
    )
}

/// Without tokens, being on this machine is what proves an operator.
fn open_admin(Settings { admin, admin_tokens, .. }: &Settings) -> Option<String> {
    let open = admin.enabled && admin_tokens.is_empty() && !admin.listen.ip().is_loopback();
    open.then(|| {
        format!(
            "admin.listen ({}) must be on loopback, such as \"127.0.0.1:9100\", unless there is an \
             [admin_token.NAME]: whoever reaches it may change the policy",
            admin.listen
        )
    })
}

fn half_a_certificate(Settings { tls, .. }: &Settings) -> Option<String> {
    match (&tls.certificate, &tls.key) {
        (Some(_), None) => Some("tls.certificate needs tls.key".to_owned()),
        (None, Some(_)) => Some("tls.key needs tls.certificate".to_owned()),
        _ => None,
    }
}

fn missing_authority(Settings { tls, .. }: &Settings) -> Option<String> {
    let missing = tls.client_auth != ClientAuth::Off && tls.client_ca.is_none();
    missing.then(|| "tls.client_auth needs tls.client_ca, unless it is \"off\"".to_owned())
}

fn missing_certificate(Settings { admin, tls, .. }: &Settings) -> Option<String> {
    (admin.tls && !tls.is_on()).then(|| "admin.tls needs tls.certificate and tls.key".to_owned())
}

fn missing_sentinel_master(Settings { cluster_redis: redis, .. }: &Settings) -> Option<String> {
    let missing = redis.mode == RedisMode::Sentinel && redis.sentinel_master.is_none();
    missing
        .then(|| "cluster.redis.mode = \"sentinel\" needs cluster.redis.sentinel_master".to_owned())
}

fn database_of_a_cluster(Settings { cluster_redis: redis, .. }: &Settings) -> Option<String> {
    let url = redis.url.as_deref().and_then(|url| url::Url::parse(url).ok())?;
    let has_one = !matches!(url.path().trim_start_matches('/'), "" | "0");
    (has_one && redis.mode == RedisMode::Cluster).then(|| {
        "cluster.redis.url names a database, but a Redis Cluster has none but 0".to_owned()
    })
}

fn half_a_redis_certificate(Settings { cluster_redis: redis, .. }: &Settings) -> Option<String> {
    match (&redis.certificate, &redis.key) {
        (Some(_), None) => Some("cluster.redis.certificate needs cluster.redis.key".to_owned()),
        (None, Some(_)) => Some("cluster.redis.key needs cluster.redis.certificate".to_owned()),
        _ => None,
    }
}

/// A lease is renewed three times while it lives. Whoever waits longer than that for one answer may
/// lose it for a single slow one.
fn slow_engine(Settings { cluster, cluster_redis: redis, .. }: &Settings) -> Option<String> {
    (redis.url.is_some() && redis.timeout * 3 >= cluster.lease).then(|| {
        format!(
            "cluster.redis.timeout ({}) must be less than a third of cluster.lease ({})",
            format_duration(redis.timeout),
            format_duration(cluster.lease)
        )
    })
}

fn small_queue(Settings { cluster, limits, .. }: &Settings) -> Option<String> {
    at_least(
        ("cluster.queue_bytes", cluster.queue_bytes),
        ("limits.message_bytes", limits.message_bytes),
    )
}

fn at_least(large: (&str, usize), small: (&str, usize)) -> Option<String> {
    (large.1 < small.1).then(|| {
        let (large_size, small_size) = (format_size(large.1), format_size(small.1));
        format!("{} ({large_size}) must be at least {} ({small_size})", large.0, small.0)
    })
}

/// What an operator may want to know when asking, and need not be told at each start.
pub(crate) fn hints(settings: &Settings) -> Vec<String> {
    let Settings { server, http, limits, .. } = settings;
    let by_address = limits.connections_per_address > 0
        || limits.connects_per_second_per_address > 0
        || limits.registrations_per_second_per_address > 0;
    let mut hints = Vec::new();
    if !server.listen.ip().is_loopback() && !by_address && http.trusted_proxies.is_empty() {
        hints.push(format!(
            "server.listen ({}) is beyond loopback, and one address may take all connections: \
             limits.connections_per_address and connects_per_second_per_address are 0. Behind a \
             proxy, http.trusted_proxies makes the addresses the real ones (docs/limits.md)",
            server.listen
        ));
    }
    if settings.cluster_redis.url.is_some() {
        hints.extend(cluster_hints(settings));
    }
    hints
}

/// What the nodes of a cluster have to have in common, and what each for itself.
fn cluster_hints(Settings { server, .. }: &Settings) -> Vec<String> {
    let mut hints = vec![format!(
        "this gateway is a node of a cluster: server.public_urls ({}) and the policy have to be the same \
         on all of its nodes, since an agent may come to any of them (docs/cluster.md)",
        match server.public_urls.as_slice() {
            [] => "empty".to_owned(),
            urls => urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", "),
        }
    )];
    if server.node_id.is_empty() {
        hints.push(
            "server.node_id is not set: the name that is made from server.identity is the same on all \
             nodes that have the same key, and nobody can tell them apart"
                .to_owned(),
        );
    }
    hints
}

/// What an operator may have overlooked.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let Settings { server, http, limits, .. } = settings;
    let mut warnings = Vec::new();
    if !server.listen.ip().is_loopback() && server.public_urls.is_empty() {
        warnings.push(format!(
            "ioap.v1.1 is not offered: server.listen ({}) is beyond loopback and \
             server.public_urls is empty, so agents that name the URL they dialed can register \
             from this machine alone",
            server.listen
        ));
    }
    warnings.extend(tls_warnings(settings));
    warnings.extend(cluster_warnings(settings));
    if http.agents_token.is_some() && http.agents != AgentsAccess::Token {
        warnings.push("http.agents_token has no effect unless http.agents is \"token\"".to_owned());
    }
    if limits.message_burst != 0 && limits.messages_per_second == 0 {
        warnings.push(
            "limits.message_burst has no effect while limits.messages_per_second is 0".to_owned(),
        );
    }
    for (burst, is_set, rate, rate_is_set) in [
        ("bytes_burst", limits.bytes_burst != 0, "bytes_per_second", limits.bytes_per_second != 0),
        (
            "connect_burst_per_address",
            limits.connect_burst_per_address != 0,
            "connects_per_second_per_address",
            limits.connects_per_second_per_address != 0,
        ),
        (
            "registration_burst_per_address",
            limits.registration_burst_per_address != 0,
            "registrations_per_second_per_address",
            limits.registrations_per_second_per_address != 0,
        ),
    ] {
        if is_set && !rate_is_set {
            warnings.push(format!("limits.{burst} has no effect while limits.{rate} is 0"));
        }
    }
    warnings.extend(redis_warnings(settings));
    if settings.telemetry.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
        warnings.push(
            "telemetry.otlp_endpoint has no effect: this binary was built without the feature otlp"
                .to_owned(),
        );
    }
    warnings
}

/// What of [cluster.redis] has no effect beside the rest of it.
fn redis_warnings(Settings { cluster_redis: redis, .. }: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(url) = &redis.url else { return warnings };
    let is_sentinel = redis.mode == RedisMode::Sentinel;
    let has_tls = url.starts_with("rediss:");
    let with_sentinels = ("cluster.redis.mode is \"sentinel\"", is_sentinel);
    let with_tls = ("cluster.redis.url begins with rediss://", has_tls);
    for (key, set, (needed, is_so)) in [
        ("sentinel_master", redis.sentinel_master.is_some(), with_sentinels),
        ("sentinel_username", redis.sentinel_username.is_some(), with_sentinels),
        ("sentinel_password", redis.sentinel_password.is_some(), with_sentinels),
        ("ca", redis.ca.is_some(), with_tls),
        ("certificate", redis.certificate.is_some(), with_tls),
        ("server_name", redis.server_name.is_some(), with_tls),
    ] {
        if set && !is_so {
            warnings.push(format!("cluster.redis.{key} has no effect unless {needed}"));
        }
    }
    if !redis.seeds.is_empty() && redis.mode == RedisMode::Single {
        warnings.push(
            "cluster.redis.seeds has no effect while cluster.redis.mode is \"single\"".to_owned(),
        );
    }
    warnings
}

/// What crosses the network in the clear, and what of [tls] has no effect.
fn tls_warnings(Settings { server, http, admin, tls, .. }: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    // Before a proxy TLS has ended already.
    let proxied = !http.trusted_proxies.is_empty();
    if !tls.is_on() && !proxied && !server.listen.ip().is_loopback() {
        warnings.push(format!(
            "NO TLS: server.listen ({}) is beyond loopback and there is no tls.certificate, so that \
             whoever is on the way can read all messages and change those without a signature",
            server.listen
        ));
    }
    if admin.enabled && !admin.tls && !admin.listen.ip().is_loopback() {
        warnings.push(format!(
            "NO TLS: admin.listen ({}) is beyond loopback without admin.tls, so that whoever is on the \
             way can read the tokens of operators",
            admin.listen
        ));
    }
    let public = &server.public_urls;
    if tls.is_on() && !public.is_empty() && public.iter().all(|url| url.scheme() == "ws") {
        warnings.push(
            "server.public_urls has only ws:// URLs, but the listener speaks TLS: agents that dial \
             wss:// cannot register"
                .to_owned(),
        );
    }
    for (key, set) in [
        ("tls.client_ca", tls.client_ca.is_some()),
        ("tls.client_auth", tls.client_auth != ClientAuth::Off),
        ("tls.min_version", tls.min_version != TlsVersion::V1_2),
    ] {
        if set && !tls.is_on() {
            warnings.push(format!("{key} has no effect without tls.certificate and tls.key"));
        } else if key == "tls.client_ca" && set && tls.client_auth == ClientAuth::Off {
            warnings
                .push("tls.client_ca has no effect while tls.client_auth is \"off\"".to_owned());
        }
    }
    warnings
}

/// What of [cluster] has no effect, and what crosses the network in the clear.
fn cluster_warnings(settings: &Settings) -> Vec<String> {
    let Some(url) = &settings.cluster_redis.url else {
        let defaults = Settings::default();
        let own = KEYS.iter().filter(|key| key.path.starts_with("cluster."));
        let set = own.filter(|key| settings.value(key) != defaults.value(key));
        return set
            .map(|key| format!("{} has no effect without cluster.redis.url", key.path))
            .collect();
    };
    match Url::parse(url) {
        Ok(url) if url.scheme() == "redis" && !is_on_this_machine(&url) => vec![format!(
            "NO TLS: cluster.redis.url ({url}) is beyond loopback without rediss://, so that whoever is \
             on the way can read all messages between nodes, and take the cluster over"
        )],
        _ => Vec::new(),
    }
}

fn is_on_this_machine(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}
