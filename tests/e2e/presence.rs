//! Duties 7, 9, 10 and the heartbeat: takeover, leaving, expiry; and what `/agents` shows of it.

use std::time::Duration;

use conexus_gateway::config::{Activity, AgentsAccess};
use conexus_protocol::{ErrorCode, Identity, Subprotocol, Unregister};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    agent::Agent,
    backplane,
    gateway::{Background, TestGateway},
    http, soon,
};

#[tokio::test]
async fn a_newer_registration_wins_in_either_spelling_and_the_older_end_does_not_touch_it() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    for newer in [me.clone(), me.clone().with_legacy_did()] {
        let mut old = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
        let mut new = Agent::registered_as(&gateway, Subprotocol::V1_1, newer.clone()).await;
        let (code, reason) = old.close().await;
        assert_eq!((code, reason.is_empty()), (4003, false));
        assert!(soon("the end of the old socket", old.socket.next()).await.is_none());
        gateway.has_agents(1).await;
        let mut other = Agent::v1(&gateway).await;
        let (_, text) = other.send_offer(me.did(), "x").await;
        assert_eq!(new.text().await, text);
        let (_, agents) = gateway.get("/agents").await;
        assert_eq!(agents["count"], 2);
        drop((other, new));
        gateway.has_agents(0).await;
    }
}

#[tokio::test]
async fn many_registrations_of_one_key_at_once_leave_exactly_one() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let mut agents = Vec::new();
    for _ in 0..20 {
        agents.push(Agent::connect_as(&gateway, Subprotocol::V1_1, me.clone()).await);
    }
    for agent in &mut agents {
        let (_, text) = agent.sign(&agent.did(), agent.registration());
        agent.send(text).await;
    }
    let mut open = 0;
    let mut registered = Vec::new();
    for mut agent in agents {
        match agent.frame().await {
            Ok(Message::Text(text)) if text.contains("REGISTERED") => registered.push(agent),
            // In a cluster a newer one may be there before the directory has this one.
            Ok(Message::Close(Some(frame))) if backplane::is_on() => {
                assert_eq!(u16::from(frame.code), 4003);
            }
            other => panic!("{other:?}"),
        }
    }
    gateway.has_agents(1).await;
    for agent in &mut registered {
        // Whoever lost reads its close; the one that is left answers itself.
        let (_, text) = agent.offer(me.did(), "to myself");
        if agent.socket.send(Message::text(text.clone())).await.is_err() {
            continue;
        }
        match agent.frame().await {
            Ok(Message::Text(got)) if got == text => open += 1,
            Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 4003),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(open, 1);
}

#[tokio::test]
async fn unregister_removes_presence_at_once_and_closes_with_1000() {
    let gateway = TestGateway::start().await;
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut agent = Agent::registered(&gateway, subprotocol).await;
        let (_, text) = agent.sign("anyone", Unregister { reason: Some("bye".into()) });
        agent.send(text).await;
        assert_eq!(agent.close().await.0, 1000);
        let (_, health) = gateway.get("/health").await;
        assert_eq!(health["connected_agents"], 0);
    }
}

#[tokio::test]
async fn a_socket_that_ends_in_any_way_ends_the_presence() {
    let gateway = TestGateway::start().await;
    let mut agent = Agent::v1(&gateway).await;
    agent.socket.close(None).await.unwrap();
    gateway.has_agents(0).await;
    let agent = Agent::v1(&gateway).await;
    drop(agent);
    gateway.has_agents(0).await;
}

#[tokio::test]
async fn a_silent_agent_expires_with_an_error_and_close_4004() {
    let gateway = TestGateway::start_with(|s| {
        s.presence.timeout = Duration::from_millis(300);
    })
    .await;
    let mut agent = Agent::v1(&gateway).await;
    // The socket stays open and answers nothing: no pong is sent while nothing is read.
    gateway.has_agents(0).await;
    let (_, agents) = gateway.get("/agents").await;
    assert_eq!(agents["count"], 0);
    let refusal = agent.refusal().await;
    assert_eq!((refusal.code, refusal.correlation_id), (ErrorCode::Timeout, None));
    assert_eq!(agent.close().await.0, 4004);
}

#[tokio::test]
async fn pings_keep_an_agent_present_that_says_nothing_unless_only_messages_count() {
    for (activity, lives) in [(Activity::Frames, true), (Activity::Messages, false)] {
        let gateway = TestGateway::start_with(|s| {
            s.presence.timeout = Duration::from_secs(1);
            s.presence.heartbeat = Some(Duration::from_millis(100));
            s.presence.activity = activity;
        })
        .await;
        let mut agent = Agent::v1(&gateway).await;
        // Reading is what answers pings. Twenty of them span two time-outs.
        let mut pings = 0;
        let ended = soon("twenty pings or the end", async {
            while pings < 20 {
                match agent.socket.next().await {
                    Some(Ok(Message::Ping(_))) => pings += 1,
                    Some(Ok(Message::Text(_))) => {}
                    Some(Ok(Message::Close(frame))) => return frame.map(|f| u16::from(f.code)),
                    other => panic!("{other:?}"),
                }
            }
            None
        })
        .await;
        assert_eq!(ended, if lives { None } else { Some(4004) }, "{activity:?}");
    }
}

