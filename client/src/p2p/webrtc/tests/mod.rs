//! The stack in one process, over loopback.

pub(crate) mod pair;

use std::time::Duration;

use conexus_protocol::IceCandidate;
use futures_util::FutureExt;

use self::pair::{End, connected, loopback, next, opened, signal, trickle};
use super::{Silence, WebRtc};
use crate::p2p::transport::*;

fn text(text: &str) -> RawMessage {
    RawMessage::Text(text.to_owned())
}

fn reliable() -> RawChannelOptions {
    RawChannelOptions {
        ordered: true,
        reliability: None,
        protocol: "chat".to_owned(),
        negotiated: None,
    }
}

#[tokio::test]
async fn the_control_channels_of_both_sides_are_one() {
    let (from, to) = connected().await;
    let (ours, theirs) = (from.connection.control(), to.connection.control());
    let (mut heard_here, mut heard_there) = (opened(&*ours).await, opened(&*theirs).await);
    ours.send(text("ping")).await.unwrap();
    assert_eq!(next(&mut heard_there).await, Some(RawChannelEvent::Message(text("ping"))));
    theirs.send(text("pong")).await.unwrap();
    assert_eq!(next(&mut heard_here).await, Some(RawChannelEvent::Message(text("pong"))));

    let path = from.connection.path().await.unwrap();
    assert_eq!((path.local, path.remote), (CandidateKind::Host, CandidateKind::Host));
    assert_eq!(path.protocol, CandidateProtocol::Udp);
    assert_eq!((path.bytes_sent, path.bytes_received), (4, 4));
    assert!(path.round_trip.is_some());
}

#[tokio::test]
async fn a_channel_has_what_it_was_opened_with_and_ends_at_both_sides() {
    let (from, mut to) = connected().await;
    let ours = from.connection.open_channel("room".to_owned(), reliable()).await.unwrap();
    let mut heard_here = opened(&*ours).await;
    let theirs = to.channel().await;
    let mut heard_there = opened(&*theirs).await;
    assert_eq!((theirs.label(), theirs.options()), ("room", reliable()));
    assert!(theirs.events().is_none(), "events are taken once");

    ours.send(text("last words")).await.unwrap();
    ours.close().await;
    assert_eq!(next(&mut heard_there).await, Some(RawChannelEvent::Message(text("last words"))));
    assert_eq!(next(&mut heard_there).await, Some(RawChannelEvent::Closed));
    assert_eq!(next(&mut heard_here).await, Some(RawChannelEvent::Closed));
    ours.send(text("too late")).await.unwrap_err();
}

#[tokio::test]
async fn channels_outlive_ice_restarts_of_either_side() {
    let (mut from, mut to) = connected().await;
    let ours = from.connection.control();
    let mut heard = opened(&*to.connection.control()).await;
    for (word, is_ours) in [("one", true), ("two", false), ("three", true)] {
        match is_ours {
            true => signal(&mut from, &mut to, true).await,
            false => signal(&mut to, &mut from, true).await,
        }
        ours.send(text(word)).await.unwrap();
        assert_eq!(next(&mut heard).await, Some(RawChannelEvent::Message(text(word))));
    }
}

#[tokio::test]
async fn an_offer_is_taken_back_and_the_other_sides_answered() {
    let (mut from, mut to) = (End::on_loopback().await, End::on_loopback().await);
    from.connection.offer(false).await.unwrap();
    from.candidates().await;
    from.connection.rollback().await.unwrap();
    signal(&mut to, &mut from, false).await;
    opened(&*to.connection.control()).await;
    opened(&*from.connection.control()).await;
}

#[tokio::test]
async fn an_ice_restart_is_taken_back_and_the_other_sides_answered() {
    let (mut from, mut to) = connected().await;
    let ours = from.connection.control();
    let mut heard = opened(&*to.connection.control()).await;
    from.connection.offer(true).await.unwrap();
    from.candidates().await;
    from.connection.rollback().await.unwrap();
    signal(&mut to, &mut from, true).await;
    ours.send(text("still here")).await.unwrap();
    assert_eq!(next(&mut heard).await, Some(RawChannelEvent::Message(text("still here"))));
}

#[tokio::test]
async fn a_closed_connection_ends_the_other_sides_channels() {
    let (from, to) = connected().await;
    let mut heard = opened(&*to.connection.control()).await;
    from.connection.close().await;
    from.connection.close().await;
    assert_eq!(next(&mut heard).await, Some(RawChannelEvent::Closed));
    assert_eq!(next(&mut heard).await, None);
}

/// A peer that is gone without a word, with the runtime that drove it.
#[tokio::test]
async fn silence_is_an_interruption_and_then_a_failure() {
    let transport = WebRtc {
        silence: Silence {
            asked_every: Duration::from_millis(100),
            disconnected: Duration::from_millis(400),
            failed: Duration::from_millis(600),
        },
        ..loopback()
    };
    let mut from = End::new(&transport, ConnectionConfig::default()).await;
    let gone = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let gone = gone.unwrap();
    let mut to = gone.spawn(End::on_loopback()).await.unwrap();
    signal(&mut from, &mut to, false).await;
    opened(&*from.connection.control()).await;
    gone.shutdown_background();
    from.state(PathState::Disconnected).await;
    from.state(PathState::Failed).await;

    let control = from.connection.control();
    control.send(text("anybody?")).await.unwrap();
    from.connection.close().await;
    control.closed().await;
}

