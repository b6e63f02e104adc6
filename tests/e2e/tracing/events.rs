//! `GET /events`: what happens, as it happens.

use crate::support::{
    events::Events,
    http,
    process::{Process, folder_with},
    soon,
};

async fn start() -> (tempfile::TempDir, Process) {
    let folder = folder_with(&[("gateway.toml", "[routing]\nrelay = [\"OFFER\", \"ANSWER\"]\n")]);
    let gateway = Process::start(folder.path(), &[]).await;
    (folder, gateway)
}

#[tokio::test]
async fn the_messages_of_a_followed_agent_are_told_and_no_others() {
    let (_folder, gateway) = start().await;
    let (mut a, mut b, mut c) =
        (gateway.agent().await, gateway.agent().await, gateway.agent().await);
    let mut events =
        Events::open(gateway.admin, &format!("topics=message&agent={}", b.did())).await;
    a.send_offer(&c.did(), "not of b").await;
    c.text().await;

    let (id, text) = a.send_offer(&b.did(), "hello").await;
    b.text().await;
    let event = events.next_of("message").await;
    assert_eq!((event["id"].as_str(), event["type"].as_str()), (Some(&*id), Some("OFFER")));
    assert_eq!((event["from"].as_str(), event["to"].as_str()), (Some(&*a.did()), Some(&*b.did())));
    assert_eq!((&event["outcome"], &event["reason"]), (&"delivered".into(), &().into()));
    assert_eq!(event["bytes"], text.len());
    assert!(event["latency_us"].is_u64() && event["correlation_id"].is_null(), "{event}");
    assert_eq!(event["trace"].as_str().unwrap().len(), 32);
    assert!(!event.to_string().contains("hello"), "no payload is told: {event}");

    b.send_offer("did:key:gateway", "nobody").await;
    b.refusal().await;
    let event = events.next_of("message").await;
    assert_eq!((&event["outcome"], &event["reason"]), (&"refused".into(), &"unknown_agent".into()));
    assert_eq!((&event["to"], &event["latency_us"]), (&"did:key:gateway".into(), &().into()));
}

#[tokio::test]
async fn what_is_too_much_for_a_follower_is_counted() {
    const MESSAGES: u64 = 3000;
    /// Fewer than an outbox takes.
    const BURST: u64 = 100;
    let (_folder, gateway) = start().await;
    let mut a = gateway.agent().await;
    let mut events =
        Events::open(gateway.admin, &format!("topics=message&agent={}", a.did())).await;
    let to_itself = a.offer(&a.did(), "x").1;
    let sending = async {
        for _ in 0..MESSAGES / BURST {
            for _ in 0..BURST {
                a.send(&*to_itself).await;
            }
            for _ in 0..BURST {
                a.text().await;
            }
        }
    };
    let listening = async {
        let (mut told, mut missed) = (0, 0);
        while told + missed < MESSAGES {
            match events.next().await.expect("an event") {
                (topic, _) if topic == "message" => told += 1,
                (topic, event) => {
                    assert_eq!(topic, "lagged");
                    missed += event["missed"].as_u64().unwrap();
                }
            }
        }
        (told, missed)
    };
    let ((), (told, missed)) = tokio::join!(sending, listening);
    assert_eq!(told + missed, MESSAGES);
}

#[tokio::test]
async fn the_way_of_an_agent_is_told_to_those_who_ask_for_sessions() {
    let (_folder, gateway) = start().await;
    let mut all = Events::open(gateway.admin, "topics=session").await;
    let mut a = gateway.agent().await;
    let event = all.next_of("session").await;
    assert_eq!(
        (event["kind"].as_str(), event["did"].as_str()),
        (Some("registered"), Some(&*a.did()))
    );
    assert_eq!(event["subprotocol"], "ioap.v1");
    let mut own = Events::open(gateway.admin, &format!("topics=session&agent={}", a.did())).await;
    let b = gateway.agent().await;
    assert_eq!(all.next_of("session").await["did"].as_str(), Some(&*b.did()));
    a.socket.close(None).await.unwrap();
    for events in [&mut all, &mut own] {
        let event = events.next_of("session").await;
        assert_eq!(
            (event["kind"].as_str(), event["did"].as_str()),
            (Some("left"), Some(&*a.did()))
        );
        assert_eq!(event["reason"], "closed");
    }
}

