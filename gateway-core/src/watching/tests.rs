//! The rules of watching, with presence itself and no socket: what is told is read from outboxes.

use std::{sync::Arc, time::Duration};

use conexus_protocol::{AgentKey, Envelope, Identity, Presence as Payload, PresenceState, Rules};

use super::{
    LATE,
    change::{Spelling, Teller},
    watcher::Told,
};
use crate::{
    clock::Clock,
    mailbox::MailboxLimits,
    presence::Presence,
    session::{
        handle::{SessionHandle, tests::session_of},
        outbox::Order,
    },
    telemetry::Telemetry,
    voice::Voice,
};

struct World {
    presence: Presence,
    voice: Voice,
    telemetry: Arc<Telemetry>,
}

impl World {
    fn new() -> Self {
        let limits = MailboxLimits {
            messages_per_agent: 8,
            bytes_per_agent: 1000,
            total_bytes: 1000,
            messages_per_sender: 8,
        };
        let (clock, telemetry) = (Clock::start(), Arc::<Telemetry>::default());
        let presence = Presence::new(limits, clock, Arc::clone(&telemetry));
        Self { presence, voice: Voice::new(Identity::generate()), telemetry }
    }

    fn teller(&self) -> Teller<'_> {
        Teller { voice: &self.voice }
    }

    fn watch(&self, watcher: &Arc<SessionHandle>, key: AgentKey, spelling: Spelling) -> Told {
        assert!(watcher.watcher.begin(key, spelling));
        let latest = self.presence.watch(key, watcher);
        watcher.watcher.tell_anew(&watcher.outbox, &latest, self.teller())
    }

    /// What the task that tells does until there is nothing left to do.
    fn tell_all(&self) {
        let watches = &self.presence.watches;
        while let Some(key) = watches.take_changed() {
            let part = watches.part(key, None, 100);
            for watcher in &part.watchers {
                let told = watcher.watcher.tell(&watcher.outbox, &part.changes, self.teller());
                self.telemetry.watches.told(told);
            }
            watches.told(key, part.changes.last().map_or(0, |change| change.number()));
        }
    }

    async fn comes(&self, identity: &Identity) -> Arc<SessionHandle> {
        let session = session_of(identity);
        self.presence.claim(&session).await;
        session
    }

    fn goes(&self, session: &SessionHandle, reason: &'static str) {
        assert!(self.presence.begin_leaving(session, reason));
        assert!(self.presence.finish_leaving(session));
    }
}

fn payloads(session: &SessionHandle) -> Vec<Payload> {
    let texts = std::iter::from_fn(|| session.outbox.take());
    let payload = |parcel: crate::session::outbox::Parcel| {
        Envelope::parse(parcel.text(), Rules::V1_1).unwrap().payload::<Payload>().unwrap()
    };
    texts.map(payload).collect()
}

/// What an outbox says, in short.
fn told(session: &SessionHandle) -> Vec<String> {
    let word = |presence: Payload| match (presence.state, presence.reason) {
        (PresenceState::Online, None) => "online".to_owned(),
        (PresenceState::Offline, reason) => reason.unwrap_or_else(|| "absent".into()),
        (PresenceState::Online, Some(reason)) => panic!("online for {reason}"),
    };
    payloads(session).into_iter().map(word).collect()
}