#[tokio::test]
async fn a_failed_connection_is_found_again_by_a_restart() {
    let transport = WebRtc {
        silence: Silence {
            asked_every: Duration::from_millis(100),
            disconnected: Duration::from_millis(300),
            failed: Duration::from_millis(300),
        },
        ..loopback()
    };
    let mut from = End::new(&transport, ConnectionConfig::default()).await;
    let mut to = End::new(&transport, ConnectionConfig::default()).await;
    signal(&mut from, &mut to, false).await;
    let mut heard = opened(&*to.connection.control()).await;
    // The other side does not answer an offer of another way yet, and there is none any more.
    let offer = from.connection.offer(true).await.unwrap();
    to.state(PathState::Disconnected).await;
    to.state(PathState::Failed).await;
    let answer = to.connection.answer(offer).await.unwrap();
    from.connection.answered(answer).await.unwrap();
    trickle(&mut from, &mut to).await;
    from.connection.control().send(text("there you are")).await.unwrap();
    assert_eq!(next(&mut heard).await, Some(RawChannelEvent::Message(text("there you are"))));
}

#[tokio::test]
async fn fifty_connections_stand_at_once() {
    let mut pairs = Vec::new();
    for _ in 0..50 {
        pairs.push(connected().await);
    }
    for (from, to) in &pairs {
        let mut heard = opened(&*to.connection.control()).await;
        from.connection.control().send(text("hello")).await.unwrap();
        assert_eq!(next(&mut heard).await, Some(RawChannelEvent::Message(text("hello"))));
    }
    for (from, to) in &pairs {
        tokio::join!(from.connection.close(), to.connection.close());
    }
}

#[tokio::test]
async fn the_other_side_opens_only_so_many_channels_at_a_time() {
    let (from, mut to) = connected().await;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..32 {
        ours.push(from.connection.open_channel("c".to_owned(), reliable()).await.unwrap());
        theirs.push(to.channel().await);
    }
    let beyond = from.connection.open_channel("c".to_owned(), reliable()).await.unwrap();
    let mut events = beyond.events().unwrap();
    while next(&mut events).await != Some(RawChannelEvent::Closed) {}
    // The place of one that ended is free.
    theirs[7].close().await;
    let mut events = ours[7].events().unwrap();
    while next(&mut events).await != Some(RawChannelEvent::Closed) {}
    let again = from.connection.open_channel("again".to_owned(), reliable()).await.unwrap();
    assert_eq!(to.channel().await.label(), "again");
    drop(again);
}

#[tokio::test]
async fn candidates_and_descriptions_are_bounded() {
    let (from, to) = (End::on_loopback().await, End::on_loopback().await);
    let offer = from.connection.offer(false).await.unwrap();
    let candidate = |port: usize| format!("candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host");
    let lines: String = (1..=49).map(|port| format!("a={}\r\n", candidate(port))).collect();
    to.connection.answer(offer.clone() + &lines).await.unwrap_err();
    to.connection.answer(offer.clone() + &"a=x\r\n".repeat(20_000)).await.unwrap_err();
    to.connection.answer(offer).await.unwrap();
    let add = async |candidate: String| {
        let candidate = IceCandidate { candidate, ..Default::default() };
        to.connection.add_candidate(candidate).await
    };
    add("x".repeat(2000)).await.unwrap_err();
    for port in 1..=48 {
        add(candidate(port)).await.unwrap();
    }
    add(candidate(49)).await.unwrap_err();
    add(String::new()).await.unwrap();
}

/// What a stranger says must not bring anybody down. Whether it is taken is another matter.
#[tokio::test]
async fn mangled_descriptions_and_candidates_do_no_harm() {
    const ROUNDS: usize = 1000;
    let offer = End::on_loopback().await.connection.offer(false).await.unwrap();
    let candidate = "candidate:842163049 1 udp 1677729535 203.0.113.5 46154 typ srflx raddr 10.0.0.17 \
                     rport 46154 generation 0 ufrag EEtu network-id 3";
    let mut random = Random(7);
    let mut taken = 0;
    let mut end = End::on_loopback().await;
    for _ in 0..ROUNDS {
        if end.connection.answer(random.mangle(&offer)).await.is_ok() {
            taken += 1;
            for _ in 0..40 {
                let candidate = random.mangle(candidate);
                let candidate = IceCandidate { candidate, ..Default::default() };
                let _ = end.connection.add_candidate(candidate).await;
            }
            tokio::task::yield_now().await;
            let ended = end.connection.control().closed().now_or_never();
            assert!(ended.is_none(), "what drives the connection broke down");
        }
        end = End::on_loopback().await;
    }
    assert!(taken > ROUNDS / 20, "{taken} got past the first look");
}

/// A small generator with a seed, so that what fails once fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    /// One or a few changes: a character, a number, a word or line that is lost or there twice.
    fn mangle(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..=self.below(3) {
            let separator = if self.below(2) == 0 { "\r\n" } else { " " };
            let mut parts: Vec<_> = text.split(separator).map(str::to_owned).collect();
            let at = self.below(parts.len());
            match self.below(6) {
                0 => drop(parts.remove(at)),
                1 => parts.insert(at, parts[at].clone()),
                2 => parts[at] = parts[at].chars().take(parts[at].len() / 2).collect(),
                3 => parts[at] = "18446744073709551616".to_owned(),
                4 => {
                    parts[at] = ["", "-1", "0", "\u{0}", "é", ":", "a=", "m=", "[::1]"]
                        [self.below(9)]
                    .to_owned()
                }
                _ => {
                    let other = self.below(parts.len());
                    parts.swap(at, other);
                }
            }
            text = parts.join(separator);
        }
        text
    }
}
