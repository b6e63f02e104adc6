//! Each ruling of policy is obeyed: what is set at registration, where a message goes instead, who
//! gets a copy, what an agent is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_gateway::{
    config::RateClass,
    hooks::{Admission, Denial, Fallback, Passage, Ruling, Way},
};
use conexus_plugin_api::host::{Register, Route};
use conexus_protocol::{AgentKey, ErrorCode, Identity, Metadata, RefusalReason, Subprotocol};
use tokio::net::TcpSocket;

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    http,
    policy::{Changing, Closures},
    until,
};

fn registering(rule: impl Fn(&Register) -> Ruling<Admission> + Send + Sync + 'static) -> Closures {
    Closures { register: Some(Box::new(rule)), ..Closures::default() }
}

fn routing(rule: impl Fn(&Route) -> Ruling<Passage> + Send + Sync + 'static) -> Closures {
    Closures { route: Some(Box::new(rule)), ..Closures::default() }
}

fn by(way: Way) -> Ruling<Passage> {
    Ok(Passage { way, ..Passage::default() })
}

fn denial(reason: RefusalReason, text: &str) -> Denial {
    Denial { reason, text: text.into() }
}

fn named(name: &str) -> Metadata {
    Metadata { name: Some(name.to_owned()), ..Metadata::default() }
}

async fn started(judge: Closures) -> TestGateway {
    TestGateway::start_with_policy(Changing::new(judge), |_| {}).await
}

/// An agent of `ioap.v1.1` that publishes a name.
async fn agent_named(gateway: &TestGateway, name: &str) -> Agent {
    let mut agent = Agent::connect(gateway, Subprotocol::V1_1).await;
    let register = agent.with_metadata(named(name));
    agent.register_with(register).await;
    agent
}

#[tokio::test]
async fn labels_decide_about_routes_of_both_ends_and_are_replaced_at_a_renewal() {
    let mut judge = registering(|event| {
        if event.renewal {
            assert_eq!(event.agent.labels["team"], "red", "those of the present registration");
        }
        let team = event.agent.metadata.name.clone().unwrap_or_default();
        Ok(Admission { labels: [("team".to_owned(), team)].into(), ..Admission::default() })
    });
    judge.route = Some(Box::new(|event| {
        let target = event.target.as_ref().expect("present");
        if event.from.labels == target.labels {
            return Ok(Passage::default());
        }
        Err(denial(RefusalReason::Denied, "not of your team"))
    }));
    let gateway = started(judge).await;
    let mut one = agent_named(&gateway, "red").await;
    let mut two = agent_named(&gateway, "red").await;
    let blue = agent_named(&gateway, "blue").await;

    let (_, text) = one.send_offer(&two.did(), "x").await;
    assert_eq!(two.text().await, text);
    one.send_offer(&blue.did(), "x").await;
    assert_eq!(one.refusal_and_words().await.1, "not of your team");

    one.register_with(one.with_metadata(named("blue"))).await;
    one.send_offer(&two.did(), "x").await;
    assert_eq!(one.refusal().await.reason.as_deref(), Some("denied"));
    let (_, agents) = gateway.get("/agents").await;
    assert!(!agents.to_string().contains("labels"), "labels are policy's");
}

#[tokio::test]
async fn a_rate_class_holds_from_the_registration_that_gives_it() {
    let policy = Changing::new(registering(|event| {
        let slow = RateClass { messages_per_second: 1, message_burst: 2, ..RateClass::default() };
        let class = event.agent.metadata.name.clone().filter(|name| name == "slow");
        Ok(Admission { rate_class: class.map(|name| (name, slow)), ..Admission::default() })
    }));
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let mut agent = agent_named(&gateway, "in no class").await;
    let mut target = Agent::v1(&gateway).await;
    for _ in 0..20 {
        let (_, text) = agent.send_offer(&target.did(), "x").await;
        assert_eq!(target.text().await, text);
    }
    agent.register_with(agent.with_metadata(named("slow"))).await;
    for _ in 0..20 {
        agent.send_offer(&target.did(), "x").await;
    }
    // Twenty at once are more than two.
    assert_eq!(agent.refusal().await.reason.as_deref(), Some("rate_limited"));
}