#[tokio::test]
async fn a_watcher_is_told_the_state_and_then_each_change_in_order() {
    let world = World::new();
    let (me, watcher) = (Identity::generate(), session_of(&Identity::generate()));
    world.watch(&watcher, me.key(), Spelling::W3c);
    assert_eq!(told(&watcher), ["absent"]);
    let session = world.comes(&me).await;
    world.goes(&session, "expired");
    world.comes(&me).await;
    world.tell_all();
    assert_eq!(told(&watcher), ["online", "expired", "online"]);
    world.tell_all();
    assert!(told(&watcher).is_empty(), "each is told once");
    world.watch(&watcher, me.key(), Spelling::W3c);
    assert_eq!(told(&watcher), ["online"], "who asks again is answered again");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_is_no_change_and_the_state_is_as_old_as_the_first_session() {
    let world = World::new();
    let (me, watcher) = (Identity::generate(), session_of(&Identity::generate()));
    let older = world.comes(&me).await;
    world.watch(&watcher, me.key(), Spelling::W3c);
    let since = payloads(&watcher)[0].since.clone();
    tokio::time::advance(Duration::from_millis(3)).await;
    let newer = session_of(&me);
    let yields = async {
        older.outbox.changed().await;
        let Some(Order::Yield(to)) = older.outbox.take_order() else { panic!("no order") };
        to.send(Vec::new()).unwrap();
    };
    tokio::join!(world.presence.claim(&newer), yields);
    world.tell_all();
    assert!(told(&watcher).is_empty());
    let other = session_of(&Identity::generate());
    world.presence.unwatch(me.key(), &watcher);
    world.watch(&other, me.key(), Spelling::W3c);
    assert_eq!(payloads(&other)[0].since, since, "kept by presence, not by who watches");
}

#[tokio::test]
async fn each_watcher_reads_its_own_spelling_and_both_share_the_words_of_one() {
    let world = World::new();
    let me = Identity::generate();
    let watchers: Vec<_> = (0..3).map(|_| session_of(&Identity::generate())).collect();
    for (watcher, spelling) in
        watchers.iter().zip([Spelling::W3c, Spelling::Legacy, Spelling::Legacy])
    {
        world.watch(watcher, me.key(), spelling);
        watcher.outbox.take();
    }
    world.comes(&me).await;
    world.tell_all();
    let texts: Vec<_> = watchers.iter().map(|watcher| watcher.outbox.take().unwrap()).collect();
    let did = |index: usize| {
        let envelope = Envelope::parse(texts[index].text(), Rules::V1_1).unwrap();
        envelope.payload::<Payload>().unwrap().did
    };
    assert_eq!((did(0), did(1)), (me.key().did(), me.key().legacy_did()));
    assert!(Arc::ptr_eq(texts[1].text(), texts[2].text()), "signed once for both");
}

#[tokio::test]
async fn without_room_the_latest_state_of_each_agent_is_owed_and_comes_as_room_does() {
    let world = World::new();
    let (one, other) = (Identity::generate(), Identity::generate());
    // Half of its room for 8 messages is for this.
    let watcher = session_of(&Identity::generate());
    for _ in 0..4 {
        world.watch(&watcher, one.key(), Spelling::W3c);
    }
    assert!(!watcher.watcher.is_owed());
    world.watch(&watcher, other.key(), Spelling::W3c);
    assert!(watcher.watcher.is_owed());
    for _ in 0..3 {
        let session = world.comes(&one).await;
        world.tell_all();
        world.goes(&session, "closed");
        world.tell_all();
    }
    world.comes(&other).await;
    world.tell_all();
    assert_eq!(watcher.watcher.settle(&watcher.outbox, world.teller()), 0, "no room yet");
    assert_eq!(told(&watcher), ["absent"; 4]);
    assert_eq!(watcher.watcher.settle(&watcher.outbox, world.teller()), 2);
    assert!(!watcher.watcher.is_owed());
    // In the order in which they began to be owed, each as it is now.
    assert_eq!(told(&watcher), ["online", "closed"]);
    // Five of six changes of the one, and the first answer about the other.
    assert_eq!(world.telemetry.watches.presences().1, 6);
}

#[tokio::test]
async fn more_changes_than_are_kept_become_the_last_one() {
    let world = World::new();
    let (me, watcher) = (Identity::generate(), session_of(&Identity::generate()));
    world.watch(&watcher, me.key(), Spelling::W3c);
    told(&watcher);
    for _ in 0..8 {
        let session = world.comes(&me).await;
        world.goes(&session, "closed");
    }
    world.comes(&me).await;
    world.tell_all();
    assert_eq!(told(&watcher), ["online"]);
}

#[tokio::test]
async fn who_watches_no_longer_is_told_nothing_and_nothing_is_kept() {
    let world = World::new();
    let me = Identity::generate();
    let (one, other) = (session_of(&Identity::generate()), session_of(&Identity::generate()));
    for watcher in [&one, &other] {
        world.watch(watcher, me.key(), Spelling::W3c);
        told(watcher);
    }
    assert_eq!((world.presence.watches.watched(), world.telemetry.watches.count()), (1, 2));
    let session = world.comes(&me).await;
    // What is under way already does not reach them either.
    world.presence.unwatch(me.key(), &one);
    world.presence.unwatch(me.key(), &one);
    world.presence.unwatch_all(&other);
    assert!(!other.watcher.begin(me.key(), Spelling::W3c), "it has ended for good");
    world.tell_all();
    world.goes(&session, "closed");
    world.tell_all();
    assert!(told(&one).is_empty() && told(&other).is_empty());
    assert_eq!((world.presence.watches.watched(), world.telemetry.watches.count()), (0, 0));
    assert!(world.presence.watches.shards.iter().all(|shard| shard.lock().is_empty()));
    assert_eq!((one.watcher.count(), other.watcher.count()), (0, 0));
}

#[tokio::test]
async fn an_agent_that_begins_again_and_again_while_it_is_owed_costs_one_place() {
    let world = World::new();
    let (one, other) = (Identity::generate(), Identity::generate());
    let watcher = session_of(&Identity::generate());
    for _ in 0..4 {
        world.watch(&watcher, one.key(), Spelling::W3c);
    }
    for _ in 0..100 {
        world.watch(&watcher, other.key(), Spelling::W3c);
        assert!(watcher.watcher.is_owed());
        world.presence.unwatch(other.key(), &watcher);
    }
    assert_eq!(watcher.watcher.owing(), 0);
}

#[tokio::test]
async fn once_silent_nobody_is_told_of_changes() {
    let world = World::new();
    let (me, watcher) = (Identity::generate(), session_of(&Identity::generate()));
    world.watch(&watcher, me.key(), Spelling::W3c);
    told(&watcher);
    world.presence.watches.fall_silent();
    world.comes(&me).await;
    world.tell_all();
    assert!(told(&watcher).is_empty());
    world.watch(&watcher, me.key(), Spelling::W3c);
    assert_eq!(told(&watcher), ["online"], "but who asks is told the truth");
}

#[tokio::test]
async fn what_was_not_told_before_the_silence_is_not_told_any_more() {
    let world = World::new();
    let (me, watcher) = (Identity::generate(), session_of(&Identity::generate()));
    world.watch(&watcher, me.key(), Spelling::W3c);
    told(&watcher);
    world.comes(&me).await;
    world.presence.watches.fall_silent();
    world.tell_all();
    assert!(told(&watcher).is_empty());
    assert_eq!(world.presence.watches.backlog().0, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_begins_is_not_told_what_was_before_however_often_it_asks() {
    let world = World::new();
    let me = Identity::generate();
    let (first, second) = (session_of(&Identity::generate()), session_of(&Identity::generate()));
    world.watch(&first, me.key(), Spelling::W3c);
    let session = world.comes(&me).await;
    tokio::time::advance(Duration::from_millis(5)).await;
    world.goes(&session, "removed");
    tokio::time::advance(Duration::from_millis(5)).await;
    // Before the others were told, and after.
    world.watch(&second, me.key(), Spelling::W3c);
    let answer = payloads(&second).remove(0);
    assert_eq!(answer.reason, None);
    world.tell_all();
    assert_eq!(told(&first), ["absent", "online", "removed"]);
    tokio::time::advance(Duration::from_millis(5)).await;
    world.watch(&second, me.key(), Spelling::W3c);
    assert_eq!(payloads(&second), [answer], "the same again, and nothing else");
    world.watch(&first, me.key(), Spelling::W3c);
    assert_eq!(told(&first), ["removed"], "who was there knows");
    let session = world.comes(&me).await;
    world.goes(&session, "closed");
    world.tell_all();
    assert_eq!(told(&second), ["online", "closed"]);
    world.watch(&second, me.key(), Spelling::W3c);
    assert_eq!(told(&second), ["closed"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_had_to_wait_is_told_the_last_change_alone() {
    let world = World::new();
    let (me, watcher) = (Identity::generate(), session_of(&Identity::generate()));
    world.watch(&watcher, me.key(), Spelling::W3c);
    told(&watcher);
    world.comes(&me).await;
    assert_eq!(world.presence.watches.backlog(), (1, Duration::ZERO));
    tokio::time::advance(LATE / 2).await;
    let key = me.key();
    let session = world.presence.holder(key).unwrap();
    world.goes(&session, "closed");
    world.comes(&me).await;
    tokio::time::advance(LATE / 2).await;
    assert_eq!(world.presence.watches.backlog(), (1, LATE));
    world.tell_all();
    assert_eq!(told(&watcher), ["online"]);
    assert_eq!(world.telemetry.watches.presences().1, 2);
    assert_eq!(world.presence.watches.backlog(), (0, Duration::ZERO));
}

#[tokio::test]
async fn words_are_kept_no_longer_than_it_takes_to_tell_them() {
    let world = World::new();
    let (me, watcher) = (Identity::generate(), session_of(&Identity::generate()));
    world.watch(&watcher, me.key(), Spelling::W3c);
    let worded = || {
        let shard = world.presence.watches.shard(me.key());
        shard.get(&me.key()).unwrap().latest.is_worded()
    };
    assert!(!worded(), "the first answer is its watcher's alone");
    world.comes(&me).await;
    world.tell_all();
    assert_eq!(told(&watcher), ["absent", "online"]);
    assert!(!worded());
}
