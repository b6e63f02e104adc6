//! What is told of one agent: how it comes and goes, and in which order.

use std::time::Duration;

use conexus_protocol::{Identity, Metadata, PresenceState, Subprotocol, Unregister};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::{absent, offline, online, presence, seen, time, unwatch, watch, watched};
use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    policy::{Changing, Closures},
    soon,
};

#[tokio::test]
async fn a_watcher_is_told_the_state_at_once_and_each_change_with_its_reason() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let did = me.did().to_owned();
    let mut watcher = Agent::v1_1(&gateway).await;
    assert_eq!(watched(&mut watcher, &[&did]).await, [absent(&did)]);

    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut agent = Agent::registered_as(&gateway, subprotocol, me.clone()).await;
        assert_eq!(seen(&mut watcher).await, online(&did));
        let (_, text) = agent.sign("anyone", Unregister { reason: None });
        agent.send(text).await;
        assert_eq!(seen(&mut watcher).await, offline(&did, "unregistered"));
    }
    let mut agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    assert_eq!(seen(&mut watcher).await, online(&did));
    agent.socket.close(None).await.unwrap();
    assert_eq!(seen(&mut watcher).await, offline(&did, "closed"));

    // A frame with a reserved bit set: broken framing.
    let agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    assert_eq!(seen(&mut watcher).await, online(&did));
    let mut stream = agent.socket.into_inner();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0xf1, 0x80, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(seen(&mut watcher).await, offline(&did, "broken"));
}

#[tokio::test]
async fn since_tells_when_the_state_began_and_only_goes_forward() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let agent = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    let mut watchers = [Agent::v1_1(&gateway).await, Agent::v1_1(&gateway).await];
    let mut first = Vec::new();
    for watcher in &mut watchers {
        watch(watcher, &[me.did()]).await;
        first.push(presence(watcher).await);
    }
    assert_eq!(first[0], first[1], "whenever it is asked for");
    let mut last = time(&first[0].since);
    drop(agent);
    for _ in 0..3 {
        for state in [PresenceState::Offline, PresenceState::Online] {
            let told = presence(&mut watchers[0]).await;
            assert_eq!(told.state, state);
            let since = time(&told.since);
            assert!(since >= last);
            last = since;
            if state == PresenceState::Offline {
                Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
            }
        }
    }
}

#[tokio::test]
async fn the_did_is_in_the_spelling_that_was_watched_whatever_the_agent_registers_with() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let (w3c, legacy) = (me.key().did(), me.key().legacy_did());
    let mut watcher = Agent::v1_1(&gateway).await;
    assert_eq!(watched(&mut watcher, &[&legacy]).await, [absent(&legacy)]);
    let agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    assert_eq!(seen(&mut watcher).await, online(&legacy));
    // The other spelling is the same agent: it is watched once, by the latest name.
    assert_eq!(watched(&mut watcher, &[&w3c]).await, [online(&w3c)]);
    assert_eq!(gateway.watches(), 1);
    drop(agent);
    assert!(matches!(seen(&mut watcher).await, told if told.did == w3c));
    let _agent = Agent::registered_as(&gateway, Subprotocol::V1, me.with_legacy_did()).await;
    assert_eq!(seen(&mut watcher).await, online(&w3c));
}

#[tokio::test]
async fn a_takeover_and_a_renewal_are_no_changes() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let mut old = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    let mut watcher = Agent::v1_1(&gateway).await;
    watch(&mut watcher, &[me.did()]).await;
    let before = presence(&mut watcher).await;
    let mut new = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    assert_eq!(old.close().await.0, 4003);
    let named = Metadata { name: Some("new".into()), ..Metadata::default() };
    let renewal = new.with_metadata(named);
    new.register_with(renewal).await;
    // Nothing came meanwhile, or it would be the next thing that is read.
    watch(&mut watcher, &[me.did()]).await;
    assert_eq!(presence(&mut watcher).await, before);
}

#[tokio::test]
async fn a_watch_ends_with_its_session_also_when_that_is_taken_over() {
    let gateway = TestGateway::start().await;
    let (me, other) = (Identity::generate(), Identity::generate());
    let mut old = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    assert_eq!(watched(&mut old, &[other.did()]).await, [absent(other.did())]);
    assert_eq!(gateway.watches(), 1);
    let mut new = Agent::registered_as(&gateway, Subprotocol::V1_1, me).await;
    assert_eq!(old.close().await.0, 4003);
    crate::support::until("the watch to end", || gateway.watches() == 0).await;
    let fence = Identity::generate();
    assert_eq!(watched(&mut new, &[fence.did()]).await, [absent(fence.did())]);
    let _other = Agent::registered_as(&gateway, Subprotocol::V1, other).await;
    let _fence = Agent::registered_as(&gateway, Subprotocol::V1, fence.clone()).await;
    assert_eq!(seen(&mut new).await, online(fence.did()), "and nothing before it");
}

#[tokio::test]
async fn who_unwatches_is_told_nothing_more_and_may_do_so_twice() {
    let gateway = TestGateway::start().await;
    let (one, other) = (Identity::generate(), Identity::generate());
    let mut watcher = Agent::v1_1(&gateway).await;
    watched(&mut watcher, &[one.did(), other.did()]).await;
    // In either spelling; what is not watched is no fault.
    unwatch(&mut watcher, &[&one.key().legacy_did(), Identity::generate().did()]).await;
    unwatch(&mut watcher, &[one.did()]).await;
    unwatch(&mut watcher, &[]).await;
    watcher.ping().await;
    assert_eq!(gateway.watches(), 1);
    let _one = Agent::registered_as(&gateway, Subprotocol::V1, one).await;
    let _other = Agent::registered_as(&gateway, Subprotocol::V1, other.clone()).await;
    assert_eq!(seen(&mut watcher).await, online(other.did()));
}