#[tokio::test]
async fn who_talks_to_whom_is_added_up_each_second() {
    let (_folder, gateway) = start().await;
    let (mut a, mut b) = (gateway.agent().await, gateway.agent().await);
    let mut events = Events::open(gateway.admin, "topics=flow").await;
    // The budget is there at once.
    for _ in 0..3 {
        a.send_offer(&b.did(), "x").await;
        b.text().await;
    }
    a.send_offer("did:key:gateway", "x").await;
    a.refusal().await;
    let (mut delivered, mut refused) = (0, 0);
    while delivered < 3 || refused < 1 {
        let flow = events.next_of("flow").await;
        assert_eq!((&flow["sampled"], &flow["share"]), (&false.into(), &1.0.into()));
        for edge in flow["edges"].as_array().unwrap() {
            assert_eq!(
                (edge["from"].as_str(), edge["type"].as_str()),
                (Some(&*a.did()), Some("OFFER"))
            );
            delivered += edge["delivered"].as_u64().unwrap();
            refused += edge["refused"]["unknown_agent"].as_u64().unwrap_or(0);
            let to = if edge["delivered"] == 0 { String::new() } else { b.did() };
            assert_eq!(edge["to"].as_str(), Some(&*to));
        }
    }
    assert_eq!((delivered, refused), (3, 1));
}

#[tokio::test]
async fn an_operators_doings_are_told() {
    let (_folder, gateway) = start().await;
    let mut events = Events::open(gateway.admin, "topics=audit").await;
    assert_eq!(gateway.post("/api/v1/reload").await.0, 200);
    let event = events.next_of("audit").await;
    assert_eq!((&event["action"], &event["outcome"]), (&"reload".into(), &"done".into()));
}

#[tokio::test]
async fn a_stream_ends_with_the_gateway() {
    let (_folder, gateway) = start().await;
    let mut events = Events::open(gateway.admin, "topics=session").await;
    assert!(gateway.stop().await.success());
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let (_folder, gateway) = start().await;
    let agent = gateway.agent().await;
    for (query, status) in [
        ("topics=nonsense".to_owned(), 400),
        ("topics=message".to_owned(), 400),
        ("topic=session".to_owned(), 400),
        ("topics=message&agent=did:key:gateway".to_owned(), 422),
        (format!("topics=&agent={}", agent.did()), 400),
    ] {
        let (answered, said) = http::get(gateway.admin, &format!("/events?{query}"), &[]).await;
        assert_eq!(answered, status, "{query}: {said}");
        assert!(said["error"].is_string());
    }
}

#[tokio::test]
async fn only_so_many_may_listen_at_once() {
    let (_folder, gateway) = start().await;
    let mut listeners = Vec::new();
    for _ in 0..64 {
        listeners.push(Events::open(gateway.admin, "topics=session").await);
    }
    let (status, said) = http::get(gateway.admin, "/events?topics=session", &[]).await;
    assert_eq!(status, 503, "{said}");
    listeners.pop();
    // Its place is free once the gateway has noticed, at the latest when there is something to tell.
    soon("a place", async {
        loop {
            let agent = gateway.agent().await;
            drop(agent);
            let mut stream = tokio::net::TcpStream::connect(gateway.admin).await.unwrap();
            let request = b"GET /events?topics=audit HTTP/1.0\r\nHost: localhost\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
            let mut head = [0; 12];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
            if head.ends_with(b"200") {
                return;
            }
        }
    })
    .await;
}