#[tokio::test]
async fn the_first_lease_is_as_long_as_policy_says_but_not_over_the_cap() {
    for lease in [Duration::from_millis(100), Duration::from_secs(3600)] {
        let policy = Changing::new(registering(move |_| {
            Ok(Admission { lease: Some(lease), ..Admission::default() })
        }));
        let gateway = TestGateway::start_with_policy(policy, |s| {
            s.presence.max_extension = Duration::from_millis(200);
        })
        .await;
        // On v1.1 the answer tells that it is registered, so that nothing more need be sent.
        let mut agent = Agent::v1_1(&gateway).await;
        assert_eq!(agent.refusal().await.code, ErrorCode::Timeout);
        assert_eq!(agent.close().await.0, 4004);
    }
}

#[tokio::test]
async fn metadata_of_policys_is_shown_in_place_of_the_agents_own() {
    let gateway = started(registering(|event| {
        let metadata = match event.agent.metadata.name.as_deref() {
            Some("too long") => named(&"x".repeat(5000)),
            _ => named("shown"),
        };
        Ok(Admission { metadata: Some(metadata), ..Admission::default() })
    }))
    .await;
    let _replaced = agent_named(&gateway, "own").await;
    let _kept = agent_named(&gateway, "too long").await;
    for (name, count) in [("shown", 1), ("own", 0), ("too%20long", 1)] {
        let (_, found) = gateway.get(&format!("/agents?name={name}")).await;
        assert_eq!(found["count"], count, "{name}");
    }
}

#[tokio::test]
async fn a_message_is_redirected_to_another_and_counted_once() {
    let instead = Identity::generate();
    let key = instead.key();
    let gateway = started(routing(move |_| by(Way::Redirect(key)))).await;
    let mut sender = Agent::v1(&gateway).await;
    let mut named = Agent::v1(&gateway).await;
    let mut instead = Agent::registered_as(&gateway, Subprotocol::V1_1, instead).await;
    let (_, text) = sender.send_offer(&named.did(), "x").await;
    assert_eq!(instead.text().await, text);
    // Also for one that is absent.
    let (_, text) = sender.send_offer(Identity::generate().did(), "x").await;
    assert_eq!(instead.text().await, text);
    named.ping().await;
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered), (2, 2));
}

/// Redirects what is `first` to one key, and what is undeliverable to another.
fn redirecting(first: AgentKey, then: AgentKey, asked: &Arc<AtomicUsize>) -> Closures {
    let asked = Arc::clone(asked);
    let mut judge = routing(move |_| by(Way::Redirect(first)));
    judge.undeliverable = Some(Box::new(move |event| {
        assert_eq!((event.to_key, event.target.is_none()), (*first.as_bytes(), true));
        assert!(event.payload().contains("sdp"));
        asked.fetch_add(1, SeqCst);
        Ok(Fallback::Redirect(then))
    }));
    judge
}

#[tokio::test]
async fn an_absent_target_of_a_redirect_is_asked_about_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (absent, last) = (Identity::generate(), Identity::generate());
    let gateway = started(redirecting(absent.key(), last.key(), &asked)).await;
    let mut sender = Agent::v1(&gateway).await;
    let (id, _) = sender.send_offer(&sender.did(), "x").await;
    let refusal = sender.refusal().await;
    assert_eq!(
        (refusal.correlation_id, refusal.reason.as_deref()),
        (Some(id), Some("unknown_agent"))
    );
    assert_eq!(asked.load(SeqCst), 1);

    let mut last = Agent::registered_as(&gateway, Subprotocol::V1_1, last).await;
    let (_, text) = sender.send_offer(&sender.did(), "x").await;
    assert_eq!(last.text().await, text);
    assert_eq!(asked.load(SeqCst), 2);
    let messages = gateway.settled().await;
    assert_eq!((messages.delivered, messages.refused), (1, 1));
}

