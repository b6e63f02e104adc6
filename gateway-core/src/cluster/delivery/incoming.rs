//! What comes in from other nodes.
//!
//! What is taken of it: batches to the member that this node is now, by no older link than was heard of;
//! messages while this node's own lease is certain, for a registration of their target's that is here.
//! What is said of this node's own messages is taken always.

use std::sync::Arc;

use bytes::Bytes;
use conexus_protocol::AgentKey;
use tracing::warn;

use super::{
    Delivery,
    batch::{self, Malformed},
    forwarded::Forwarded,
    peer::Peer,
    questions::Request,
};
use crate::{
    cluster::{
        frame::{Aside, Frame, VERSION},
        ids::{Epoch, MemberId},
    },
    pace::OncePerSecond,
    router::Router,
    session::outbox::{Parcel, Refused, Tap},
};

/// Frames that are seen to before other tasks get their turn.
const A_TURN: usize = 256;

static UNREADABLE: OncePerSecond = OncePerSecond::new();

/// Sees to a batch that came in. One is seen to after the other.
pub(crate) async fn receive(router: &Arc<Router>, batch: Bytes) {
    let Some(delivery) = router.presence.delivery() else { return };
    let tally = &delivery.cluster.tally;
    tally.traffic.received.one();
    tally.traffic.received_bytes.add(batch.len() as u64);
    if batch.first() != Some(&VERSION) {
        tally.stale.version.one();
        return;
    }
    let Some((head, frames)) = batch::open(&batch) else { return unreadable(delivery, None) };
    if !delivery.cluster.joined().is_ok_and(|joined| joined.member == head.to) {
        tally.stale.not_addressed.one();
        return;
    }
    let peer = delivery.peer(head.from);
    if !peer.hears(head.link) {
        tally.stale.old_link.one();
        return;
    }
    for (index, frame) in frames.enumerate() {
        if index % A_TURN == A_TURN - 1 {
            tokio::task::yield_now().await;
        }
        match frame {
            Ok(frame) => take(router, delivery, &peer, head.to, frame).await,
            Err(Malformed) => unreadable(delivery, Some(&peer)),
        }
    }
}

fn unreadable(delivery: &Delivery, from: Option<&Peer>) {
    delivery.cluster.tally.stale.malformed.one();
    if let Some(more) = UNREADABLE.due() {
        let from = from.map(|peer| tracing::field::display(peer.member));
        warn!(from, more, "a batch of another node's cannot be read");
    }
}

async fn take(
    router: &Arc<Router>,
    delivery: &Arc<Delivery>,
    peer: &Arc<Peer>,
    own: MemberId,
    frame: Frame<'_>,
) {
    match frame {
        Frame::Message { number, to, epoch, text } => {
            let forwarded = Forwarded::new(text, peer, number, own);
            let parcel = Parcel::Forwarded(forwarded);
            let to = AgentKey::from_bytes(to);
            // One that is dropped says of itself that its target is not here.
            if let Err(Refused::Full(Parcel::Forwarded(forwarded))) =
                put(router, delivery, to, epoch, parcel)
            {
                forwarded.full();
            }
        }
        Frame::Aside { to, epoch, kind, text } => {
            let parcel = match kind {
                Aside::Tap => Parcel::Tap(Tap::arrived(text, &router.telemetry)),
                Aside::Word => Parcel::Word(text.into()),
            };
            // Nobody waits for it; a tap counts itself.
            let _ = put(router, delivery, AgentKey::from_bytes(to), epoch, parcel);
        }
        Frame::Ends(ends) => router.settle(peer, ends).await,
        Frame::Unsettled { query, numbers } => peer.tell_waiting(query, numbers),
        Frame::Waiting { query, numbers } => {
            let lost = peer.settle_query(query, numbers);
            router.lost(lost).await;
        }
        Frame::Ask { number, question } => {
            delivery.asked(Request { from: Arc::clone(peer), number, question });
        }
        Frame::Answer { number, answer } => peer.answered(number, answer),
    }
}

fn put(
    router: &Router,
    delivery: &Delivery,
    to: AgentKey,
    epoch: Epoch,
    parcel: Parcel,
) -> Result<(), Refused<Parcel>> {
    if !delivery.cluster.is_trusted() {
        delivery.cluster.tally.stale.untrusted.one();
        return Err(Refused::Closed(parcel));
    }
    router.presence.accept(to, epoch, router.clock.now(), parcel)
}
