//! The two gateways of `compose.cluster.yaml`.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{Told, check, http, set_up, soon};
use crate::support::redis::RedisServer;

/// What the Redis of the file is told on its command line, as lines of redis.conf.
fn redis_config(command: &Value, users: &str) -> Vec<String> {
    let words: Vec<_> = command.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let [program, options @ ..] = &words[..] else { panic!("{words:?}") };
    assert_eq!(*program, "redis-server");
    let line = |option: &[&str]| {
        let name = option[0].trim_start_matches("--");
        match (name, option[1]) {
            ("aclfile", _) => format!("aclfile {users}"),
            (_, "") => format!("{name} \"\""),
            (_, value) => format!("{name} {value}"),
        }
    };
    options.chunks(2).map(line).collect()
}

#[tokio::test]
async fn two_gateways_reach_each_other_by_a_redis_that_knows_them_by_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    set_up(&secrets).await;
    let arguments = [secrets.to_str().unwrap(), "compose.cluster.yaml"];
    let told: Told = serde_json::from_str(&check("compose.py", &arguments, "").await).unwrap();
    let users = secrets.join("redis.acl");
    let config = redis_config(&told.commands["redis"], users.to_str().unwrap());
    let config: Vec<_> = config.iter().map(String::as_str).collect();
    let redis = RedisServer::with(&config);
    let url = format!("cluster.redis.url={}", redis.url());

    let mut gateways = Vec::new();
    for (name, gateway) in &told.gateways {
        let laid_out = gateway.laid_out(&folder.path().join(name)).await;
        gateways
            .push(laid_out.start(&[&url, "cluster.redis.timeout=5s", "cluster.lease=16s"]).await);
    }
    let operator = fs::read_to_string(secrets.join("operator.token")).unwrap();
    let token = format!("Bearer {operator}");
    let nodes = async |of: usize| {
        let headers = [("Authorization", token.as_str())];
        let (status, answer) = http::get(gateways[of].admin, "/api/v1/nodes", &headers).await;
        assert_eq!(status, 200, "{answer}");
        answer
    };
    for gateway in 0..2 {
        soon("two nodes that reach each other", async {
            loop {
                let answer = nodes(gateway).await;
                let reached = answer["nodes"].as_array().unwrap().iter();
                let reached = reached.filter(|node| node["reachable"] == true);
                let ids: BTreeSet<_> = reached.map(|node| node["id"].as_str().unwrap()).collect();
                if ids == BTreeSet::from(["gateway-1", "gateway-2"]) {
                    assert_eq!(answer["cluster"]["joined"], true, "{answer}");
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    let (mut alice, mut bob) = (gateways[0].agent().await, gateways[1].agent().await);
    alice.send_offer(&bob.did(), "over").await;
    assert!(bob.text().await.contains("over"));
    bob.send_offer(&alice.did(), "and back").await;
    assert!(alice.text().await.contains("and back"));
}
