//! Who is there.

use std::time::Duration;

use super::{A, B, Engine, LEASE, info, over_each_engine, pass};
use crate::cluster::ids::{Epoch, MemberId};

over_each_engine!(
    a_member_is_there_for_its_lease,
    one_of_many_strikes_a_dead_member,
    a_burial_that_is_not_finished_goes_to_another,
    who_retires_is_not_buried,
);

async fn a_member_is_there_for_its_lease(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let roster = a.renew().await;
    assert!(roster.entered && roster.unburied.is_empty());
    assert_eq!(roster.members.len(), 1);
    assert_eq!((roster.members[0].member, &roster.members[0].info), (A, &info(A)));
    assert_eq!(roster.members[0].left, LEASE);
    let later = a.renew().await;
    assert!(!later.entered && later.now >= roster.now && roster.now > Epoch(0));
    let mut told = info(B);
    told.draining = true;
    told.node_id = "B\n\"2\"".to_owned();
    assert!(b.link.renew(B, &told, LEASE).await.unwrap().entered);
    let mut last = LEASE;
    loop {
        let roster = a.renew().await;
        let b = roster.members.iter().find(|listed| listed.member == B).unwrap();
        assert_eq!(b.info, told);
        assert!(b.left <= last);
        last = b.left;
        if last.is_zero() {
            break;
        }
        pass().await;
    }
    // Listed until it is struck, and back if it is not.
    let roster = b.renew().await;
    assert!(!roster.entered);
    assert_eq!(roster.members.len(), 2);
    assert!(roster.members.iter().all(|listed| listed.left > Duration::ZERO));
}

async fn one_of_many_strikes_a_dead_member(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    b.renew().await;
    assert!(!a.link.strike(B, LEASE).await.unwrap(), "its lease runs");
    assert!(!a.link.strike(MemberId(7), LEASE).await.unwrap(), "never seen");
    while !left(&a, B).await.is_zero() {
        pass().await;
    }
    let (one, two) = tokio::join!(a.link.strike(B, LEASE), b.link.strike(B, LEASE));
    assert!(one.unwrap() ^ two.unwrap());
    assert!(!a.link.strike(B, LEASE).await.unwrap());
    assert_eq!(a.renew().await.members.len(), 1);
    assert!(b.renew().await.entered, "it is off the roster");
}

async fn a_burial_that_is_not_finished_goes_to_another(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    b.renew().await;
    while !left(&a, B).await.is_zero() {
        pass().await;
    }
    assert!(a.link.strike(B, LEASE).await.unwrap());
    for _ in 0..2 {
        assert!(a.renew().await.unburied.is_empty(), "it has a lease for it");
        assert!(!a.link.strike(B, LEASE).await.unwrap());
        while a.renew().await.unburied.is_empty() {
            pass().await;
        }
        assert_eq!(a.renew().await.unburied, [B]);
        assert!(a.link.strike(B, LEASE).await.unwrap(), "now it is another's task");
    }
    a.link.buried(B).await.unwrap();
    for _ in 0..30 {
        assert!(a.renew().await.unburied.is_empty());
        pass().await;
    }
    assert!(!a.link.strike(B, LEASE).await.unwrap());
    a.link.buried(B).await.unwrap();
}

async fn who_retires_is_not_buried(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    b.renew().await;
    b.link.retire(B).await.unwrap();
    b.link.retire(B).await.unwrap();
    assert!(!a.link.strike(B, LEASE).await.unwrap());
    for _ in 0..30 {
        let roster = a.renew().await;
        assert!(roster.unburied.is_empty() && roster.members.len() == 1);
        pass().await;
    }
}

/// What is left of a member's lease.
async fn left(node: &super::Node, member: MemberId) -> Duration {
    let roster = node.renew().await;
    roster.members.iter().find(|listed| listed.member == member).unwrap().left
}
