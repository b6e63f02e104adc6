//! How connections stay, and how they end.

use std::sync::atomic::Ordering;

use conexus_protocol::MessageType;
use tokio::time::{Duration, Instant, sleep};

use super::town::{Agent, Fate, Town, soon, until};
use crate::{
    ChannelMessage, ChannelOptions, ConnectionState, Peer, PeerError, p2p::transport::PathState,
};

async fn connected(a: &Agent, b: &Agent) -> (Peer, Peer) {
    let mut incoming = b.accept();
    let (ours, theirs) = soon(async { tokio::join!(a.connect(b), incoming.recv()) }).await;
    (ours.unwrap(), theirs.unwrap())
}

async fn becomes(peer: &Peer, state: ConnectionState) {
    soon(peer.states().wait_for(|now| *now == state)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_way_that_fails_is_sought_anew_by_the_initiator_within_the_same_connection() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, theirs) = connected(&a, &b).await;
    let first = town.sent(MessageType::Offer)[0].id.clone();
    town.net.interrupt(PathState::Failed);
    until(|| town.sent(MessageType::Answer).len() == 2).await;
    becomes(&ours, ConnectionState::Connected).await;
    becomes(&theirs, ConnectionState::Connected).await;
    let offers = town.sent(MessageType::Offer);
    assert_eq!(offers.len(), 2);
    assert_eq!((&*offers[1].from, offers[1].correlation_id.as_deref()), (a.did(), Some(&*first)));
    assert_eq!(ours.stats().await.restarts, 1);
    assert_eq!(theirs.stats().await.restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn an_interruption_may_pass_by_itself() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _theirs) = connected(&a, &b).await;
    town.net.interrupt(PathState::Disconnected);
    becomes(&ours, ConnectionState::Connecting).await;
    sleep(Duration::from_millis(1900)).await;
    town.net.heal();
    becomes(&ours, ConnectionState::Connected).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(town.sent(MessageType::Offer).len(), 1);

    let began = Instant::now();
    town.net.interrupt(PathState::Disconnected);
    until(|| town.sent(MessageType::Offer).len() == 2).await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    becomes(&ours, ConnectionState::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn the_other_side_restarts_when_the_initiator_does_not() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, theirs) = connected(&a, &b).await;
    let did = a.did().to_owned();
    town.rule(move |message| {
        if message.from == did && message.kind() == MessageType::Offer {
            Fate::Lose
        } else {
            Fate::Deliver
        }
    });
    let began = Instant::now();
    town.net.interrupt(PathState::Failed);
    becomes(&theirs, ConnectionState::Connecting).await;
    becomes(&theirs, ConnectionState::Connected).await;
    becomes(&ours, ConnectionState::Connected).await;
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!(theirs.stats().await.restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn restarts_that_cross_are_settled_by_the_keys() {
    for refuses_rollback in [false, true] {
        let town = Town::new();
        town.net.refuses_rollback.store(refuses_rollback, Ordering::Relaxed);
        let (a, b) = town.two();
        let (ours, theirs) = connected(&a, &b).await;
        // The initiator's OFFER is on its way until the other one is sent.
        let did = a.did().to_owned();
        let mut is_first = true;
        town.rule(move |message| {
            let is_held = message.kind() == MessageType::Offer && message.from == did && is_first;
            if is_held {
                is_first = false;
                return Fate::Lose;
            }
            Fate::Deliver
        });
        town.net.interrupt(PathState::Failed);
        until(|| town.sent(MessageType::Offer).len() == 3).await;
        if refuses_rollback {
            continue;
        }
        becomes(&ours, ConnectionState::Connected).await;
        becomes(&theirs, ConnectionState::Connected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_cannot_be_found_again_is_the_end_on_both_sides() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, theirs) = connected(&a, &b).await;
    town.net.is_blocked.store(true, Ordering::Relaxed);
    town.net.interrupt(PathState::Failed);
    let lost = soon(ours.closed()).await.unwrap_err();
    assert!(matches!(lost, PeerError::Lost { restarts: 5 }), "{lost}");
    assert_eq!(ours.state(), ConnectionState::Error);
    let lost = soon(theirs.closed()).await.unwrap_err();
    assert!(matches!(lost, PeerError::Lost { .. } | PeerError::BegunAnew), "{lost}");
    until(|| town.net.count() == 0).await;
    assert!(a.peers.all().is_empty() && b.peers.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_know_the_connection_any_more_says_so() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _) = connected(&a, &b).await;
    // Begun anew: what is signaled goes there, and nothing has told this side.
    let anew = town.agent_with(b.identity.clone(), 64);
    let _incoming = anew.accept();
    town.net.interrupt(PathState::Failed);
    let lost = soon(ours.closed()).await;
    assert!(matches!(lost, Err(PeerError::BegunAnew)), "{lost:?}");
    let offers = town.sent(MessageType::Offer);
    assert_eq!((offers.len(), town.sent(MessageType::Error).len()), (2, 1));
    assert!(a.peers.all().is_empty() && anew.peers.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_open_channel_lives_on_without_the_gateway_and_a_restart_waits_for_it() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, theirs) = connected(&a, &b).await;
    for member in [&a.member, &b.member] {
        member.enter(ConnectionState::Disconnected);
    }
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(ours.state(), ConnectionState::Connected);
    soon(ours.ping()).await.unwrap();
    town.net.interrupt(PathState::Failed);
    becomes(&ours, ConnectionState::Connecting).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(town.sent(MessageType::Offer).len(), 1);
    assert_eq!(ours.state(), ConnectionState::Connecting);
    a.member.enter(ConnectionState::Connected);
    sleep(Duration::from_secs(3)).await;
    b.member.enter(ConnectionState::Connected);
    becomes(&ours, ConnectionState::Connected).await;
    becomes(&theirs, ConnectionState::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_client_gives_up_only_a_broken_way_ends() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _theirs) = connected(&a, &b).await;
    a.member.enter(ConnectionState::Error);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ours.state(), ConnectionState::Connected);
    assert!(matches!(a.connect(&town.agent()).await, Err(PeerError::ClientClosed)));
    town.net.interrupt(PathState::Failed);
    let lost = soon(ours.closed()).await.unwrap_err();
    assert!(matches!(lost, PeerError::ClientClosed), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn channels_are_opened_by_either_side_and_early_ones_wait() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, theirs) = connected(&a, &b).await;
    let sending = ours.open_channel("files", ChannelOptions::default()).await.unwrap();
    sending.send("hello").await.unwrap();
    let mut channels = theirs.channels();
    let received = soon(channels.recv()).await.unwrap();
    assert_eq!(received.label(), "files");
    let message = soon(received.recv()).await.unwrap().unwrap();
    assert_eq!(message, ChannelMessage::Text("hello".into()));
    let (told, mut handled) = tokio::sync::mpsc::unbounded_channel();
    ours.on_channel(move |channel| told.send(channel));
    let _back = theirs.open_channel("back", ChannelOptions::default()).await.unwrap();
    let handed = soon(handled.recv()).await.unwrap();
    assert_eq!(handed.label(), "back");
    assert!(ours.open_channel("conexus.x", ChannelOptions::default()).await.is_err());
    assert_eq!(ours.stats().await.channels, 2);
    ours.close().await;
    assert!(soon(channels.recv()).await.is_none());
    assert!(ours.open_channel("late", ChannelOptions::default()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn states_are_told_one_after_the_other() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _theirs) = connected(&a, &b).await;
    let (told, mut states) = tokio::sync::mpsc::unbounded_channel();
    ours.on_state(move |state| told.send(state));
    town.net.interrupt(PathState::Failed);
    until(|| town.sent(MessageType::Answer).len() == 2).await;
    becomes(&ours, ConnectionState::Connected).await;
    ours.close().await;
    let mut seen = Vec::new();
    while let Some(state) = soon(states.recv()).await {
        seen.push(state.as_str());
    }
    assert_eq!(seen, ["connecting", "connected", "disconnecting", "disconnected"]);
}

#[tokio::test(start_paused = true)]
async fn closing_the_client_ends_its_peers_orderly_and_dropping_it_at_once() {
    let town = Town::new();
    let (a, b) = town.two();
    let (_, theirs) = connected(&a, &b).await;
    soon(a.peers.close()).await;
    soon(theirs.closed()).await.unwrap();
    assert!(matches!(a.connect(&b).await, Err(PeerError::ClientClosed)));
    a.peers.reopen();
    let (ours, _theirs) = connected(&a, &b).await;
    drop(a);
    let gone = soon(ours.closed()).await.unwrap_err();
    assert!(matches!(gone, PeerError::ClientClosed));
}
