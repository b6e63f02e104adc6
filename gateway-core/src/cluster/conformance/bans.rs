//! Bans that all nodes share.

use std::time::Duration;

use conexus_protocol::{AgentKey, Identity};
use tokio::time::sleep;

use super::{A, B, Engine, Node, over_each_engine};
use crate::{
    bans::MAX_BANS,
    cluster::backplane::{BanAbout, BanList, SharedBan},
};

over_each_engine!(
    bans_are_told_to_all_as_often_as_they_change,
    a_ban_ends_by_itself,
    too_many_bans_change_nothing,
);

const LONG: Duration = Duration::from_secs(600);

fn ban(key: AgentKey, left: Duration, reason: &str) -> SharedBan {
    let about = BanAbout { did: key.did(), reason: reason.to_owned(), by: "ops \"ä\"".to_owned() };
    SharedBan { key, left, about }
}

async fn told(node: &Node) -> BanList {
    node.link.bans(None).await.unwrap().unwrap()
}

/// Whom the list has, and what is said of them, in the order of their keys.
fn listed(list: &BanList) -> Vec<(AgentKey, BanAbout)> {
    let mut listed: Vec<_> = list.bans.iter().map(|ban| (ban.key, ban.about.clone())).collect();
    listed.sort_by_key(|(key, _)| *key);
    listed
}

async fn bans_are_told_to_all_as_often_as_they_change(engine: Engine) {
    let (a, b) = (engine.link(A).await, engine.link(B).await);
    let none = told(&a).await;
    assert_eq!((none.at.origin, none.bans.len()), (0, 0));
    assert!(b.link.bans(Some(none.at)).await.unwrap().is_none());
    let mut keys = [Identity::generate().key(), Identity::generate().key()];
    keys.sort();
    let [one, other] = keys.map(|key| ban(key, LONG, "spam"));
    assert!(a.link.ban(&[one.clone(), other.clone()], &[]).await.unwrap());
    let list = b.link.bans(Some(none.at)).await.unwrap().unwrap();
    assert_ne!(list.at.origin, 0);
    assert_eq!(listed(&list), [(keys[0], one.about.clone()), (keys[1], other.about)]);
    assert!(list.bans.iter().all(|ban| ban.left <= LONG && ban.left > LONG / 2));
    assert!(a.link.bans(Some(list.at)).await.unwrap().is_none());

    let again = ban(keys[0], LONG, "more spam");
    assert!(b.link.ban(std::slice::from_ref(&again), &[keys[1]]).await.unwrap());
    let after = a.link.bans(Some(list.at)).await.unwrap().unwrap();
    assert_eq!(after.at.origin, list.at.origin);
    assert_eq!(listed(&after), [(keys[0], again.about)]);
}

async fn a_ban_ends_by_itself(engine: Engine) {
    let a = engine.link(A).await;
    let key = Identity::generate().key();
    let short = Duration::from_millis(300);
    assert!(a.link.ban(&[ban(key, short, "")], &[]).await.unwrap());
    assert_eq!(told(&a).await.bans.len(), 1);
    sleep(2 * short).await;
    assert_eq!(told(&a).await.bans.len(), 0);
}

async fn too_many_bans_change_nothing(engine: Engine) {
    let a = engine.link(A).await;
    let key = |number: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        AgentKey::from_bytes(bytes)
    };
    let many: Vec<_> = (0..MAX_BANS).map(|number| ban(key(number), LONG, "")).collect();
    assert!(a.link.ban(&many, &[]).await.unwrap());
    let full = told(&a).await;
    assert_eq!(full.bans.len(), MAX_BANS);
    let one_more = [ban(key(MAX_BANS), LONG, "")];
    assert!(!a.link.ban(&one_more, &[]).await.unwrap());
    assert!(a.link.bans(Some(full.at)).await.unwrap().is_none(), "nothing has changed");
    assert!(a.link.ban(&one_more, &[key(0)]).await.unwrap(), "in the place of another one");
    assert_eq!(told(&a).await.bans.len(), MAX_BANS);
}
