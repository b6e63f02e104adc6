//! What becomes of one message, or of a few.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use conexus_protocol::{Identity, MessageType};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, advance};
use tokio_util::task::AbortOnDropHandle;

use super::{
    node::{Node, quiet, settings, takes, takes_some, until},
    pair::Pair,
};
use crate::{
    cluster::{
        backplane::Entry,
        delivery::questions::{Answers, Unanswered},
        frame::{Answer, Question},
        ids::{Epoch, MemberId},
        memory::MemoryEngine,
    },
    hooks::{EmptyChain, Fixed},
    phase::Phase,
    presence::Source,
    session::outbox::{Arrival, Otherwise, Parcel, Routed, Tap},
};

#[tokio::test(start_paused = true)]
async fn a_message_goes_to_another_node_and_counts_on_its_senders() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1", "2"]).await;
    quiet().await;
    assert_eq!(pair.delivered_so_far(), 0, "it is in the other node's outbox");
    assert_eq!(takes(&target), ["1", "2"]);
    quiet().await;
    assert_eq!(pair.delivered_so_far(), 2);
    assert!(pair.a.is_even());
    assert_eq!(pair.b.counts().received, 0);
    assert!(pair.a.delivery.is_settled());
    let tally = &pair.a.cluster.tally;
    assert_eq!((tally.forwarded.delivered.get(), tally.round_trip.snapshot().count()), (2, 2));
    assert_eq!(pair.b.cluster.tally.arrived.delivered.get(), 2);
    assert_eq!(tally.lookups.found.get(), 1, "the second one was behind the first");
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_is_told_to_the_sender() {
    let pair = Pair::new().await;
    let target = pair.b.comes_with_room(&pair.target, 1).await;
    pair.sends(&["1", "2"]).await;
    quiet().await;
    assert_eq!(takes(&target), ["1"]);
    quiet().await;
    pair.assert_refused("queue_full", 1);
    assert_eq!(pair.delivered_so_far(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_bounded() {
    let engine = MemoryEngine::new();
    let mut few = settings();
    few.cluster.queue_messages = 2;
    let a = Node::start_with(&engine, few, Arc::new(Fixed(Arc::new(EmptyChain)))).await;
    let b = Node::start(&engine).await;
    let (sender, me) = (a.comes(&Identity::generate()).await, Identity::generate());
    let target = b.comes(&me).await;
    a.sends(&sender, me.key(), "1").await;
    quiet().await;
    for text in ["2", "3"] {
        a.sends(&sender, me.key(), text).await;
    }
    quiet().await;
    assert_eq!((a.refused("queue_full"), a.delivery.under_way().0), (1, 2));
    assert_eq!(a.cluster.tally.forwarded.overflowed.get(), 1);
    assert_eq!(takes(&target), ["1", "2"]);
    quiet().await;
    a.sends(&sender, me.key(), "4").await;
    quiet().await;
    assert_eq!(takes(&target), ["4"]);
    assert_eq!(a.settings().cluster.queue_messages, 2);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_nowhere_is_absent_and_gets_its_mail_where_it_turns_up() {
    let pair = Pair::new().await;
    pair.sends(&["1", "2"]).await;
    quiet().await;
    assert_eq!(pair.a.counts().held, 2);
    let target = pair.b.comes(&pair.target).await;
    // Ahead of newer ones, which find it at once.
    pair.sends(&["3"]).await;
    quiet().await;
    assert_eq!(takes(&target), ["1", "2", "3"]);
    quiet().await;
    assert!(pair.a.is_even());
    assert_eq!(pair.delivered_so_far(), 3);
}

#[tokio::test(start_paused = true)]
async fn mail_goes_after_its_agent_without_a_newer_message() {
    let pair = Pair::new().await;
    pair.sends(&["1"]).await;
    quiet().await;
    let target = pair.b.comes(&pair.target).await;
    // Nobody tells of the change: a look once a second finds out.
    until(|| !target.outbox.is_empty()).await;
    assert_eq!(takes(&target), ["1"]);
    quiet().await;
    assert_eq!((pair.delivered_so_far(), pair.a.counts().held), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn mail_keeps_its_own_end_however_often_it_is_looked_for() {
    let pair = Pair::new().await;
    pair.sends(&["1"]).await;
    quiet().await;
    // In the directory, but its node knows nothing of it.
    pair.b.claims(&pair.b.session(&pair.target, 8)).await.unwrap();
    let expire = {
        let router = Arc::clone(&pair.a.router);
        tokio::spawn(async move { router.expire_mail().await })
    };
    advance(Duration::from_secs(29)).await;
    quiet().await;
    assert_eq!(pair.a.counts().held, 1);
    until(|| pair.a.counts().held == 0).await;
    pair.assert_refused("expired", 1);
    expire.abort();
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_says_gone_is_absent_while_nobody_knows_of_another_one() {
    let pair = Pair::new().await;
    let session = pair.b.session(&pair.target, 8);
    pair.b.claims(&session).await.unwrap();
    pair.sends(&["1", "2"]).await;
    quiet().await;
    assert_eq!(pair.a.counts().held, 2);
    assert_eq!(pair.a.cluster.tally.forwarded.gone.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_one_remembers_wrongly_costs_a_way_and_no_message() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    let agent = target.facts();
    let wrong = Entry { key: pair.key(), member: pair.b.member(), epoch: Epoch(1), agent };
    pair.a.look(Duration::from_secs(60)).await;
    pair.a.cluster.remember(wrong);
    pair.sends(&["1", "2"]).await;
    quiet().await;
    assert_eq!(takes(&target), ["1", "2"]);
    assert_eq!(pair.a.cluster.tally.forwarded.gone.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_ended_here_hides_no_older_one_that_is_left() {
    let pair = Pair::new().await;
    let older = pair.b.comes(&pair.target).await;
    let newer = pair.a.comes(&pair.target).await;
    pair.a.look(Duration::from_secs(60)).await;
    pair.a.leaves_untold(&newer).await;
    pair.sends(&["1"]).await;
    quiet().await;
    assert_eq!(pair.a.counts().held, 1, "the directory has it here, and it is not");
    pair.a.tells_who_left().await;
    pair.b.rejoin().await;
    // Whoever has mail is looked for once a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    quiet().await;
    assert_eq!(takes(&older), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_while_a_claim_is_being_answered_is_taken() {
    let pair = Pair::new().await;
    let session = pair.b.session(&pair.target, 8);
    pair.b.router.presence.claim(&session).await;
    assert!(pair.b.router.presence.claiming(&session));
    let epoch = pair.b.claims(&session).await.unwrap();
    // The answer has not come yet.
    pair.sends(&["1"]).await;
    quiet().await;
    pair.b.router.presence.set_epoch(pair.key(), session.id, epoch);
    assert_eq!(takes(&session), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn without_the_engine_nobody_elsewhere_is_reached_and_everybody_here_is() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1"]).await;
    quiet().await;
    pair.engine.set_away(true);
    quiet().await;
    pair.assert_refused("node_unreachable", 1);
    assert_eq!(takes(&target), ["1"], "it had arrived, which nobody could tell");
    pair.sends(&["2"]).await;
    assert_eq!(pair.a.refused("node_unreachable"), 2, "at once");
    assert!(pair.a.is_even());
    let near = pair.a.session(&Identity::generate(), 8);
    pair.a.router.presence.claim(&near).await;
    pair.a.sends(&pair.sender, near.agent.key(), "3").await;
    assert_eq!(takes(&near), ["3"]);

    pair.engine.set_away(false);
    pair.a.join().await;
    pair.b.join().await;
    quiet().await;
    pair.sends(&["4"]).await;
    quiet().await;
    assert_eq!(takes(&target), ["4"]);
    quiet().await;
    assert!(pair.a.is_even());
    assert_eq!(pair.a.refused("node_unreachable"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_to_be_held_when_the_engine_went_away_is_refused_for_that() {
    let pair = Pair::new().await;
    pair.engine.set_away(true);
    quiet().await;
    let (sender, kind) = (Arc::clone(&pair.sender), MessageType::Offer);
    let arrival = Arrival { at: Instant::now(), number: sender.count_sent() };
    pair.a.router.telemetry.messages.received(kind);
    let mut routed = Routed::new("1".into(), pair.key(), kind, sender, arrival);
    routed.otherwise = Otherwise::HoldFor(Duration::from_secs(1));
    assert!(pair.a.router.undeliverable(routed, Source::Sender).is_none());
    pair.assert_refused("node_unreachable", 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_hears_of_any_more_is_unreachable() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.a.look(Duration::from_secs(60)).await;
    pair.engine.cut(pair.b.member());
    pair.sends(&["1"]).await;
    quiet().await;
    pair.assert_refused("node_unreachable", 1);
    assert_eq!(pair.a.cluster.tally.traffic.unheard.get(), 1);
    assert!(takes(&target).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_node_that_has_left_did_not_hear_goes_elsewhere() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1"]).await;
    quiet().await;
    assert_eq!(takes(&target), ["1"]);
    quiet().await;
    // It is not on the roster, and its agent is elsewhere.
    let c = Node::start(&pair.engine).await;
    let again = c.comes(&pair.target).await;
    pair.engine.cut(pair.b.member());
    pair.sends(&["2", "3"]).await;
    quiet().await;
    assert_eq!(takes(&again), ["2", "3"]);
    quiet().await;
    assert_eq!((pair.delivered_so_far(), pair.a.counts().refused), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_on_the_way_is_found_and_refused() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1"]).await;
    quiet().await;
    pair.b.deaf.store(true, Relaxed);
    pair.sends(&["2"]).await;
    quiet().await;
    pair.b.deaf.store(false, Relaxed);
    pair.sends(&["3"]).await;
    // Those that wait are not lost, however long.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((pair.a.refused("node_unreachable"), pair.a.delivery.under_way().0), (1, 2));
    assert_eq!(takes(&target), ["1", "3"]);
    quiet().await;
    pair.assert_refused("node_unreachable", 1);
    assert_eq!(pair.delivered_so_far(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_lost_on_the_way_leaves_nothing_behind() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1"]).await;
    quiet().await;
    pair.a.deaf.store(true, Relaxed);
    assert_eq!(takes(&target), ["1"]);
    quiet().await;
    pair.a.deaf.store(false, Relaxed);
    tokio::time::sleep(Duration::from_secs(10)).await;
    pair.assert_refused("node_unreachable", 1);
    assert!(pair.a.delivery.is_settled());
}

#[tokio::test(start_paused = true)]
async fn what_an_older_link_brings_late_is_dropped() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1"]).await;
    quiet().await;
    pair.a.join().await;
    quiet().await;
    pair.assert_refused("node_unreachable", 1);
    pair.sends(&["2"]).await;
    quiet().await;
    // As if the engine had kept it until now.
    let batch = {
        use crate::cluster::frame::{Frame, Head, VERSION};
        let (from, to) = (pair.a.member(), pair.b.member());
        let head = Head { version: VERSION, from, to, link: 1 };
        let epoch = pair.b.router.presence.tenure(pair.key()).unwrap().newest().unwrap();
        let to = *pair.key().as_bytes();
        let frame = Frame::Message { number: 9, to, epoch, text: "late" };
        let mut bytes = postcard::to_allocvec(&head).unwrap();
        bytes.extend(postcard::to_allocvec(&frame).unwrap());
        bytes
    };
    crate::cluster::delivery::receive(&pair.b.router, batch.into()).await;
    assert_eq!(takes(&target), ["1", "2"]);
    assert_eq!(pair.b.cluster.tally.stale.old_link.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_lookup_that_broke_is_looked_up_again() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.engine.break_next_lookup();
    pair.sends(&["1", "2"]).await;
    quiet().await;
    assert!(target.outbox.is_empty());
    until(|| !target.outbox.is_empty()).await;
    assert_eq!(takes(&target), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_breaks_gives_back_what_it_had() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1", "2"]).await;
    quiet().await;
    assert_eq!(takes_some(&target, 1), ["1"]);
    drop(pair.b.router.presence.abandon(&target, "broken"));
    quiet().await;
    assert_eq!((pair.delivered_so_far(), pair.a.counts().held), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn copies_and_words_go_along_and_nobody_waits_for_them() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    let (presence, now) = (&pair.a.router.presence, pair.a.router.clock.now());
    let arrival = Arrival { at: Instant::now(), number: 1 };
    let (kind, sender) = (MessageType::Offer, Arc::clone(&pair.sender));
    let original = Routed::new("tap".into(), sender.agent.key(), kind, sender, arrival);
    for tap in Tap::copies(&original, 2) {
        presence.offer_aside(pair.key(), Parcel::Tap(tap), now).unwrap();
    }
    presence.offer_aside(pair.key(), Parcel::Word("word".into()), now).unwrap();
    original.delivered(Instant::now());
    quiet().await;
    let taps = |node: &Node| {
        let taps = node.router.telemetry.messages.taps();
        (taps.delivered, taps.dropped)
    };
    assert_eq!(taps(&pair.a), (0, 0));
    assert_eq!(takes_some(&target, 1), ["tap"]);
    drop(target.outbox.take());
    assert_eq!(takes(&target), ["word"]);
    assert_eq!(taps(&pair.b), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_under_way_and_refuses_the_rest() {
    let pair = Pair::new().await;
    let target = pair.b.comes(&pair.target).await;
    pair.sends(&["1", "2"]).await;
    quiet().await;
    pair.a.phase.send_replace(Phase::Quiescing);
    let writes = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        takes_some(&target, 1)
    };
    let ((), written) = tokio::join!(pair.a.router.settle_afar(Duration::from_secs(2)), writes);
    assert_eq!((written, pair.delivered_so_far()), (vec!["1".to_owned()], 1));
    pair.assert_refused("node_unreachable", 1);
    assert!(pair.a.delivery.flushed(Duration::from_secs(1)).await);
}

struct Echo;

impl Answers for Echo {
    fn answer(&self, _from: MemberId, question: Question) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            match question {
                Question::Yield { .. } => Answer::Yielded,
                _ => std::future::pending().await,
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_or_given_up_in_time() {
    let pair = Pair::new().await;
    let echo: Arc<dyn Answers> = Arc::new(Echo);
    let (a, b) = (&pair.a.delivery, pair.b.member());
    let key = *pair.key().as_bytes();
    let ask = || Question::Yield { key, epoch: Epoch(1) };
    assert_eq!(a.ask(b, ask()).await.unwrap(), Answer::Nothing, "nobody answers there yet");
    pair.b.delivery.answered_by(Arc::downgrade(&echo));
    assert_eq!(a.ask(b, ask()).await.unwrap(), Answer::Yielded);
    let never = Question::Close { key, close: 4009, reason: String::new() };
    let unanswered = a.ask(b, never.clone()).await.unwrap_err();
    assert!(matches!(unanswered, Unanswered::TimedOut(member, _) if member == b), "{unanswered}");
    let cut = async {
        quiet().await;
        pair.engine.cut(pair.a.member());
    };
    let (unanswered, ()) = tokio::join!(a.ask(b, never), cut);
    assert!(matches!(unanswered, Err(Unanswered::Lost(_))), "{unanswered:?}");
    quiet().await;
    assert!(matches!(a.ask(b, ask()).await, Err(Unanswered::Away(_))));
    let questions = &pair.a.cluster.tally.questions;
    assert_eq!((questions.answered.get(), questions.unanswered.get()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_to_end_while_too_much_is_asked_has_not_ended() {
    let pair = Pair::new().await;
    let c = Node::start(&pair.engine).await;
    let echo: Arc<dyn Answers> = Arc::new(Echo);
    pair.b.delivery.answered_by(Arc::downgrade(&echo));
    let (b, key) = (pair.b.member(), *pair.key().as_bytes());
    let never = Question::Close { key, close: 4009, reason: String::new() };
    // As many as one node answers at once, and as one asks another.
    let asked: Vec<_> = (0..1024)
        .map(|_| {
            let (a, never) = (Arc::clone(&pair.a.delivery), never.clone());
            AbortOnDropHandle::new(tokio::spawn(async move { a.ask(b, never).await.map(drop) }))
        })
        .collect();
    quiet().await;
    assert_eq!(c.delivery.ask(b, never).await.unwrap(), Answer::Nothing);
    let unanswered = c.delivery.ask(b, Question::Yield { key, epoch: Epoch(1) }).await;
    assert!(matches!(unanswered, Err(Unanswered::TimedOut(..))), "{unanswered:?}");
    drop(asked);
}