#[tokio::test]
async fn copies_go_to_those_who_are_there_and_are_counted_apart() {
    let taps: Vec<_> = (0..9).map(|_| Identity::generate()).collect();
    // One tap is absent; the ninth is one too many.
    let copies: Vec<_> = taps.iter().map(Identity::key).collect();
    let gateway = started(routing(move |event| {
        let copies = if event.payload().contains("secret") { Vec::new() } else { copies.clone() };
        Ok(Passage { copies, ..Passage::default() })
    }))
    .await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let mut agents = Vec::new();
    for tap in &taps[1..] {
        agents.push(Agent::registered_as(&gateway, Subprotocol::V1, tap.clone()).await);
    }
    let (_, text) = a.send_offer(&b.did(), "x").await;
    assert_eq!(b.text().await, text);
    a.send_offer(&b.did(), "secret").await;
    b.text().await;
    let ninth = agents.pop().unwrap();
    for tap in &mut agents {
        assert_eq!(tap.text().await, text);
        tap.ping().await;
    }
    let mut ninth = ninth;
    ninth.ping().await;
    // A target that is absent takes no copy away.
    let (_, text) = a.send_offer(Identity::generate().did(), "x").await;
    assert_eq!(agents[0].text().await, text);
    assert_eq!(a.refusal().await.reason.as_deref(), Some("unknown_agent"));

    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered, messages.refused), (3, 2, 1));
    until("all taps to be counted", || gateway.taps().delivered == 14).await;
    assert_eq!(gateway.taps().dropped, 2);
}

#[tokio::test]
async fn a_tap_that_a_stuck_socket_did_not_take_goes_to_the_newer_session() {
    let (tap, asked) = (Identity::generate(), Arc::new(AtomicUsize::new(0)));
    let key = tap.key();
    let judge = routing({
        let asked = Arc::clone(&asked);
        move |_| {
            asked.fetch_add(1, SeqCst);
            Ok(Passage { copies: vec![key], ..Passage::default() })
        }
    });
    let policy = Changing::new(judge);
    let gateway = TestGateway::start_with_policy(policy, |s| s.limits.outbox_messages = 4).await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let _stuck = stuck(&gateway, tap.clone()).await;
    let sdp = "x".repeat(60_000);
    while gateway.taps().dropped == 0 {
        let (_, text) = a.send_offer(&b.did(), &sdp).await;
        assert_eq!(b.text().await, text);
    }
    let written = gateway.taps().delivered;
    let mut newer = Agent::registered_as(&gateway, Subprotocol::V1_1, tap).await;
    let waiting = u64::try_from(asked.load(SeqCst)).unwrap() - gateway.taps().dropped - written;
    assert!(waiting > 0);
    newer.text().await;
    assert_eq!(gateway.settled().await.refused, 0);
}

/// An agent whose socket takes little and that reads nothing.
async fn stuck(gateway: &TestGateway, identity: Identity) -> Agent {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut agent = Agent::connect_over(gateway, Subprotocol::V1, identity, socket).await;
    agent.register().await;
    agent
}

#[tokio::test]
async fn a_message_that_policy_holds_goes_at_once_where_the_target_is_present() {
    let mut judge = routing(|_| by(Way::Hold(Duration::from_secs(600))));
    judge.undeliverable = Some(Box::new(|_| panic!("not asked about what is held already")));
    let gateway = started(judge).await;
    let (mut sender, mut present) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let (_, text) = sender.send_offer(&present.did(), "x").await;
    assert_eq!(present.text().await, text);
    let absent = Identity::generate();
    let (_, text) = sender.send_offer(absent.did(), "x").await;
    sender.ping().await;
    assert_eq!(gateway.settled().await.held, 1);
    let mut back = Agent::registered_as(&gateway, Subprotocol::V1_1, absent).await;
    assert_eq!(back.text().await, text);
}