#[tokio::test]
async fn an_agent_may_watch_itself() {
    let gateway = TestGateway::start().await;
    let mut agent = Agent::v1_1(&gateway).await;
    let did = agent.did();
    assert_eq!(watched(&mut agent, &[&did]).await, [online(&did)]);
}

#[tokio::test]
async fn word_of_an_end_comes_behind_the_messages_that_were_sent_before_it() {
    let gateway = TestGateway::start().await;
    for _ in 0..5 {
        let mut agent = Agent::v1_1(&gateway).await;
        let mut watcher = Agent::v1_1(&gateway).await;
        let did = agent.did();
        watched(&mut watcher, &[&did]).await;
        for n in 0..50 {
            let (_, text) = agent.offer(&watcher.did(), &n.to_string());
            agent.socket.feed(Message::text(text)).await.unwrap();
        }
        let (_, text) = agent.sign("anyone", Unregister { reason: None });
        agent.socket.feed(Message::text(text)).await.unwrap();
        agent.socket.flush().await.unwrap();
        for _ in 0..50 {
            assert!(watcher.text().await.contains("OFFER"));
        }
        assert_eq!(seen(&mut watcher).await, offline(&did, "unregistered"));
    }
}

#[tokio::test]
async fn a_lapsed_agent_counts_as_online_until_that_is_decided() {
    let (tell, mut lapses) = tokio::sync::mpsc::unbounded_channel();
    let policy = Changing::new(Closures {
        expire: Some(Box::new(move |_| {
            tell.send(()).unwrap();
            Some(Duration::from_millis(400))
        })),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy.clone(), |s| {
        s.presence.timeout = Duration::from_millis(400);
    })
    .await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let mut agent = Agent::v1_1(&gateway).await;
    let did = agent.did();
    watched(&mut watcher, &[&did]).await;
    // The watcher answers pings as it reads; the agent reads nothing, and lapses again and again.
    for _ in 0..3 {
        tokio::select! {
            lapse = lapses.recv() => lapse.unwrap(),
            frame = watcher.frame() => panic!("told of a lapse that policy forgave: {frame:?}"),
        }
    }
    policy.change(Closures { expire: Some(Box::new(|_| None)), ..Closures::default() });
    assert_eq!(seen(&mut watcher).await, offline(&did, "expired"));
    agent.refusal().await;
    assert_eq!(agent.close().await.0, 4004);
}

#[tokio::test]
async fn a_flapping_agent_is_told_of_in_order_and_the_last_word_is_the_truth() {
    const TIMES: usize = 30;
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let mut watchers = Vec::new();
    for _ in 0..5 {
        let mut watcher = Agent::v1_1(&gateway).await;
        watched(&mut watcher, &[me.did()]).await;
        watchers.push(watcher);
    }
    for n in 0..=TIMES {
        let mut agent = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
        if n == TIMES {
            let (_, text) = agent.sign("anyone", Unregister { reason: None });
            agent.send(text).await;
            agent.close().await;
        }
        // The next one may come while this one still goes.
    }
    for watcher in &mut watchers {
        let mut told = vec![presence(watcher).await];
        while told.last().unwrap().reason.as_deref() != Some("unregistered") {
            told.push(presence(watcher).await);
        }
        assert!(told.len() <= 2 * (TIMES + 1));
        assert!(told.is_sorted_by_key(|presence| time(&presence.since)), "{told:?}");
        assert_eq!(told[0].state, PresenceState::Online);
        watcher.ping().await;
    }
}

#[tokio::test]
async fn while_the_gateway_stops_nobody_is_told_that_all_go() {
    nobody_is_told(Duration::ZERO, Duration::ZERO).await;
}

#[tokio::test]
async fn nor_when_they_go_one_after_the_other() {
    nobody_is_told(Duration::from_millis(50), Duration::from_millis(300)).await;
}

/// What a stop looks like to agents that watch each other.
async fn nobody_is_told(delay: Duration, spread: Duration) {
    let mut gateway = TestGateway::start_with(|s| {
        s.server.drain_delay = delay;
        s.server.drain_spread = spread;
    })
    .await;
    let mut agents = Vec::new();
    for _ in 0..20 {
        agents.push(Agent::v1_1(&gateway).await);
    }
    let dids: Vec<_> = agents.iter().map(Agent::did).collect();
    let dids: Vec<_> = dids.iter().map(String::as_str).collect();
    for agent in &mut agents {
        watched(agent, &dids).await;
    }
    gateway.begin_stop();
    for agent in &mut agents {
        assert_eq!(agent.close().await.0, 1012, "the very next thing that it reads");
    }
    soon("the gateway to stop", gateway.ended()).await;
}

#[tokio::test]
async fn an_agent_of_v1_notices_nothing() {
    let gateway = TestGateway::start().await;
    let mut older = Agent::v1(&gateway).await;
    let mut newer = Agent::v1_1(&gateway).await;
    let did = older.did();
    assert_eq!(watched(&mut newer, &[&did]).await, [online(&did)]);
    // WATCH is as unknown there as any other word, and it is told nothing of being watched.
    watch(&mut older, &[&newer.did()]).await;
    let refusal = older.refusal().await;
    assert_eq!(refusal.code.as_str(), "MALFORMED_MESSAGE");
    assert_eq!(refusal.member.as_deref(), Some("type"));
    drop(newer);
    gateway.has_agents(1).await;
    older.ping().await;
    assert_eq!(gateway.watches(), 0);
}
