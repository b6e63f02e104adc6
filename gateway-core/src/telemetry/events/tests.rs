//! Events on their whole way, from whoever makes them to whoever listens.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use conexus_protocol::{MessageType, RefusalReason};
use serde_json::{Value, json};

use super::{
    hub::{FOLLOWED, RING},
    message::MAX_TEXT,
    *,
};
use crate::{session::handle::tests::session, telemetry::Telemetry};

const TOPICS: Topics = Topics::of(Topic::Session);
const MESSAGES: Topics = Topics::of(Topic::Message);

fn told(frame: &Bytes) -> (String, Value) {
    let text = std::str::from_utf8(frame).unwrap();
    let (name, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
    (name.to_owned(), serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap())
}

fn text(members: &str) -> String {
    format!(
        r#"{{"from":"a","id":"7","payload":{{"sdp":"s3cret"}},"signature":"",{members}"to":"b","type":"OFFER"}}"#
    )
}

#[tokio::test]
async fn nothing_is_made_while_nobody_listens() {
    let telemetry = Arc::new(Telemetry::default());
    let hub = &telemetry.hub;
    for topic in Topic::ALL {
        assert!(!hub.wants(topic), "{topic:?}");
    }
    let mut listener = telemetry.listen(TOPICS, None).unwrap();
    assert!(hub.wants(Topic::Session) && !hub.wants(Topic::Audit) && !hub.watches_messages());
    hub.publish(Topic::Audit, &[], &1);
    hub.publish(Topic::Session, &[], &2);
    assert_eq!(told(&listener.next().await), ("session".into(), json!(2)));
    drop(listener);
    assert!(!hub.wants(Topic::Session));
}

#[tokio::test]
async fn who_is_too_slow_is_told_so_and_goes_on_with_what_is_left() {
    let telemetry = Arc::new(Telemetry::default());
    let (mut slow, mut fast) =
        (telemetry.listen(TOPICS, None).unwrap(), telemetry.listen(TOPICS, None).unwrap());
    for n in 0..RING + 10 {
        telemetry.hub.publish(Topic::Session, &[], &n);
        assert_eq!(told(&fast.next().await), ("session".into(), json!(n)));
    }
    assert_eq!(told(&slow.next().await), ("lagged".into(), json!({ "missed": 10 })));
    assert_eq!(told(&slow.next().await), ("session".into(), json!(10)));
}

#[tokio::test]
async fn an_agents_listener_gets_what_is_about_it_or_about_nobody() {
    let telemetry = Arc::new(Telemetry::default());
    let (one, other) = (session().agent.key(), session().agent.key());
    let mut listener = telemetry.listen(TOPICS, Some(one)).unwrap();
    telemetry.hub.publish(Topic::Session, &[other], &1);
    telemetry.hub.publish(Topic::Session, &[other, one], &2);
    telemetry.hub.publish(Topic::Session, &[], &3);
    assert_eq!(told(&listener.next().await).1, json!(2));
    assert_eq!(told(&listener.next().await).1, json!(3));
}

#[tokio::test]
async fn a_message_is_told_with_its_sender_s_trace_and_without_its_payload() {
    let telemetry = Arc::new(Telemetry::default());
    let (sender, target) = (session(), session());
    let mut listener = telemetry.listen(MESSAGES, Some(target.agent.key())).unwrap();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let long = "x".repeat(MAX_TEXT + 1);
    let members = format!(r#""traceparent":"{traceparent}","correlation_id":"{long}","#);
    for members in ["", &members] {
        let message = Passing {
            kind: MessageType::Offer,
            text: &text(members),
            sender: &sender,
            number: 1,
            to: Some(target.agent.key()),
            read_at: None,
        };
        telemetry.hub.message(message, Outcome::Delivered(Some(Duration::from_micros(12))));
    }
    let (_, event) = told(&listener.next().await);
    assert_eq!(event["trace"], json!(sender.trace.id(1)));
    assert_eq!((&event["id"], &event["latency_us"]), (&json!("7"), &json!(12)));
    // What the text says is not whom it is for: somebody redirected it.
    assert_eq!(event["to"], json!(target.agent.as_str()));
    let (_, event) = told(&listener.next().await);
    assert_eq!(event["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(event["correlation_id"], Value::Null);
    assert!(!event.to_string().contains("s3cret"));
}

#[tokio::test]
async fn whom_a_message_is_for_is_cut_between_characters_where_that_is_nobody() {
    let telemetry = Arc::new(Telemetry::default());
    let sender = session();
    let mut listener = telemetry.listen(MESSAGES, Some(sender.agent.key())).unwrap();
    let text = text("").replace(r#""to":"b""#, &format!(r#""to":"x{}""#, "é".repeat(9_000)));
    let (kind, number) = (MessageType::Offer, 1);
    let message = Passing { kind, text: &text, sender: &sender, number, to: None, read_at: None };
    telemetry.hub.message(message, Outcome::Refused(Some(RefusalReason::UnknownAgent)));
    let (_, event) = told(&listener.next().await);
    assert_eq!(event["to"], format!("x{}", "é".repeat(63)));
}

#[tokio::test(start_paused = true)]
async fn what_is_over_the_budget_is_counted_and_the_budget_comes_back() {
    let telemetry = Arc::new(Telemetry::default());
    let sender = session();
    let mut listener = telemetry.listen(MESSAGES, Some(sender.agent.key())).unwrap();
    let text = text("");
    let tell = || {
        let (kind, number) = (MessageType::Offer, 1);
        let message =
            Passing { kind, text: &text, sender: &sender, number, to: None, read_at: None };
        telemetry.hub.message(message, Outcome::Refused(Some(RefusalReason::Denied)));
    };
    let budget = usize::try_from(FOLLOWED).unwrap();
    for _ in 0..budget + 3 {
        tell();
    }
    for _ in 0..budget {
        let (name, event) = told(&listener.next().await);
        assert_eq!((name.as_str(), &event["reason"]), ("message", &json!("denied")));
    }
    let serving = telemetry.hub.serve(|key| key.did());
    let missed = tokio::select! {
        () = serving => unreachable!("it serves until dropped"),
        frame = listener.next() => told(&frame),
    };
    assert_eq!(missed, ("lagged".into(), json!({ "missed": 3 })));
    tell();
    assert_eq!(told(&listener.next().await).0, "message");
}

#[test]
fn every_topic_has_a_name_of_its_own() {
    let names: BTreeSet<_> = Topic::ALL.iter().map(|topic| topic.as_str()).collect();
    assert_eq!(names.len(), Topic::ALL.len());
    assert!(Topic::ALL.iter().all(|topic| Topic::parse(topic.as_str()) == Some(*topic)));
}
