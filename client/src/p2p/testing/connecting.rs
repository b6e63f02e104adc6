//! How connections come about, and how they do not.

use std::sync::atomic::Ordering;

use conexus_protocol::{ErrorCode, MessageType, Offer};
use tokio::time::{Duration, Instant};

use super::town::{Fate, Town, soon, until};
use crate::{AcceptOptions, ConnectionState, IceOutcome, PeerError, PeerOptions, PeerPath};

#[tokio::test(start_paused = true)]
async fn two_agents_connect_and_close() {
    let town = Town::new();
    let (a, b) = town.two();
    for (a, b) in [(&a, &b), (&b, &a)] {
        let mut incoming = b.accept();
        let (ours, theirs) = soon(async { tokio::join!(a.connect(b), incoming.recv()) }).await;
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!((ours.did(), theirs.did()), (b.did(), a.did()));
        for peer in [&ours, &theirs] {
            assert_eq!((peer.state(), peer.path()), (ConnectionState::Connected, PeerPath::Direct));
            assert!(peer.stats().await.pair.is_some());
        }
        assert_eq!(a.connect(b).await.unwrap(), ours, "there is one for each pair");
        ours.close().await;
        soon(theirs.closed()).await.unwrap();
        assert_eq!(ours.state(), ConnectionState::Disconnected);
        assert_eq!(theirs.state(), ConnectionState::Disconnected);
        assert!(a.peers.all().is_empty() && b.peers.all().is_empty());
        until(|| town.net.count() == 0).await;
    }
    assert_eq!(a.member.words(), Vec::<String>::new());
    assert_eq!(b.member.words(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn when_both_connect_at_once_there_is_one_connection_by_the_greater_keys_offer() {
    let town = Town::new();
    let (smaller, greater) = town.two();
    let (one, other) =
        soon(async { tokio::join!(smaller.connect(&greater), greater.connect(&smaller)) }).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(town.sent(MessageType::Offer).len(), 2);
    let answers = town.sent(MessageType::Answer);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].from, smaller.did());
    until(|| town.net.count() == 2).await;
    one.close().await;
    soon(other.closed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_greater_key_answers_after_all_when_its_own_offer_is_refused() {
    let town = Town::new();
    let (smaller, greater) = town.two();
    let did = greater.did().to_owned();
    // The greater key's OFFER gets lost, and is refused only when the other one is there.
    town.rule(move |message| match message.kind() {
        MessageType::Offer if message.from == did => Fate::Lose,
        _ => Fate::Deliver,
    });
    let connecting = async { tokio::join!(greater.connect(&smaller), smaller.connect(&greater)) };
    let refusing = async {
        until(|| town.sent(MessageType::Offer).len() == 2).await;
        let ours = town.sent(MessageType::Offer);
        let ours = ours.iter().find(|offer| offer.from == greater.did()).unwrap();
        let no = crate::p2p::peers::refusal(ErrorCode::ConnectionRefused, "no", "queue_full");
        let draft = conexus_protocol::Draft::new(greater.did(), no).in_reply_to(&*ours.id);
        let text = draft.sign(&conexus_protocol::Identity::generate());
        let message = crate::Message::parse(&text, conexus_protocol::Rules::V1_1).unwrap();
        greater.member.take(message, None);
    };
    let ((one, other), ()) = soon(async { tokio::join!(connecting, refusing) }).await;
    assert_eq!(one.unwrap().did(), smaller.did());
    assert_eq!(other.unwrap().did(), greater.did());
}

#[tokio::test(start_paused = true)]
async fn without_a_listener_offers_are_messages_like_any_other() {
    let town = Town::new();
    let (a, b) = town.two();
    let options = PeerOptions { attempts: 1, ..PeerOptions::default() };
    let error = soon(a.connect_with(&b, options)).await.unwrap_err();
    assert!(matches!(error, PeerError::NoAnswer(_)), "{error}");
    let left = b.member.left.lock().unwrap();
    assert_eq!(left[0].kind(), MessageType::Offer);
    assert!(left.len() > 1, "its candidates as well");
    assert!(b.member.words().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_not_welcome_is_told_so_and_does_not_try_again() {
    let town = Town::new();
    let (a, b) = town.two();
    let stranger = a.did().to_owned();
    let _incoming = b.accept_with(AcceptOptions::new().accept_if(move |did| did != stranger));
    let error = soon(a.connect(&b)).await.unwrap_err();
    assert_eq!(error.reason(), Some("declined"));
    assert_eq!(town.sent(MessageType::Offer).len(), 1);
    let c = town.agent();
    soon(c.connect(&b)).await.unwrap();
    assert!(b.member.words().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_welcome_that_panics_or_never_comes_is_a_no() {
    let town = Town::new();
    let (a, b) = town.two();
    for welcome in [
        AcceptOptions::new().accept_if(|_| panic!("on purpose")),
        AcceptOptions::new().accept_if_async(|_| std::future::pending()),
    ] {
        let _incoming = b.accept_with(welcome);
        let options = PeerOptions { answer_timeout: Duration::from_secs(20), ..Default::default() };
        let error = soon(a.connect_with(&b, options)).await.unwrap_err();
        assert_eq!(error.reason(), Some("declined"));
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_peers_are_refused_on_both_sides() {
    let town = Town::new();
    let identity = || conexus_protocol::Identity::generate();
    let (a, b) = (town.agent_with(identity(), 1), town.agent_with(identity(), 1));
    let (c, _first) = (town.agent(), b.accept());
    soon(a.connect(&b)).await.unwrap();
    assert!(matches!(a.connect(&c).await, Err(PeerError::TooMany(1))));
    let options = PeerOptions { attempts: 2, ..PeerOptions::default() };
    let began = Instant::now();
    let error = soon(c.connect_with(&b, options)).await.unwrap_err();
    assert_eq!(error.reason(), Some("busy"));
    assert!(began.elapsed() >= Duration::from_secs(1), "that is worth another try later");
    assert_eq!(town.sent(MessageType::Offer).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_asked_three_times_within_the_time() {
    let town = Town::new();
    let (a, b) = town.two();
    town.rule(|_| Fate::Lose);
    let began = Instant::now();
    let error = soon(a.connect(&b)).await.unwrap_err();
    assert!(matches!(error, PeerError::Timeout(_)), "{error}");
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    let offers = town.sent(MessageType::Offer);
    assert_eq!(offers.len(), 3);
    assert_ne!(offers[0].id, offers[1].id);
    assert!(a.peers.all().is_empty());
    // The other side is told that nothing comes of it.
    until(|| !town.sent(MessageType::Error).is_empty()).await;
    let withdrawn = &town.sent(MessageType::Error)[0];
    assert_eq!(withdrawn.correlation_id.as_deref(), Some(&*offers[2].id));
}

#[tokio::test(start_paused = true)]
async fn no_way_between_the_two_is_told_as_such() {
    let town = Town::new();
    let (a, b) = town.two();
    town.net.is_blocked.store(true, Ordering::Relaxed);
    let _incoming = b.accept();
    let options = PeerOptions { attempts: 1, ..PeerOptions::default() };
    let error = soon(a.connect_with(&b, options)).await.unwrap_err();
    assert!(matches!(error, PeerError::NoPath(_)), "{error}");
    until(|| !a.member.outcomes.lock().unwrap().is_empty()).await;
    assert!(matches!(a.member.outcomes.lock().unwrap()[..], [IceOutcome::Failed { .. }]));
    until(|| b.peers.all().is_empty()).await;
    until(|| town.net.count() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_agent_is_told_at_once() {
    let town = Town::new();
    let (a, b) = town.two();
    b.member.enter(ConnectionState::Disconnected);
    let began = Instant::now();
    let error = soon(a.connect(&b)).await.unwrap_err();
    assert_eq!(error.reason(), Some("unknown_agent"));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_gives_up_or_stops_waiting_withdraws() {
    let town = Town::new();
    let (a, b) = town.two();
    town.rule(|message| match message.kind() {
        MessageType::Answer => Fate::Lose,
        _ => Fate::Deliver,
    });
    let _incoming = b.accept();
    {
        let connecting = a.connect(&b);
        let answered = until(|| !town.sent(MessageType::Answer).is_empty());
        soon(async {
            tokio::select! {
                _ = connecting => panic!("it cannot connect"),
                () = answered => {}
            }
        })
        .await;
    }
    until(|| a.peers.all().is_empty() && b.peers.all().is_empty()).await;
    assert_eq!(town.sent(MessageType::Error).len(), 1, "withdrawn");
    assert!(b.member.words()[0].contains("did not come about"), "{:?}", b.member.words());
}

#[tokio::test(start_paused = true)]
async fn replayed_stale_and_misaddressed_offers_do_nothing() {
    let town = Town::new();
    let (a, b) = town.two();
    let mut incoming = b.accept();
    let peer = soon(a.connect(&b)).await.unwrap();
    let accepted = soon(incoming.recv()).await.unwrap();
    peer.close().await;
    soon(accepted.closed()).await.unwrap();
    let sent = town.log.lock().unwrap().len();

    // The gateway delivers all of it again.
    let old: Vec<_> = town.log.lock().unwrap().clone();
    for message in old.iter().filter(|message| message.from == a.did()) {
        b.member.take(message.clone(), Some(a.key()));
    }
    assert!(b.peers.all().is_empty());
    assert!(b.member.words().iter().any(|word| word.ends_with("it came before")));

    let c = town.agent();
    let (_, for_c) = a.sign(&c, Offer { sdp: "fake 1 0".into() });
    let for_c = crate::Message::parse(&for_c, conexus_protocol::Rules::V1_1).unwrap();
    b.member.take(for_c, Some(a.key()));
    assert!(b.member.words().last().unwrap().ends_with("addressed to somebody else"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(town.log.lock().unwrap().len(), sent, "nobody is answered");

    b.member.ahead.store(61_000, Ordering::Relaxed);
    let error = soon(a.connect(&b)).await.unwrap_err();
    assert_eq!(error.reason(), Some("stale"));
    assert!(b.peers.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_begins_anew_takes_the_place_of_its_old_connection() {
    let town = Town::new();
    let (a, b) = town.two();
    let mut incoming = b.accept();
    soon(a.connect(&b)).await.unwrap();
    let old = soon(incoming.recv()).await.unwrap();
    let key = a.identity.clone();
    // Its program was started again.
    drop(a);
    let a = town.agent_with(key, 64);
    let anew = soon(a.connect(&b)).await.unwrap();
    let new = soon(incoming.recv()).await.unwrap();
    assert_ne!(old, new);
    soon(old.closed()).await.unwrap();
    assert_eq!(b.peers.all().len(), 1);
    assert_eq!(anew.state(), ConnectionState::Connected);
    until(|| town.net.count() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_gateway_is_lost_meanwhile_signaling_goes_on_after_it_is_back() {
    let town = Town::new();
    let (a, b) = town.two();
    let mut incoming = b.accept();
    // What is on its way when the gateway goes is lost, whatever it is.
    for kind in [MessageType::Offer, MessageType::Answer, MessageType::IceCandidate] {
        let (one, other) = (a.member.clone(), b.member.clone());
        let mut is_lost = false;
        town.rule(move |message| {
            if message.kind() == kind && !is_lost {
                is_lost = true;
                one.enter(ConnectionState::Disconnected);
                other.enter(ConnectionState::Disconnected);
            }
            if is_lost && *one.states().borrow() != ConnectionState::Connected {
                return Fate::Lose;
            }
            Fate::Deliver
        });
        let back = async {
            let mut states = a.member.states();
            states.wait_for(|state| *state == ConnectionState::Disconnected).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            a.member.enter(ConnectionState::Connected);
            tokio::time::sleep(Duration::from_millis(500)).await;
            b.member.enter(ConnectionState::Connected);
        };
        let (peer, ()) = soon(async { tokio::join!(a.connect(&b), back) }).await;
        let peer = peer.unwrap_or_else(|error| panic!("{kind}: {error}"));
        let accepted = soon(incoming.recv()).await.unwrap();
        peer.close().await;
        soon(accepted.closed()).await.unwrap();
    }
}
