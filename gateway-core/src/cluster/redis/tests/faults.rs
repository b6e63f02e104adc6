//! Servers that die, hang, or forget.

use super::{super::scripts, *};
use crate::cluster::ids::Bucket;

#[tokio::test]
async fn a_link_dies_with_its_server_and_another_begins_with_an_empty_one() {
    let mut server = RedisServer::start();
    let url = server.url();
    let first = connect(&url, &settings(), A).await.unwrap();
    let agent = agent();
    first.renew().await.unwrap();
    first.claim(&agent).await.unwrap();
    server.restart_empty();
    let why = first.lost().await;
    assert!(why.contains(&format!("127.0.0.1:{}", server.port())), "{why}");
    let second = eventually(&url, &settings(), A).await;
    assert!(second.renew().await.unwrap().entered);
    assert!(!second.knows(&agent).await);
    second.claim(&agent).await.unwrap();
    assert!(second.knows(&agent).await);
    assert!(second.link.latency().is_some_and(|(half, slowest)| half <= slowest));
    server.kill();
    assert!(refused(&url, &settings()).await.contains("refused"));
}

#[tokio::test]
async fn scripts_that_a_server_has_forgotten_are_told_again() {
    let server = RedisServer::start();
    let linked = connect(&server.url(), &settings(), A).await.unwrap();
    for _ in 0..2 {
        server.must(&["SCRIPT", "FLUSH"]);
        linked.renew().await.unwrap();
        let agent = agent();
        linked.claim(&agent).await.unwrap();
        assert!(linked.knows(&agent).await);
    }
    // By then it goes by the hash.
    server.must(&["CONFIG", "RESETSTAT"]);
    linked.renew().await.unwrap();
    let calls = server.must(&["INFO", "commandstats"]);
    assert!(calls.contains("cmdstat_evalsha:") && !calls.contains("cmdstat_eval:"), "{calls}");
}

#[tokio::test]
async fn what_a_hung_server_was_asked_is_not_done_late() {
    let server = RedisServer::start();
    let quick = RedisSettings { timeout: Duration::from_millis(300), ..settings() };
    let hung = connect(&server.url(), &quick, A).await.unwrap();
    hung.renew().await.unwrap();
    let agent = agent();
    server.pause();
    // It lies in the server's socket from now on.
    let why = hung.claim(&agent).await.unwrap_err().to_string();
    assert!(why.contains("did not answer for 300ms"), "{why}");
    assert_eq!(hung.lost().await, why);
    server.resume();
    let fresh = eventually(&server.url(), &settings(), B).await;
    // What came before is behind it when it is answered.
    fresh.renew().await.unwrap();
    assert!(!fresh.knows(&agent).await);
    let stats = server.must(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_eval"), "{stats}");
}

#[tokio::test]
async fn a_script_that_comes_too_late_does_nothing() {
    let server = RedisServer::start();
    let linked = connect(&server.url(), &settings(), A).await.unwrap();
    let now = linked.renew().await.unwrap().now.0;
    let late = |not_after: u64| {
        let mut call = scripts::SET.by_hash();
        call.arg(1).arg("key").arg(not_after).arg("tvalue").arg("");
        scripts::SET.in_full(&call)
    };
    let run = |not_after| {
        let packed = late(not_after);
        let parts: Vec<String> = packed
            .args_iter()
            .filter_map(|part| match part {
                redis::Arg::Simple(part) => Some(String::from_utf8(part.to_vec()).unwrap()),
                _ => None,
            })
            .collect();
        server.command(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(run(now - 1).starts_with("-LATE"));
    assert_eq!(server.command(&["EXISTS", "key"]), ":0\r\n");
    assert_eq!(run(now + 60_000_000), ":1\r\n");
    assert_eq!(server.command(&["EXISTS", "key"]), ":1\r\n");
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_ends_the_link() {
    let server = RedisServer::start();
    let linked = connect(&server.url(), &settings(), A).await.unwrap();
    let agent = agent();
    linked.claim(&agent).await.unwrap();
    let bucket = agent.key[0];
    server.must(&["DEL", &format!("{{conexus:{bucket}}}:dir")]);
    server.must(&["SET", &format!("{{conexus:{bucket}}}:dir"), "what nobody put there"]);
    let why = linked.claim(&agent).await.unwrap_err().to_string();
    assert!(why.contains("put.lua") && why.contains("WRONGTYPE"), "{why}");
    linked.lost().await;
}

#[tokio::test]
async fn a_link_that_is_dropped_leaves_nothing_behind() {
    let server = RedisServer::start();
    let linked = connect(&server.url(), &settings(), A).await.unwrap();
    let count = || {
        server
            .must(&["CLIENT", "LIST"])
            .lines()
            .filter(|line| line.contains("lib-name=conexus") || line.contains("ssub=1"))
            .count()
    };
    assert_eq!(count(), 1);
    drop(linked);
    let gone = async {
        while count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, gone).await.unwrap();
}

#[tokio::test]
async fn an_entry_that_nobody_can_read_is_no_ones_and_does_no_harm() {
    let server = RedisServer::start();
    let linked = connect(&server.url(), &settings(), A).await.unwrap();
    linked.renew().await.unwrap();
    let (agent, member) = (agent(), A.to_string());
    let key = AgentKey::from_bytes(agent.key);
    let no_agent = format!("{member} 17 {{}}");
    for garbage in ["", "garbage", &member, &no_agent, "000000000000000g 1 {}"] {
        linked.claim(&agent).await.unwrap();
        let overwrite = "for _, k in ipairs(redis.call('KEYS', '*:dir')) do
            for _, f in ipairs(redis.call('HKEYS', k)) do redis.call('HSET', k, f, ARGV[1]) end
        end return 1";
        assert!(server.must(&["EVAL", overwrite, "0", garbage]).contains('1'));
        assert!(!linked.knows(&agent).await, "{garbage:?}");
        assert!(linked.link.entries(A, Bucket::of(key)).await.unwrap().is_empty());
        let claimed = linked.claim(&agent).await.unwrap();
        assert!(matches!(claimed, Claimed::Won { .. }), "{garbage:?}: {claimed:?}");
        assert!(linked.knows(&agent).await);
    }
}
