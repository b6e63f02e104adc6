//! What hooks share.

use std::time::Duration;

use conexus_plugin_api::host::{StateError, Value};

use super::{A, B, Engine, Node, over_each_engine, pass};
use crate::cluster::backplane::{
    StateOperation::{self, Cas, Delete, Expire, Get, Incr, RateLimit, Set},
    StateReply::{self, Done, Flag, Number},
    StateRequest,
};

over_each_engine!(
    values_keep_their_kind,
    numbers_have_64_bits,
    values_end_with_their_time,
    a_value_is_set_if_it_is_as_expected,
    a_rate_is_kept_by_all_together,
    owners_and_kinds_of_keys_are_apart,
);

const LONG: Option<Duration> = Some(Duration::from_secs(600));
const SHORT: Option<Duration> = Some(Duration::from_millis(100));

async fn of(
    node: &Node,
    namespace: &str,
    key: &str,
    operation: StateOperation,
) -> Result<StateReply, StateError> {
    let request = StateRequest { namespace: namespace.into(), key: key.to_owned(), operation };
    node.link.state(&request).await.unwrap()
}

async fn does(node: &Node, key: &str, operation: StateOperation) -> Result<StateReply, StateError> {
    of(node, "hook", key, operation).await
}

fn value(value: impl Into<Value>) -> Result<StateReply, StateError> {
    Ok(StateReply::Value(Some(value.into())))
}

const NONE: Result<StateReply, StateError> = Ok(StateReply::Value(None));

async fn values_keep_their_kind(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    assert_eq!(does(&a, "k", Get).await, NONE);
    assert_eq!(does(&a, "k", Delete).await, Ok(Flag(false)));
    for kept in [
        Value::Int(-5),
        Value::Text("-5".into()),
        Value::Text("".into()),
        Value::Json("{\"ä\":[1]}".into()),
        Value::Bytes([0, 13, 10, 255].as_slice().into()),
    ] {
        let set = Set { value: kept.clone(), ttl: None };
        assert_eq!(does(&a, "a key }{ with\r\nall", set).await, Ok(Done));
        assert_eq!(does(&b, "a key }{ with\r\nall", Get).await, value(kept));
    }
    assert_eq!(does(&b, "a key }{ with\r\nall", Delete).await, Ok(Flag(true)));
    assert_eq!(does(&a, "a key }{ with\r\nall", Get).await, NONE);
}

async fn numbers_have_64_bits(engine: Engine) {
    let a = engine.link(A).await;
    let incr = |by| Incr { by, ttl: None };
    assert_eq!(does(&a, "n", incr(5)).await, Ok(Number(5)));
    assert_eq!(does(&a, "n", incr(-7)).await, Ok(Number(-2)));
    let near = i64::MAX - 1;
    assert_eq!(does(&a, "n", Set { value: near.into(), ttl: None }).await, Ok(Done));
    assert_eq!(does(&a, "n", incr(1)).await, Ok(Number(i64::MAX)));
    assert_eq!(does(&a, "n", incr(1)).await, Err(StateError::Overflow));
    assert_eq!(does(&a, "n", Get).await, value(i64::MAX));
    assert_eq!(does(&a, "m", incr(i64::MIN)).await, Ok(Number(i64::MIN)));
    assert_eq!(does(&a, "m", incr(-1)).await, Err(StateError::Overflow));
    for text in ["5", "five"] {
        let text = Value::Text(text.into());
        assert_eq!(does(&a, "t", Set { value: text, ttl: None }).await, Ok(Done));
        assert_eq!(does(&a, "t", incr(1)).await, Err(StateError::NotANumber));
    }
}

/// Waits until there is none.
async fn gone(node: &Node, key: &str) {
    while does(node, key, Get).await != NONE {
        pass().await;
    }
}

