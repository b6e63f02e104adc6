//! What members send each other.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{A, B, Engine, over_each_engine};
use crate::cluster::{backplane::LinkEvent, ids::MemberId};

over_each_engine!(
    frames_come_in_as_they_were_sent,
    frames_keep_the_order_of_the_calls,
    whether_anybody_listens_is_told,
    who_listens_no_more_has_all_that_was_heard_before,
);

async fn frames_come_in_as_they_were_sent(engine: Engine) {
    let (a, mut b) = (engine.link(A).await, engine.link(B).await);
    let all: Vec<u8> = (0..=255).collect();
    for frames in [Bytes::new(), Bytes::from(all), Bytes::from(vec![b'\r'; 200_000])] {
        assert!(a.link.publish(B, frames.clone()).await.unwrap());
        let LinkEvent::Frames(heard) = b.event().await else { panic!("no frames") };
        assert_eq!(heard, frames);
    }
    // To itself as well.
    assert!(b.link.publish(B, Bytes::from_static(b"x")).await.unwrap());
    assert!(matches!(b.event().await, LinkEvent::Frames(heard) if heard == "x"));
}

async fn frames_keep_the_order_of_the_calls(engine: Engine) {
    let (a, mut b) = (engine.link(A).await, engine.link(B).await);
    let number = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    let mut sending: Vec<_> = (0..500).map(|n| a.link.publish(B, number(n))).collect();
    // Whichever is looked at first.
    sending.reverse();
    let heard = async {
        for expected in 0..500 {
            let LinkEvent::Frames(heard) = b.event().await else { panic!("no frames") };
            assert_eq!(heard, number(expected));
        }
    };
    let (sent, ()) = tokio::join!(join_all(sending), heard);
    assert!(sent.into_iter().all(Result::unwrap));
}

async fn whether_anybody_listens_is_told(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let frames = || Bytes::from_static(b"x");
    assert!(!a.link.publish(MemberId(7), frames()).await.unwrap());
    assert!(a.link.publish(B, frames()).await.unwrap());
    drop(b);
    while a.link.publish(B, frames()).await.unwrap() {
        super::pass().await;
    }
}

async fn who_listens_no_more_has_all_that_was_heard_before(engine: Engine) {
    let (a, mut b) = (engine.link(A).await, engine.link(B).await);
    let frames = || Bytes::from_static(b"x");
    for _ in 0..20 {
        assert!(a.link.publish(B, frames()).await.unwrap());
    }
    b.link.unlisten().await.unwrap();
    assert!(!a.link.publish(B, frames()).await.unwrap());
    for _ in 0..20 {
        assert!(matches!(b.event().await, LinkEvent::Frames(heard) if heard == "x"));
    }
    assert!(matches!(b.event().await, LinkEvent::Unlistened));
    // It may still speak.
    assert!(b.link.publish(A, frames()).await.unwrap());
}
