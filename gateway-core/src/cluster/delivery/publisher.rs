//! What carries batches to the engine: one task for each peer.
//!
//! What is there when it looks goes at once; while a few batches are on their way the rest gathers, so that
//! a busy peer has few large ones and an idle one waits for nothing.

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

use super::{Delivery, peer::Peer};
use crate::{cluster::backplane::Away, router::Router};

/// Batches for one peer that the engine has not answered yet.
const IN_FLIGHT: usize = 2;

/// Publishes what is to be said to a peer, until that is gone.
pub(super) async fn publish(router: Arc<Router>, delivery: Arc<Delivery>, peer: Arc<Peer>) {
    let mut flying = FuturesUnordered::new();
    while !peer.is_gone() {
        while flying.len() < IN_FLIGHT {
            let Ok(joined) = delivery.cluster.joined() else { break };
            if peer.has_only_ends() {
                // Sessions that were woken together end their messages together.
                tokio::task::yield_now().await;
            }
            let Some((batch, first)) = peer.next(&joined) else { break };
            let to = peer.member;
            flying.push(async move {
                let heard = joined.link.publish(to, batch).await;
                Published { link: joined.number, first, heard }
            });
            // Its place among the others is that of its first poll.
            if let Some(Some(published)) = flying.next().now_or_never() {
                settle(&router, &delivery, &peer, published).await;
            }
        }
        tokio::select! {
            () = peer.more(), if flying.len() < IN_FLIGHT => {}
            Some(published) = flying.next(), if !flying.is_empty() => {
                settle(&router, &delivery, &peer, published).await;
            }
        }
    }
}

/// What came of a batch.
struct Published {
    /// By which it went.
    link: u64,
    /// No message in it, or behind it, has a smaller number.
    first: u64,
    heard: Result<bool, Away>,
}

/// What is under way is lost if nobody listens there, or the link has failed; unless it is another link
/// by now, and what it had was given up already. A member that has left, or is about to, listens no
/// more: what it did not hear never came to anybody, so it may go elsewhere.
async fn settle(
    router: &Arc<Router>,
    delivery: &Arc<Delivery>,
    peer: &Arc<Peer>,
    published: Published,
) {
    let cluster = &delivery.cluster;
    let Published { link, first, heard } = published;
    if matches!(heard, Ok(true)) {
        return;
    }
    if heard.is_ok() {
        cluster.tally.traffic.unheard.one();
    }
    if !cluster.joined().is_ok_and(|joined| joined.number == link) {
        return;
    }
    if heard.is_ok() && delivery.has_left(peer.member) {
        delivery.forget(peer);
        router.lose_but_send_elsewhere(peer, first).await;
    } else {
        router.lose(peer, None).await;
    }
}
