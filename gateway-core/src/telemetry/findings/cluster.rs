//! What is wrong with the cluster, as this node sees it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Evidence, kib, nearly};
use crate::{
    cluster::{Cluster, backplane::NodeInfo, frame},
    telemetry::{
        cluster::{NodeReport, foreign_frames, nodes, peers, summary},
        problems::{Finding, ProblemKind},
    },
};

/// All of it.
pub(super) fn look(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let Some(cluster) = &evidence.core.cluster else { return };
    apart(evidence, found);
    // Those whose lease is over are gone, and will be told of by that.
    let now = Instant::now();
    let there = peers(evidence.core).into_iter().filter(|(_, member)| now < member.until);
    let there: Vec<_> = there.map(|(_, member)| member.info).collect();
    same_name(&evidence.core.node_id, &there, found);
    versions(&there, found);
    queues(cluster, &nodes(evidence.core), found);
}

fn apart(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let Some(summary) = summary(evidence.core) else { return };
    if let Some(why) = summary.why {
        let text = format!(
            "is apart from the cluster: its agents reach each other, and messages for all others are \
             refused as node_unreachable; {why}"
        );
        let finding = Finding::new(ProblemKind::ClusterApart, &*evidence.core.node_id, text);
        found.push(finding.since(summary.since_ms));
    }
}

/// Nobody can tell them apart: not in the log, in metrics, or in what agents are told.
fn same_name(own: &str, there: &[NodeInfo], found: &mut Vec<Finding>) {
    let mut counts = BTreeMap::from([(own, 1)]);
    for info in there {
        *counts.entry(info.node_id.as_str()).or_default() += 1;
    }
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 1) {
        let text =
            format!("{count} nodes call themselves so: give each a server.node_id of its own");
        found.push(Finding::new(ProblemKind::NodeIdTwice, name, text));
    }
}

fn versions(there: &[NodeInfo], found: &mut Vec<Finding>) {
    for info in there.iter().filter(|info| info.frames != frame::VERSION) {
        let text =
            format!("its agents cannot be reached from here: {}", foreign_frames(info.frames));
        found.push(Finding::new(ProblemKind::NodeVersion, &*info.node_id, text));
    }
    let own = env!("CARGO_PKG_VERSION");
    let others: BTreeSet<_> = there.iter().map(|info| info.version.as_str()).collect();
    if others.iter().any(|version| *version != own) {
        let all: BTreeSet<_> = others.into_iter().chain([own]).collect();
        let all: Vec<_> = all.into_iter().collect();
        let text =
            format!("nodes run {}: an upgrade is under way, or was left half done", all.join(", "));
        found.push(Finding::new(ProblemKind::NodeVersion, "versions", text).mild());
    }
}

fn queues(cluster: &Cluster, nodes: &[NodeReport], found: &mut Vec<Finding>) {
    let most = (cluster.settings.queue_messages as u64, cluster.settings.queue_bytes as u64);
    for NodeReport { id, under_way, .. } in nodes {
        if nearly(under_way.messages, most.0) || nearly(under_way.bytes, most.1) {
            let text = format!(
                "{} messages ({}) are under way to it, of {} ({}): it or the engine does not keep up",
                under_way.messages,
                kib(usize::try_from(under_way.bytes).unwrap_or(usize::MAX)),
                most.0,
                kib(cluster.settings.queue_bytes),
            );
            found.push(Finding::new(ProblemKind::NodeQueueFull, &**id, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: &str, version: &str, frames: u8) -> NodeInfo {
        NodeInfo {
            node_id: node_id.into(),
            did: String::new(),
            version: version.into(),
            frames,
            started_ms: 0,
            agents: 0,
            draining: false,
            lease_ms: 0,
        }
    }

    #[test]
    fn a_name_that_two_nodes_have_is_told_once() {
        let own = env!("CARGO_PKG_VERSION");
        let mut found = Vec::new();
        same_name("a", &[node("b", own, 1), node("c", own, 1)], &mut found);
        assert_eq!(found, []);
        same_name("a", &[node("b", own, 1), node("a", own, 1), node("a", own, 1)], &mut found);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.kind, finding.subject.as_str()), (ProblemKind::NodeIdTwice, "a"));
        assert!(finding.text.starts_with("3 nodes"), "{}", finding.text);
    }

    #[test]
    fn another_version_is_mild_and_one_that_does_not_talk_is_not() {
        let own = env!("CARGO_PKG_VERSION");
        let mut found = Vec::new();
        versions(&[node("b", own, frame::VERSION)], &mut found);
        assert_eq!(found, []);
        versions(&[node("b", "9.0.0", frame::VERSION)], &mut found);
        assert!(found[0].text.contains(&format!("{own}, 9.0.0")), "{}", found[0].text);
        assert_eq!(found[0].subject, "versions");
        found.clear();
        versions(&[node("b", own, frame::VERSION + 1)], &mut found);
        assert_eq!((found.len(), found[0].subject.as_str()), (1, "b"));
    }
}