async fn values_end_with_their_time(engine: Engine) {
    let a = engine.link(A).await;
    let set = |ttl| Set { value: "v".into(), ttl };
    does(&a, "k", set(SHORT)).await.unwrap();
    gone(&a, "k").await;
    // A time to live is the counter's from when it is made, not from when it counts.
    let incr = |ttl| Incr { by: 1, ttl };
    assert_eq!(does(&a, "n", incr(SHORT)).await, Ok(Number(1)));
    assert_eq!(does(&a, "n", incr(LONG)).await, Ok(Number(2)));
    gone(&a, "n").await;
    // Set anew it is there for good; and then for a time again.
    does(&a, "k", set(SHORT)).await.unwrap();
    does(&a, "k", set(None)).await.unwrap();
    does(&a, "l", set(SHORT)).await.unwrap();
    gone(&a, "l").await;
    assert_eq!(does(&a, "k", Get).await, value("v"));
    assert_eq!(does(&a, "k", Expire { ttl: SHORT }).await, Ok(Flag(true)));
    gone(&a, "k").await;
    assert_eq!(does(&a, "k", Expire { ttl: SHORT }).await, Ok(Flag(false)));
    does(&a, "k", set(SHORT)).await.unwrap();
    assert_eq!(does(&a, "k", Expire { ttl: None }).await, Ok(Flag(true)));
    does(&a, "l", set(SHORT)).await.unwrap();
    gone(&a, "l").await;
    assert_eq!(does(&a, "k", Get).await, value("v"));
    // No time at all is none.
    for over in [set(Some(Duration::ZERO)), Expire { ttl: Some(Duration::ZERO) }] {
        does(&a, "k", set(None)).await.unwrap();
        does(&a, "k", over).await.unwrap();
        assert_eq!(does(&a, "k", Get).await, NONE);
    }
    assert_eq!(does(&a, "z", incr(Some(Duration::ZERO))).await, Ok(Number(1)));
    assert_eq!(does(&a, "z", Get).await, NONE);
    does(&a, "k", set(Some(Duration::MAX))).await.unwrap();
    assert_eq!(does(&a, "k", Get).await, value("v"));
}

async fn a_value_is_set_if_it_is_as_expected(engine: Engine) {
    let a = engine.link(A).await;
    let cas =
        |expected: Option<Value>, value: &str| Cas { expected, value: value.into(), ttl: None };
    assert_eq!(does(&a, "k", cas(Some("x".into()), "y")).await, Ok(Flag(false)));
    assert_eq!(does(&a, "k", cas(None, "one")).await, Ok(Flag(true)));
    assert_eq!(does(&a, "k", cas(None, "two")).await, Ok(Flag(false)));
    let json = Value::Json("one".into());
    assert_eq!(does(&a, "k", cas(Some(json), "two")).await, Ok(Flag(false)));
    assert_eq!(does(&a, "k", cas(Some("one".into()), "two")).await, Ok(Flag(true)));
    assert_eq!(does(&a, "k", Get).await, value("two"));
    let short = Cas { expected: Some("two".into()), value: 1.into(), ttl: SHORT };
    assert_eq!(does(&a, "k", short).await, Ok(Flag(true)));
    gone(&a, "k").await;
    let none = Cas { expected: None, value: 1.into(), ttl: Some(Duration::ZERO) };
    assert_eq!(does(&a, "k", none).await, Ok(Flag(true)));
    assert_eq!(does(&a, "k", Get).await, NONE);
}

async fn a_rate_is_kept_by_all_together(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let limit = |count, per| RateLimit { count, per };
    let hour = Duration::from_secs(3600);
    let mut admitted = 0;
    for node in [&a, &b, &a, &b, &a, &b, &a] {
        admitted += i32::from(does(node, "r", limit(5, hour)).await == Ok(Flag(true)));
    }
    assert_eq!(admitted, 5);
    assert_eq!(does(&a, "r", limit(0, hour)).await, Err(StateError::BadRate));
    assert_eq!(does(&a, "r", limit(1, Duration::ZERO)).await, Err(StateError::BadRate));
    // Another rate owes a whole burst of its own at most.
    assert_eq!(does(&a, "r", limit(1, Duration::from_millis(100))).await, Ok(Flag(false)));
    while does(&a, "r", limit(1, Duration::from_millis(100))).await != Ok(Flag(true)) {
        pass().await;
    }
    for long in [Duration::from_secs(86_400 * 365), Duration::MAX] {
        let key = format!("{long:?}");
        for expected in [true, true, true, false, false] {
            assert_eq!(does(&a, &key, limit(3, long)).await, Ok(Flag(expected)), "{long:?}");
        }
    }
}

async fn owners_and_kinds_of_keys_are_apart(engine: Engine) {
    let a = engine.link(A).await;
    let limit = RateLimit { count: 1, per: Duration::from_secs(60) };
    assert_eq!(of(&a, "one", "k", limit.clone()).await, Ok(Flag(true)));
    assert_eq!(of(&a, "two", "k", limit.clone()).await, Ok(Flag(true)));
    let set = |text: &str| Set { value: text.into(), ttl: None };
    for (namespace, key) in [("one", "k"), ("two", "k"), ("one", "k}:rate"), ("one", "")] {
        of(&a, namespace, key, set(&format!("{namespace} {key}"))).await.unwrap();
    }
    for (namespace, key) in [("one", "k"), ("two", "k"), ("one", "k}:rate"), ("one", "")] {
        let kept = of(&a, namespace, key, Get).await;
        assert_eq!(kept, value(format!("{namespace} {key}")));
    }
    assert_eq!(of(&a, "one", "k", limit).await, Ok(Flag(false)));
}
