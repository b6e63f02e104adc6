//! Which agent is on which node.

use std::{sync::Arc, time::Duration};

use super::{A, B, Engine, agent, key, over_each_engine, pass};
use crate::cluster::{
    backplane::{Announced, Change, ChangeKind, Claimed, Release},
    ids::{Bucket, Epoch, MemberId},
};

over_each_engine!(
    the_newest_registration_counts,
    an_agent_is_taken_out_by_its_own_registration_alone,
    an_announcement_is_all_that_a_member_has,
    an_announcement_does_not_win_over_a_newer_registration,
    what_is_told_of_an_agent_is_replaced_while_it_is_there,
    agents_are_found_in_the_order_of_the_keys,
    what_a_member_has_is_known_and_cleared,
    ages_do_not_count_while_the_clock_is_behind,
    each_agent_of_an_announcement_has_its_own_age,
    no_two_registrations_have_the_same_epoch,
    many_agents_go_at_once,
    followers_are_told_of_each_change_once,
);

async fn the_newest_registration_counts(engine: Engine) {
    let (mut a, b) = (engine.link(A).await, engine.link(B).await);
    let agent = agent(0);
    a.link.follow(Bucket(0)).await.unwrap();
    let Claimed::Won { epoch: first, before: None } = a.claim(&agent, Duration::ZERO).await else {
        panic!("nobody had it before")
    };
    pass().await;
    let late = b.claim(&agent, Duration::from_secs(10)).await;
    assert!(matches!(late, Claimed::Lost { to, epoch } if (to, epoch) == (A, first)), "{late:?}");
    let moved = b.claim(&agent, Duration::ZERO).await;
    let Claimed::Won { epoch: second, before: Some(before) } = moved else { panic!("{moved:?}") };
    assert_eq!(before, (A, first));
    assert!(second > first);
    let again = b.claim(&agent, Duration::ZERO).await;
    assert!(matches!(again, Claimed::Won { before: Some((B, epoch)), .. } if epoch == second));
    let key = key(&agent);
    let change = |member, epoch, kind| Change { key, member, epoch, kind };
    assert_eq!(a.change().await, change(A, first, ChangeKind::Came));
    assert_eq!(a.change().await, change(B, second, ChangeKind::Moved));
    let third = a.change().await;
    assert!(third.epoch > second);
    assert_eq!((third.member, third.kind), (B, ChangeKind::Moved));
    let entry = a.link.find(&[key]).await.unwrap().remove(0).unwrap();
    assert_eq!((entry.key, entry.member, entry.epoch), (key, B, third.epoch));
    assert_eq!(*entry.agent, *agent);
}

async fn an_agent_is_taken_out_by_its_own_registration_alone(engine: Engine) {
    let (mut a, b) = (engine.link(A).await, engine.link(B).await);
    let agent = agent(7);
    let key = key(&agent);
    let first = a.won(&agent).await;
    let second = b.won(&agent).await;
    a.link.follow(Bucket(7)).await.unwrap();
    let release = |epoch| [Release { key, epoch, reason: "closed" }];
    a.link.release(A, &release(first)).await.unwrap();
    a.link.release(A, &release(second)).await.unwrap();
    b.link.release(B, &release(first)).await.unwrap();
    assert!(a.link.find(&[key]).await.unwrap()[0].is_some());
    b.link.release(B, &release(second)).await.unwrap();
    assert!(a.link.find(&[key]).await.unwrap()[0].is_none());
    let left = ChangeKind::Left("closed".to_owned());
    assert_eq!(a.change().await, Change { key, member: B, epoch: second, kind: left });
    // And may come again.
    assert!(matches!(a.claim(&agent, Duration::ZERO).await, Claimed::Won { before: None, .. }));
    assert_eq!(a.change().await.kind, ChangeKind::Came);
}

