//! Who counts: leases that are over or not certain, and what becomes of messages then.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use conexus_protocol::Identity;
use futures_util::FutureExt as _;
use tokio::time::{Instant, advance};

use super::{
    node::{Node, quiet, settings, takes, until},
    pair::Pair,
};
use crate::{
    cluster::{ids::MemberId, memory::MemoryEngine},
    hooks::{EmptyChain, Fixed},
};

#[tokio::test(start_paused = true)]
async fn nobody_is_nowhere_before_the_roster_says_that_their_node_is_gone() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    let lease = Duration::from_secs(5);
    pair.b.look(lease).await;
    pair.a.look(lease * 100).await;
    advance(lease - Duration::from_millis(1)).await;
    // It is renewed at the last moment, which the sender's node has not heard of.
    pair.b.look(lease).await;
    advance(Duration::from_millis(1)).await;
    let look = pair.a.looks_when_wanted(lease * 100);
    tokio::join!(pair.sends(&["1"]), look);
    quiet().await;
    assert_eq!((takes(&target), pair.a.counts().held), (vec!["1".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_nowhere_while_the_roster_is_not_answered() {
    let pair = Pair::new().await;
    let _target = pair.b.comes(&pair.target).await;
    let lease = Duration::from_secs(5);
    pair.b.look(lease).await;
    pair.a.look(lease * 100).await;
    advance(lease).await;
    pair.sends(&["1"]).await;
    tokio::time::sleep(pair.a.settings().cluster.takeover_timeout).await;
    quiet().await;
    pair.assert_refused("node_unreachable", 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_to_a_node_whose_lease_is_over_is_refused_once() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    let lease = Duration::from_secs(5);
    pair.b.look(lease).await;
    pair.a.look(lease * 100).await;
    pair.sends(&["1", "2"]).await;
    quiet().await;
    advance(lease).await;
    until(|| pair.a.refused("node_unreachable") == 2).await;
    pair.assert_refused("node_unreachable", 2);
    // It comes to itself, and says what became of them.
    assert_eq!(takes(&target), ["1", "2"]);
    quiet().await;
    assert_eq!((pair.a.counts().refused, pair.delivered_so_far()), (2, 0));
    // Meanwhile its agents are nowhere, once the roster says so.
    let look = pair.a.looks_when_wanted(lease * 100);
    tokio::join!(pair.sends(&["3"]), look);
    quiet().await;
    assert_eq!(pair.a.counts().held, 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_directory_still_has_of_a_node_that_was_struck_off_counts_no_more() {
    let pair = Pair::new().await;
    let lease = Duration::from_secs(5);
    let _frozen = pair.b.comes(&pair.target).await;
    pair.b.look(lease).await;
    pair.a.look(lease * 100).await;
    // It stands still: its connection to the engine is open, and nothing of it is answered.
    pair.b.deaf.store(true, Relaxed);
    tokio::time::sleep(lease).await;
    let joined = pair.a.cluster.joined().unwrap();
    assert!(joined.link.strike(pair.b.member(), lease).await.unwrap());
    pair.a.look(lease * 100).await;
    quiet().await;
    // Whoever buries it has not come to this agent yet.
    pair.sends(&["1"]).await;
    quiet().await;
    assert_eq!((pair.a.counts().held, pair.a.delivery.under_way().0), (1, 0));
    let c = Node::start(&pair.engine).await;
    let again = c.comes(&pair.target).await;
    pair.sends(&["2"]).await;
    quiet().await;
    assert_eq!(takes(&again), ["1", "2"]);
    quiet().await;
    assert!(pair.a.is_even());
    assert_eq!(pair.delivered_so_far(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_to_a_node_that_is_never_seen_on_the_roster_ends_within_a_lease() {
    let engine = MemoryEngine::new();
    let mut short = settings();
    short.cluster.lease = Duration::from_secs(5);
    let a = Node::start_with(&engine, short, Arc::new(Fixed(Arc::new(EmptyChain)))).await;
    let b = Node::start(&engine).await;
    let (sender, me) = (a.comes(&Identity::generate()).await, Identity::generate());
    let _frozen = b.comes(&me).await;
    b.deaf.store(true, Relaxed);
    a.sends(&sender, me.key(), "1").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((a.refused("node_unreachable"), a.delivery.under_way().0), (0, 1));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((a.refused("node_unreachable"), a.delivery.under_way().0), (1, 0));
    // Its lane does not lead there any more.
    let c = Node::start(&engine).await;
    let again = c.comes(&me).await;
    a.sends(&sender, me.key(), "2").await;
    quiet().await;
    assert_eq!(takes(&again), ["2"]);
    quiet().await;
    assert!(a.is_even(), "{:?}", a.counts());
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_lease_is_not_certain_takes_nothing() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.b.cluster.trust_until(None);
    pair.sends(&["1"]).await;
    quiet().await;
    assert!(takes(&target).is_empty());
    assert_eq!(pair.a.counts().held, 1);
    pair.b.cluster.trust_until(Some(Instant::now() + Duration::from_secs(60)));
    until(|| !target.outbox.is_empty()).await;
    assert_eq!(takes(&target), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_node_stood_still_is_not_written_after_it() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1"]).await;
    until(|| !target.outbox.is_empty()).await;
    let came = target.outbox.take().unwrap();
    assert!(came.is_timely());
    pair.b.cluster.trust_until(None);
    assert!(!came.is_timely(), "its lease may be over, and the target elsewhere");
    drop(came);
    quiet().await;
    assert_eq!(pair.a.counts().held, 1, "its sender is told to see to it");
    pair.b.cluster.trust_until(Some(Instant::now() + Duration::from_secs(60)));
    until(|| !target.outbox.is_empty()).await;
    let again = target.outbox.take().unwrap();
    assert!(again.is_timely());
    pair.b.rejoin().await;
    assert!(pair.b.cluster.is_trusted());
    assert!(!again.is_timely(), "it came to who this node was before");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_a_stranger_waits_for_the_look_that_is_under_way() {
    let pair = Pair::new().await;
    let stranger = Node::start(&pair.engine).await;
    let member = stranger.member();
    let cluster = &pair.a.cluster;
    assert!(cluster.members.load().get(member).is_none());
    let look = pair.a.looks_when_wanted(Duration::from_secs(60));
    let (first, second, ()) = tokio::join!(cluster.counts(member), cluster.counts(member), look);
    assert_eq!((first, second), (true, true));
    // One that is not there is looked for once.
    let nobody = MemberId::generate();
    let look = pair.a.looks_when_wanted(Duration::from_secs(60));
    let (first, second, ()) = tokio::join!(cluster.counts(nobody), cluster.counts(nobody), look);
    assert_eq!((first, second), (false, false));
    assert!(!cluster.counts(nobody).await);
    assert!(cluster.look_wanted().now_or_never().is_none());
    // While the engine does not say, nobody is taken for gone; that is waited for once.
    let unanswered = MemberId::generate();
    assert!(cluster.counts(unanswered).await);
    let waited = Instant::now();
    assert!(cluster.counts(unanswered).await);
    assert_eq!(Instant::now(), waited);
}
