//! The stack in one process, over loopback.

pub(crate) mod pair;

use self::pair::{End, connected, next, opened, signal};
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
