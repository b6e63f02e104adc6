//! Users, and what they may do.

use std::sync::LazyLock;

use super::*;
use crate::cluster::{
    backplane::{BanAbout, Release, SharedBan, StateOperation, StateRequest},
    ids::Bucket,
};

/// What docs/cluster.md says that a node needs, and what deploy/compose gives it.
static NEEDED: LazyLock<String> = LazyLock::new(|| {
    let of = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("user conexus on #")).unwrap();
        line[line.find("resetkeys").unwrap()..].to_owned()
    };
    let told = of(include_str!("../../../../../docs/cluster.md"));
    assert_eq!(told, of(include_str!("../../../../../deploy/compose/setup")));
    told
});

fn user(rules: &str) -> RedisServer {
    let server = RedisServer::start();
    let set = format!("ACL SETUSER node on >sesame {rules}");
    server.must(&set.split_whitespace().collect::<Vec<_>>());
    server
}

fn as_node() -> RedisSettings {
    RedisSettings {
        username: Some("node".to_owned()),
        password: Some(Secret::new("sesame")),
        ..settings()
    }
}

#[tokio::test]
async fn a_user_with_what_is_needed_can_do_everything() {
    let server = user(&NEEDED);
    let mut node = connect(&server.url(), &as_node(), A).await.unwrap();
    let link = Arc::clone(&node.link);
    let agent = agent();
    let (key, bucket) = (AgentKey::from_bytes(agent.key), Bucket(agent.key[0]));
    node.renew().await.unwrap();
    link.follow(bucket).await.unwrap();
    let Claimed::Won { epoch, .. } = node.claim(&agent).await.unwrap() else { panic!() };
    assert!(matches!(node.event().await, LinkEvent::Change(_)));
    link.describe(A, epoch, &agent).await.unwrap();
    link.announce(A, bucket, &[]).await.unwrap();
    let claim = Claim { member: B, agent: Arc::clone(&agent), age: Duration::ZERO };
    node.claim(&agent).await.unwrap();
    let Claimed::Won { epoch, .. } = link.claim(&claim).await.unwrap() else { panic!() };
    assert_eq!(link.entries(B, bucket).await.unwrap().len(), 1);
    link.release(B, &[Release { key, epoch, reason: "closed" }]).await.unwrap();
    link.clear(A, bucket, "node_lost").await.unwrap();
    link.unfollow(bucket).await.unwrap();
    assert!(!node.knows(&agent).await);
    assert!(link.publish(A, "x".into()).await.unwrap());
    link.strike(A, LEASE).await.unwrap();
    link.buried(A).await.unwrap();
    link.retire(A).await.unwrap();
    let (value, ttl) = (conexus_plugin_api::host::Value::Int(1), Some(LEASE));
    for operation in [
        StateOperation::Get,
        StateOperation::Set { value: value.clone(), ttl },
        StateOperation::Incr { by: 1, ttl },
        StateOperation::Expire { ttl },
        StateOperation::Expire { ttl: None },
        StateOperation::Delete,
        StateOperation::Incr { by: 1, ttl },
        StateOperation::Cas { expected: Some(value.clone()), value, ttl },
        StateOperation::RateLimit { count: 1, per: LEASE },
    ] {
        let request = StateRequest { namespace: "hook".into(), key: "k".to_owned(), operation };
        link.state(&request).await.unwrap().unwrap();
    }
    let about = BanAbout { did: key.did(), reason: String::new(), by: String::new() };
    for _ in 0..2 {
        let ban = SharedBan { key, left: LEASE, about: about.clone() };
        assert!(link.ban(&[ban], &[]).await.unwrap());
        assert!(link.ban(&[], &[key]).await.unwrap());
        link.bans(None).await.unwrap();
    }
    // And not more than that.
    let other = Settings::default().cluster;
    let other = crate::config::ClusterSettings { prefix: "other".to_owned(), ..other };
    let engine = RedisBackplane::new(&server.url(), &other, &as_node()).unwrap();
    let why = engine.connect(A, mpsc::channel(1).0).await.unwrap_err().to_string();
    assert!(why.contains("\"node\"") && why.contains("NOPERM"), "{why}");
}

#[tokio::test]
async fn whoever_may_not_is_told_who_and_what() {
    for (missing, named) in [
        ("+ssubscribe", "'ssubscribe'"),
        ("+spublish", "'spublish'"),
        ("+evalsha", "'evalsha'"),
        ("+hmget", "'hmget'"),
        ("+zadd", "renew.lua"),
        ("&{conexus:*", "channel"),
        ("~{conexus}:*", "key"),
    ] {
        let rules: Vec<_> = NEEDED.split_whitespace().filter(|rule| *rule != missing).collect();
        let server = user(&rules.join(" "));
        let why = match connect(&server.url(), &as_node(), A).await {
            Err(why) => why.to_string(),
            Ok(node) => {
                let found = match node.renew().await {
                    Ok(_) => node.link.find(&[AgentKey::from_bytes(agent().key)]).await.err(),
                    Err(why) => Some(why),
                };
                match found {
                    Some(why) => why.to_string(),
                    None => node.link.publish(A, "x".into()).await.unwrap_err().to_string(),
                }
            }
        };
        let at = format!("127.0.0.1:{}", server.port());
        assert!(why.contains(named) && why.contains("user \"node\"") && why.contains(&at), "{why}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let server = user(&NEEDED);
    let wrong = RedisSettings { password: Some(Secret::new("open")), ..as_node() };
    let unknown = RedisSettings { username: Some("nobody".to_owned()), ..as_node() };
    for (redis, who) in [(wrong, "node"), (unknown, "nobody")] {
        let why = refused(&server.url(), &redis).await;
        assert!(why.contains(&format!("user {who:?}")) && why.contains("WRONGPASS"), "{why}");
        assert!(!why.contains("sesame") && !why.contains("open"), "{why}");
        let shown = format!(
            "{:?}",
            RedisBackplane::new(&server.url(), &Settings::default().cluster, &redis)
        );
        assert!(!shown.contains("sesame") && !shown.contains("open\""), "{shown}");
    }
    server.must(&["CONFIG", "SET", "requirepass", "other"]);
    let why = refused(&server.url(), &settings()).await;
    assert!(why.contains("NOAUTH") && why.contains("user \"default\""), "{why}");
    let redis = RedisSettings { password: Some(Secret::new("other")), ..settings() };
    connect(&server.url(), &redis, A).await.unwrap().renew().await.unwrap();
}

#[tokio::test]
async fn a_database_of_its_own_is_used() {
    let server = RedisServer::start();
    let node = connect(&format!("{}/3", server.url()), &settings(), A).await.unwrap();
    node.renew().await.unwrap();
    let keys = server.must(&["INFO", "keyspace"]);
    assert!(keys.contains("db3:") && !keys.contains("db0:"), "{keys}");
    let why = refused(&format!("{}/99", server.url()), &settings()).await;
    assert!(why.contains("out of range"), "{why}");
}