#[tokio::test]
async fn agents_are_listed_page_by_page() {
    let gateway = TestGateway::start_with(|s| s.http.agents_page = 4).await;
    let mut agents = Vec::new();
    for _ in 0..10 {
        agents.push(Agent::v1(&gateway).await);
    }
    let mut seen = Vec::new();
    let mut path = "/agents?limit=3".to_owned();
    loop {
        let (status, page) = gateway.get(&path).await;
        assert_eq!((status, page["count"].as_u64()), (200, Some(10)));
        let dids = page["agents"].as_array().unwrap();
        seen.extend(dids.iter().map(|agent| agent["did"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/agents?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    let mut expected: Vec<_> = agents.iter().map(Agent::did).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);

    let (_, first) = gateway.get("/agents?limit=9").await;
    assert_eq!(first["agents"].as_array().unwrap().len(), 4, "a page is bounded");
    let agent = &first["agents"][0];
    for member in ["did", "connected_at", "last_activity"] {
        assert!(agent[member].is_string(), "{agent}");
    }
    for bad in ["limit=0", "limit=-1", "limit=x", "cursor=!!", "nonsense=1"] {
        let (status, body) = gateway.get(&format!("/agents?{bad}")).await;
        assert_eq!(status, 400, "{bad}");
        assert!(body["error"].is_string(), "{bad}");
    }
}

#[tokio::test]
async fn the_list_of_agents_is_public_for_a_token_or_off() {
    let gateway = TestGateway::start_with(|s| s.http.agents = AgentsAccess::Off).await;
    assert_eq!(gateway.get("/agents").await.0, 404);

    let gateway = TestGateway::start_with(|s| {
        s.http.agents = AgentsAccess::Token;
        s.http.agents_token = Some(conexus_gateway::config::Secret::new("s3cret"));
    })
    .await;
    for (headers, status) in [
        (&[][..], 401),
        (&[("Authorization", "Bearer wrong")], 401),
        (&[("Authorization", "s3cret")], 401),
        (&[("Authorization", "Bearer s3cret")], 200),
    ] {
        let (got, _) = http::get(gateway.addr, "/agents", headers).await;
        assert_eq!(got, status, "{headers:?}");
    }
}

#[tokio::test]
async fn health_and_ready_say_how_it_is() {
    let gateway = TestGateway::start().await;
    let _agent = Agent::v1(&gateway).await;
    let (status, health) = gateway.get("/health").await;
    assert_eq!((status, &health["status"]), (200, &"healthy".into()));
    assert_eq!(health["connected_agents"], 1);
    assert!(conexus_protocol::Timestamp::parse(health["timestamp"].as_str().unwrap()).is_some());
    let (status, ready) = gateway.get("/ready").await;
    assert_eq!((status, &ready["status"]), (200, &"ready".into()));
    assert_eq!(gateway.get("/nowhere").await.0, 404);
}

#[tokio::test]
async fn takeovers_under_traffic_lose_and_double_nothing() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let mut sender = Agent::v1(&gateway).await;
    let mut receiver = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    let mut seen = Vec::new();
    let mut sent = Vec::new();
    for round in 0..10 {
        for n in 0..20 {
            let (_, text) = sender.send_offer(me.did(), &format!("{round}-{n}")).await;
            sent.push(text);
        }
        let mut newer = Agent::connect_as(&gateway, Subprotocol::V1_1, me.clone()).await;
        let (_, register) = newer.sign(me.did(), newer.registration());
        newer.send(register).await;
        // What the older one was sent, then its close; behind it nothing.
        loop {
            match receiver.frame().await {
                Ok(Message::Text(text)) if text.contains("REGISTERED") => {}
                Ok(Message::Text(text)) => seen.push(text.to_string()),
                Ok(Message::Close(Some(frame))) => {
                    assert_eq!(u16::from(frame.code), 4003);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        receiver = newer;
    }
    while seen.len() < sent.len() {
        let text = receiver.text().await;
        if !text.contains("REGISTERED") {
            seen.push(text);
        }
    }
    assert_eq!(seen, sent);
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered), (200, 200));
}

#[tokio::test]
async fn a_busy_neighbour_does_not_keep_a_silent_agent_alive() {
    let gateway = TestGateway::start_with(|s| {
        s.presence.timeout = Duration::from_millis(800);
    })
    .await;
    let mut silent = Agent::v1(&gateway).await;
    let mut busy = Agent::v1(&gateway).await;
    let _traffic = Background::spawn(async move {
        loop {
            busy.ping().await;
        }
    });
    gateway.has_agents(1).await;
    assert_eq!(silent.refusal().await.code, ErrorCode::Timeout);
}
