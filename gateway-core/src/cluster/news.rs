//! What the cluster's service tells the rest of the node: the one place where what comes in by a link
//! is handed to whoever is to see to it.
//!
//! All of it happens within the service's task, in the order in which it came in. Nothing here may
//! wait: while it runs, this node's lease is not renewed.

use bytes::Bytes;

use super::{Cluster, Joined, backplane::Change, delivery, follows};
use crate::core::Core;

/// This node has joined the cluster, or joined it anew: its agents are down in the directory.
pub(super) fn joined(_core: &Core, _cluster: &Cluster, _joined: &Joined) {}

/// This node is apart from the others: no link of an earlier number brings anything any more.
pub(super) fn parted(_core: &Core, cluster: &Cluster) {
    // Nobody tells us from now on who goes where.
    cluster.places.clear();
}

/// Another node speaks.
pub(super) async fn frames(core: &Core, batch: Bytes) {
    delivery::receive(&core.router, batch).await;
}

/// Something changed in a part of the directory that is followed.
pub(super) fn changed(core: &Core, cluster: &Cluster, change: &Change) {
    follows::heard(cluster, &core.router, change);
}