async fn an_announcement_is_all_that_a_member_has(engine: Engine) {
    let mut a = engine.link(A).await;
    let (stays, goes, comes) = (agent(3), agent(3), agent(3));
    let elsewhere = agent(4);
    let (kept, lost) = (a.won(&stays).await, a.won(&goes).await);
    a.won(&elsewhere).await;
    a.link.follow(Bucket(3)).await.unwrap();
    let announced = |agent: &Arc<_>, epoch| Announced { agent: Arc::clone(agent), epoch };
    let all = [announced(&stays, Ok(kept)), announced(&comes, Err(Duration::from_secs(1)))];
    let outcomes = a.link.announce(A, Bucket(3), &all).await.unwrap();
    assert_eq!(outcomes.iter().map(|one| one.key).collect::<Vec<_>>(), [key(&stays), key(&comes)]);
    let same = &outcomes[0].claimed;
    assert!(matches!(same, Claimed::Won { epoch, before: Some((A, before)) }
        if (*epoch, *before) == (kept, kept)));
    assert!(matches!(outcomes[1].claimed, Claimed::Won { before: None, .. }));
    let mut changes = [a.change().await, a.change().await];
    changes.sort_by_key(|change| change.kind != ChangeKind::Came);
    assert_eq!(changes[0].key, key(&comes));
    let gone = ChangeKind::Left("gone".to_owned());
    assert_eq!(changes[1], Change { key: key(&goes), member: A, epoch: lost, kind: gone });
    let found =
        a.link.find(&[key(&stays), key(&goes), key(&comes), key(&elsewhere)]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    assert!(a.link.announce(A, Bucket(3), &[]).await.unwrap().is_empty());
    assert!(a.link.entries(A, Bucket(3)).await.unwrap().is_empty());
}

async fn an_announcement_does_not_win_over_a_newer_registration(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let (moved, free) = (agent(3), agent(3));
    let old = a.won(&moved).await;
    let new = b.won(&moved).await;
    let announced = |agent: &Arc<_>, epoch| Announced { agent: Arc::clone(agent), epoch };
    // Such an epoch comes from before an engine lost its memory, whose clock was ahead.
    let future = Epoch(new.0 + 3_600_000_000);
    let all = [announced(&moved, Ok(old)), announced(&free, Ok(future))];
    let outcomes = a.link.announce(A, Bucket(3), &all).await.unwrap();
    assert!(matches!(outcomes[0].claimed, Claimed::Lost { to: B, epoch } if epoch == new));
    assert!(matches!(outcomes[1].claimed, Claimed::Won { epoch, before: None } if epoch == future));
    // Still the next one is newer.
    assert!(b.won(&free).await > future);
    assert!(a.link.entries(A, Bucket(3)).await.unwrap().is_empty());
    assert_eq!(b.link.entries(B, Bucket(3)).await.unwrap().len(), 2);
    // A node that joins anew, as another member, keeps the epochs of its agents.
    let same = [announced(&moved, Ok(new))];
    let outcomes = a.link.announce(A, Bucket(3), &same).await.unwrap();
    assert!(matches!(outcomes[0].claimed, Claimed::Won { epoch, before: Some((B, before)) }
        if (epoch, before) == (new, new)));
    assert_eq!(b.link.entries(B, Bucket(3)).await.unwrap().len(), 1);
    assert_eq!(a.link.entries(A, Bucket(3)).await.unwrap().len(), 1);
    let keys = [key(&free), key(&moved), key(&agent(3))];
    assert_eq!(a.link.missing(A, Bucket(3), &keys).await.unwrap(), [0, 2]);
    assert_eq!(a.link.missing(B, Bucket(3), &keys).await.unwrap(), [1, 2]);
    assert!(a.link.missing(A, Bucket(3), &keys[1..2]).await.unwrap().is_empty());
}

/// As after an engine's clock was set back: the last epoch is ahead of it.
async fn ages_do_not_count_while_the_clock_is_behind(engine: Engine) {
    let a = engine.link(A).await;
    let agent = agent(3);
    let now = a.renew().await.now;
    let ahead = Epoch(now.0 + 3_600_000_000);
    let known = [Announced { agent: Arc::clone(&agent), epoch: Ok(ahead) }];
    a.link.announce(A, Bucket(3), &known).await.unwrap();
    let claimed = a.claim(&agent, Duration::from_secs(5)).await;
    assert!(matches!(claimed, Claimed::Won { epoch, .. } if epoch > ahead), "{claimed:?}");
}

async fn each_agent_of_an_announcement_has_its_own_age(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let agents = [agent(3), agent(3), agent(3)];
    let newer = [b.won(&agents[1]).await, b.won(&agents[2]).await];
    pass().await;
    let announced = |agent: &Arc<_>| Announced {
        agent: Arc::clone(agent),
        epoch: Err(Duration::from_secs(10)),
    };
    let all: Vec<_> = agents.iter().map(announced).collect();
    let outcomes = a.link.announce(A, Bucket(3), &all).await.unwrap();
    assert!(matches!(outcomes[0].claimed, Claimed::Won { before: None, .. }));
    for (outcome, newer) in outcomes[1..].iter().zip(newer) {
        let lost = matches!(outcome.claimed, Claimed::Lost { to: B, epoch } if epoch == newer);
        assert!(lost, "{outcome:?}");
    }
}

async fn what_is_told_of_an_agent_is_replaced_while_it_is_there(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let agent = agent(9);
    let key = key(&agent);
    let told = async |epoch, member, name: &str| {
        let mut other = (*agent).clone();
        other.metadata.name = Some(name.to_owned());
        a.link.describe(member, epoch, &other).await.unwrap();
        let found = a.link.find(&[key]).await.unwrap().remove(0);
        found.and_then(|entry| entry.agent.metadata.name.clone())
    };
    assert_eq!(told(Epoch(1), A, "nobody").await, None);
    let first = a.won(&agent).await;
    let before = agent.metadata.name.clone();
    assert_eq!(told(Epoch(first.0 - 1), A, "older").await, before);
    assert_eq!(told(first, B, "another's").await, before);
    assert_eq!(told(first, A, "new").await, Some("new".to_owned()));
    let second = b.won(&agent).await;
    assert_eq!(told(first, A, "late").await, before);
    assert_eq!(told(second, B, "last").await, Some("last".to_owned()));
}

async fn agents_are_found_in_the_order_of_the_keys(engine: Engine) {
    let a = engine.link(A).await;
    assert!(a.link.find(&[]).await.unwrap().is_empty());
    let agents: Vec<_> = (0..=255).rev().map(agent).collect();
    let mut keys = Vec::new();
    for agent in &agents {
        keys.extend([key(agent), key(&super::agent(agent.key[0]))]);
        a.won(agent).await;
    }
    let found = a.link.find(&keys).await.unwrap();
    for (index, (key, entry)) in keys.iter().zip(found).enumerate() {
        let found = entry.map(|entry| entry.key);
        assert_eq!(found, (index % 2 == 0).then_some(*key), "{index}");
    }
}

async fn what_a_member_has_is_known_and_cleared(engine: Engine) {
    let (a, mut b) = (engine.link(A).await, engine.link(B).await);
    let (one, two, moves, elsewhere) = (agent(1), agent(1), agent(1), agent(2));
    let mut epochs = Vec::new();
    for agent in [&one, &two, &moves, &elsewhere] {
        epochs.push(a.won(agent).await);
    }
    b.won(&moves).await;
    let mut entries = b.link.entries(A, Bucket(1)).await.unwrap();
    entries.sort_by_key(|entry| entry.epoch);
    let known: Vec<_> = entries.iter().map(|entry| (entry.key, entry.epoch)).collect();
    assert_eq!(known, [(key(&one), epochs[0]), (key(&two), epochs[1])]);
    assert!(entries.iter().all(|entry| entry.member == A && entry.agent.labels.len() == 1));
    b.link.follow(Bucket(1)).await.unwrap();
    b.link.clear(A, Bucket(1), "node_lost").await.unwrap();
    for _ in 0..2 {
        assert_eq!(b.change().await.kind, ChangeKind::Left("node_lost".to_owned()));
    }
    assert!(b.link.entries(A, Bucket(1)).await.unwrap().is_empty());
    assert_eq!(b.link.entries(B, Bucket(1)).await.unwrap().len(), 1);
    assert_eq!(b.link.entries(A, Bucket(2)).await.unwrap().len(), 1);
    b.link.clear(A, Bucket(1), "node_lost").await.unwrap();
    b.link.clear(MemberId(77), Bucket(9), "node_lost").await.unwrap();
}

async fn no_two_registrations_have_the_same_epoch(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let agent = agent(1);
    let mut last = Epoch(0);
    for _ in 0..50 {
        for node in [&a, &b] {
            let epoch = node.won(&agent).await;
            assert!(epoch > last);
            last = epoch;
        }
    }
}

async fn many_agents_go_at_once(engine: Engine) {
    let a = engine.link(A).await;
    let mut releases = Vec::new();
    for bucket in Bucket::all() {
        let announced = |_| Announced { agent: agent(bucket.0), epoch: Err(Duration::ZERO) };
        let all: Vec<_> = (0..3).map(announced).collect();
        for outcome in a.link.announce(A, bucket, &all).await.unwrap() {
            let Claimed::Won { epoch, before: None } = outcome.claimed else { panic!() };
            releases.push(Release { key: outcome.key, epoch, reason: "closed" });
        }
    }
    a.link.release(A, &[]).await.unwrap();
    a.link.release(A, &releases).await.unwrap();
    let keys: Vec<_> = releases.iter().map(|release| release.key).collect();
    assert!(a.link.find(&keys).await.unwrap().iter().all(Option::is_none));
    for bucket in Bucket::all() {
        assert!(a.link.entries(A, bucket).await.unwrap().is_empty());
    }
}

async fn followers_are_told_of_each_change_once(engine: Engine) {
    let (a, mut b) = (engine.link(A).await, engine.link(B).await);
    let (followed, other) = (agent(5), agent(6));
    a.won(&followed).await;
    b.link.follow(Bucket(5)).await.unwrap();
    // Twice is as good as once.
    b.link.follow(Bucket(5)).await.unwrap();
    a.won(&other).await;
    let second = a.won(&followed).await;
    assert_eq!(b.change().await.epoch, second);
    b.link.unfollow(Bucket(5)).await.unwrap();
    a.won(&followed).await;
    b.link.unfollow(Bucket(5)).await.unwrap();
    b.link.follow(Bucket(6)).await.unwrap();
    let last = a.won(&other).await;
    assert_eq!(b.change().await.epoch, last);
}