#[tokio::test]
async fn agents_are_told_in_policys_own_words() {
    let policy = Changing::new(Closures {
        connect: Some(Box::new(|event| {
            assert_eq!(event.path, "/ws");
            assert!(event.headers.iter().any(|(name, _)| name == "sec-websocket-protocol"));
            match event.query.as_str() {
                "" => Ok(()),
                "flood" => Err(denial(RefusalReason::RateLimited, "")),
                _ => Err(denial(RefusalReason::Denied, "closed\non Sundays")),
            }
        })),
        register: Some(Box::new(|event| match event.credentials.as_deref() {
            Some(_) => Ok(Admission::default()),
            None => Err(denial(RefusalReason::Denied, "members only")),
        })),
        route: Some(Box::new(|_| Err(denial(RefusalReason::UnknownAgent, "who?")))),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;

    for (query, status, text) in
        [("flood", 429, "refused by policy"), ("x", 403, "closedon Sundays")]
    {
        let answer = http::refused_upgrade(gateway.addr, &format!("/ws?{query}")).await;
        assert_eq!((answer.0, answer.1["error"].as_str()), (status, Some(text)));
    }

    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let (_, text) = agent.sign(&agent.did(), agent.registration());
    agent.send(text).await;
    let (refusal, words) = agent.refusal_and_words().await;
    assert_eq!((&*words, refusal.reason.as_deref()), ("members only", Some("denied")));
    assert_eq!(agent.close().await.0, 4007);

    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let mut register = agent.registration();
    register.credentials = Some("I am one".into());
    agent.register_with(register).await.unwrap();
    // A renewal that is denied leaves the registration as it was.
    let (_, text) = agent.sign(&agent.did(), agent.registration());
    agent.send(text).await;
    assert_eq!(agent.refusal_and_words().await.1, "members only");
    agent.send_offer(&agent.did(), "x").await;
    let (refusal, words) = agent.refusal_and_words().await;
    assert_eq!((refusal.code, &*words), (ErrorCode::UnknownAgent, "who?"));
    assert_eq!(refusal.reason.as_deref(), Some("unknown_agent"));
}

#[tokio::test]
async fn what_one_judge_let_pass_is_not_ended_by_another() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut first = routing(|_| Ok(Passage::default()));
    first.undeliverable = Some(Box::new({
        let asked = Arc::clone(&asked);
        move |_| {
            asked.fetch_add(1, SeqCst);
            Err(denial(RefusalReason::Denied, "the first"))
        }
    }));
    let policy = Changing::new(first);
    let gateway =
        TestGateway::start_with_policy(policy.clone(), |s| s.limits.outbox_messages = 4).await;
    let target = Identity::generate();
    let stuck = stuck(&gateway, target.clone()).await;
    let mut sender = Agent::v1(&gateway).await;
    let sdp = "x".repeat(60_000);
    let mut sent = 0;
    while gateway.counters().refused == 0 {
        sender.send_offer(target.did(), &sdp).await;
        sent += 1;
        until("it to be routed", || gateway.counters().received == sent).await;
    }
    assert_eq!(sender.refusal().await.reason.as_deref(), Some("queue_full"));

    let mut second = routing(|_| Ok(Passage::default()));
    second.undeliverable = Some(Box::new(|_| Err(denial(RefusalReason::Denied, "the second"))));
    policy.change(second);
    drop(stuck);
    gateway.has_agents(1).await;
    let refused = gateway.settled().await.refused;
    assert!(asked.load(SeqCst) > 0);
    assert_eq!(usize::try_from(refused).unwrap() - 1, asked.load(SeqCst));
    for _ in 1..refused {
        assert_eq!(sender.refusal_and_words().await.1, "the first");
    }
    sender.send_offer(target.did(), "x").await;
    assert_eq!(sender.refusal_and_words().await.1, "the second");
}
