//! What happens behind a node's back is found, and set right.

use std::time::Duration;

use conexus_protocol::{CloseReason, Identity};
use futures_util::FutureExt as _;

use crate::cluster::{
    backplane::{Claim, Claimed, Release},
    trial::{Agent, Node, Trial, until},
};

/// Puts an agent down as being on a node, which dies before it does anything else about that.
async fn claims_and_says_nothing(trial: &Trial, node: &Node, agent: &Agent) {
    let joined = node.cluster.joined().unwrap();
    let facts = trial.entry(agent).unwrap().agent;
    let claim = Claim { member: joined.member, agent: facts, age: Duration::ZERO };
    assert!(matches!(joined.link.claim(&claim).await, Ok(Claimed::Won { .. })));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_in_the_directory_any_more_is_put_down_again() {
    let trial = Trial::new();
    let [node] = trial.nodes().await;
    let agent = node.register(&Identity::generate()).await;
    let joined = node.cluster.joined().unwrap();
    let epoch = trial.entry(&agent).unwrap().epoch;
    let release = Release { key: agent.key(), epoch, reason: "lost" };
    joined.link.release(joined.member, &[release]).await.unwrap();
    assert!(trial.entry(&agent).is_none());
    until("it is down again", || trial.entry(&agent).is_some()).await;
    assert!(node.has(&agent));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_asks_to_end_ends_once_its_agent_is_elsewhere() {
    let trial = Trial::new();
    let [here, there] = trial.nodes().await;
    let mut agent = here.register(&Identity::generate()).await;
    claims_and_says_nothing(&trial, &there, &agent).await;
    assert_eq!(agent.closed().await, CloseReason::Replaced.code());
}

#[tokio::test(start_paused = true)]
async fn whoever_a_lost_node_had_taken_in_vain_is_there_when_it_is_buried() {
    let trial = Trial::new();
    let [here, there] = trial.nodes().await;
    let agent = here.register(&Identity::generate()).await;
    let joined = there.cluster.joined().unwrap();
    let facts = trial.entry(&agent).unwrap().agent;
    let claim = Claim { member: joined.member, agent: facts, age: Duration::ZERO };
    // In one moment: nobody looks in between.
    let claimed = joined.link.claim(&claim).now_or_never().expect("an engine in memory");
    assert!(matches!(claimed, Ok(Claimed::Won { .. })));
    there.kill();
    // Whichever comes first: the session here ends for the newer one, or is put down again.
    until("the other one is buried", || here.members().len() == 1).await;
    let is_right = || here.has(&agent) == trial.entry(&agent).is_some();
    until("presence and directory agree", is_right).await;
}
