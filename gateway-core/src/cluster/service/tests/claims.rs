//! Who is put down in the directory, and by whom, where several may have been.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_an_earlier_tenure_gives_back_is_not_taken_for_a_later_ones() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let (presence, joined) = (&node.core.router.presence, node.cluster.joined().unwrap());
    for is_answered_late in [false, true] {
        let me = Identity::generate();
        let (older, newer) = (session_of(&me), session_of(&me));
        presence.claim(&older).await;
        assert!(presence.claiming(&older));
        let claim = Claim { member: joined.member, agent: older.facts(), age: Duration::ZERO };
        let Ok(Claimed::Won { epoch, .. }) = joined.link.claim(&claim).await else {
            panic!("nobody else has it")
        };
        let answered = || granted(&node.core, &node.cluster, &older, epoch);
        if !is_answered_late {
            answered();
        }
        sleep(Duration::from_millis(10)).await;
        presence.abandon(&older, "closed");
        presence.claim(&newer).await;
        // It proved its key before the older claim was carried out.
        let (core, cluster) = (Arc::clone(&node.core), Arc::clone(&node.cluster));
        place_running(core, cluster, Arc::clone(&newer), Duration::from_secs(1)).await;
        if is_answered_late {
            answered();
        }
        sleep(Duration::from_millis(10)).await;
        until("all is told", || node.cluster.ledger.is_settled()).await;
        let entry = trial.engine.entry(me.key()).expect("it is down");
        assert_eq!((entry.member, Some(entry.epoch)), (joined.member, newer.epoch()));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_was_put_down_last_for_a_former_member_is_put_down_anew() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let agent = node.register(&Identity::generate()).await;
    let former = node.cluster.joined().unwrap();
    sleep(Duration::from_millis(10)).await;
    // A claim whose answer never came.
    let facts = trial.entry(&agent).unwrap().agent;
    let claim = Claim { member: former.member, agent: facts, age: Duration::ZERO };
    assert!(matches!(former.link.claim(&claim).await, Ok(Claimed::Won { .. })));
    tokio::time::advance(2 * LEASE).await;
    sleep(2 * LEASE).await;
    let now = node.joined().await;
    assert_ne!(now, former.member);
    assert_eq!(trial.entry(&agent).expect("it is down").member, now);
}

#[tokio::test(start_paused = true)]
async fn what_is_uncertain_is_set_right() {
    let trial = Trial::new();
    let nodes: [Node; 2] = trial.nodes().await;
    let [a, b] = &nodes;
    let missing = a.register(&Identity::generate()).await;
    let mut moved = a.register(&Identity::generate()).await;
    let joined = a.cluster.joined().unwrap();
    sleep(Duration::from_millis(10)).await;
    let (key, epoch) = (missing.key(), trial.entry(&missing).unwrap().epoch);
    let release = Release { key, epoch, reason: "closed" };
    joined.link.release(joined.member, &[release]).await.unwrap();
    let facts = trial.entry(&moved).unwrap().agent;
    let claim = Claim { member: b.joined().await, agent: facts, age: Duration::ZERO };
    assert!(matches!(joined.link.claim(&claim).await, Ok(Claimed::Won { .. })));
    verify(&a.core, &a.cluster, &joined, &[missing.key(), moved.key()]).await.unwrap();
    assert_eq!(moved.closed().await, 4003);
    until("it is down again", || trial.entry(&missing).is_some()).await;
    assert_eq!(trial.entry(&missing).unwrap().member, joined.member);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_put_down_for_a_member_whose_lease_may_be_over() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let member = node.joined().await;
    let session = session_of(&Identity::generate());
    let entry = || trial.engine.entry(session.agent.key());
    node.core.router.presence.claim(&session).await;
    // As after it stood still.
    node.cluster.trust_until(None);
    let (core, cluster) = (Arc::clone(&node.core), Arc::clone(&node.cluster));
    place_running(core, cluster, Arc::clone(&session), Duration::ZERO).await;
    assert!(entry().is_none(), "that member may be buried");
    until("it is put down for the next one", || entry().is_some()).await;
    assert_ne!(entry().unwrap().member, member);
}

#[tokio::test(start_paused = true)]
async fn a_burial_of_who_a_node_was_before_is_finished_by_itself() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let former = node.joined().await;
    node.cut_off(true);
    sleep(2 * LEASE).await;
    // Another one strikes it off, and does no more about it.
    let (events, _heard) = mpsc::channel(1);
    let link = trial.engine.connect(MemberId::generate(), events).await.unwrap();
    assert!(link.strike(former, LEASE).await.unwrap());
    node.cut_off(false);
    assert_ne!(node.joined().await, former);
    sleep(2 * LEASE).await;
    assert!(!link.strike(former, LEASE).await.unwrap(), "nothing is left to be buried");
}
