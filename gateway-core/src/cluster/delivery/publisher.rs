//! What carries batches to the engine: one task for each peer.
//!
//! What is there when it looks goes at once; while a few batches are on their way the rest gathers, so that
//! a busy peer has few large ones and an idle one waits for nothing.

use std::{ops::Range, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{Delivery, peer::Peer, wait_for};
use crate::{cluster::backplane::Away, router::Router};

/// Batches for one peer that the engine has not answered yet.
const IN_FLIGHT: usize = 2;

/// How long a member that has left may take to answer what it heard before.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Publishes what is to be said to a peer, until that is gone.
pub(super) async fn publish(router: Arc<Router>, delivery: Arc<Delivery>, peer: Arc<Peer>) {
    let mut flying = FuturesUnordered::new();
    let mut heard = 0;
    while !peer.is_gone() {
        while flying.len() < IN_FLIGHT {
            let Ok(joined) = delivery.cluster.joined() else { break };
            if peer.has_only_ends() {
                // Sessions that were woken together end their messages together.
                tokio::task::yield_now().await;
            }
            let Some((batch, numbers)) = peer.next(&joined) else { break };
            let to = peer.member;
            flying.push(async move {
                let heard = joined.link.publish(to, batch).await;
                Published { link: joined.number, numbers, heard }
            });
            // Its place among the others is that of its first poll.
            if let Some(Some(published)) = flying.next().now_or_never() {
                settle(&router, &delivery, &peer, published, &mut flying, &mut heard).await;
            }
        }
        tokio::select! {
            () = peer.more(), if flying.len() < IN_FLIGHT => {}
            Some(published) = flying.next(), if !flying.is_empty() => {
                settle(&router, &delivery, &peer, published, &mut flying, &mut heard).await;
            }
        }
    }
}

/// What came of a batch.
struct Published {
    /// By which it went.
    link: u64,
    /// Those of its messages are among them, and of no other's.
    numbers: Range<u64>,
    heard: Result<bool, Away>,
}

/// What is under way is lost if nobody listens there, or the link has failed; unless it is another link
/// by now, and what it had was given up already. A member that has left, or is about to, listens no
/// more: what it did not hear never came to anybody, so it may go elsewhere; but not what was sent before
/// something that it did hear, which that would overtake. `heard` is up to where it did.
async fn settle<F: Future<Output = Published>>(
    router: &Arc<Router>,
    delivery: &Arc<Delivery>,
    peer: &Arc<Peer>,
    published: Published,
    flying: &mut FuturesUnordered<F>,
    heard: &mut u64,
) {
    let cluster = &delivery.cluster;
    let Published { link, numbers, heard: answer } = published;
    if matches!(answer, Ok(true)) {
        *heard = numbers.end.max(*heard);
        return;
    }
    if answer.is_ok() {
        cluster.tally.traffic.unheard.one();
    }
    if !cluster.joined().is_ok_and(|joined| joined.number == link) {
        return;
    }
    if answer.is_ok() && delivery.has_left(peer.member) {
        let mut first = numbers.start;
        while let Some(Published { numbers, heard: answer, .. }) = flying.next().await {
            // What nobody answered may have been heard.
            match answer {
                Ok(false) => first = numbers.start.min(first),
                _ => *heard = numbers.end.max(*heard),
            }
        }
        let first = first.max(*heard);
        // A member that leaves in order answers what it heard.
        wait_for(Instant::now() + LAST_ANSWERS, || !peer.owes_before(first)).await;
        delivery.forget(peer);
        router.lose_but_send_elsewhere(peer, first).await;
    } else {
        router.lose(peer, None).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use conexus_protocol::{Identity, MessageType};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        cluster::{
            frame::Aside,
            ids::{Epoch, MemberId},
            memory::MemoryEngine,
            tests::node::Node,
        },
        session::outbox::{Arrival, Routed},
    };

    struct World {
        node: Node,
        /// Nobody publishes what it has but the test.
        peer: Arc<Peer>,
    }

    impl World {
        async fn new() -> Self {
            let node = Node::start(&MemoryEngine::new()).await;
            let cluster = Arc::clone(&node.cluster);
            let peer = Arc::new(Peer::new(cluster, MemberId(7), Arc::default()));
            Self { node, peer }
        }

        async fn forwards(&self) -> u64 {
            let kind = MessageType::Offer;
            let sender = self.node.comes(&Identity::generate()).await;
            self.node.router.telemetry.messages.received(kind);
            let arrival = Arrival { at: Instant::now(), number: sender.count_sent() };
            let routed = Routed::new("1".into(), Identity::generate().key(), kind, sender, arrival);
            self.peer.forward(routed, Epoch(1)).unwrap()
        }

        fn published(&self, heard: bool) -> Published {
            let joined = self.node.cluster.joined().unwrap();
            let (_, numbers) = self.peer.next(&joined).unwrap();
            Published { link: joined.number, numbers, heard: Ok(heard) }
        }

        /// How many were lost, and how many went elsewhere; their agents are nowhere.
        async fn settled(&self, first: Published, flying: Vec<Published>) -> (u64, u64) {
            let mut flying: FuturesUnordered<Ready<_>> = flying.into_iter().map(ready).collect();
            let (router, delivery) = (&self.node.router, &self.node.delivery);
            settle(router, delivery, &self.peer, first, &mut flying, &mut 0).await;
            assert_eq!(self.peer.load().0, 0);
            (self.node.refused("node_unreachable"), self.node.refused("unknown_agent"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_something_that_was_heard_goes_nowhere_else() {
        let world = World::new().await;
        world.forwards().await;
        let first = world.published(false);
        world.forwards().await;
        let second = world.published(true);
        world.forwards().await;
        assert_eq!(world.settled(first, vec![second]).await, (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_heard_goes_elsewhere_in_whatever_order_that_turns_out() {
        let world = World::new().await;
        world.forwards().await;
        let first = world.published(false);
        world.forwards().await;
        let second = world.published(false);
        assert_eq!(world.settled(second, vec![first]).await, (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_without_messages_ends_where_the_next_one_begins() {
        let world = World::new().await;
        let text = "x".repeat(100_000);
        assert!(world.peer.aside(Aside::Word, Identity::generate().key(), Epoch(1), &text));
        let number = world.forwards().await;
        assert_eq!(world.published(false).numbers, number..number);
        assert_eq!(world.published(false).numbers, number..number + 1);
    }
}
