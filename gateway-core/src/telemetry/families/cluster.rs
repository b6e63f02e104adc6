//! Metrics of the cluster. Where the gateway is alone they are named, and have no samples.

use std::{collections::BTreeMap, fmt};

use super::{agents::latency, flag, labelled, num};
use crate::{
    cluster::{Cluster, tally::Count},
    core::Core,
    telemetry::{
        cluster::{ClusterSummary, nodes, summary},
        exposition::{Labels, Page},
        monitor::Look,
    },
};

/// All of them.
pub(super) fn cluster(core: &Core, look: &Look, page: &mut Page<'_>) -> fmt::Result {
    let cluster = core.cluster.as_deref();
    let summary = summary(core);
    station(cluster, look, summary.as_ref(), page)?;
    engine(cluster, summary.as_ref(), page)?;
    registrations(cluster, page)?;
    messages(core, cluster, page)?;
    batches(cluster, page)?;
    questions(cluster, page)
}

/// Whether it is part of the cluster, and who else is.
fn station(
    cluster: Option<&Cluster>,
    look: &Look,
    summary: Option<&ClusterSummary>,
    page: &mut Page<'_>,
) -> fmt::Result {
    let one = |value: Option<f64>| value.map(|value| (Labels::new(), value));
    page.gauges(
        "conexus_cluster_joined",
        "1 while this node is part of its cluster, 0 while it is apart",
        one(summary.map(|summary| flag(summary.joined))),
    )?;
    page.gauges(
        "conexus_cluster_nodes",
        "Nodes that this one can reach, itself included",
        one(summary.map(|summary| num(summary.nodes))),
    )?;
    page.gauges(
        "conexus_cluster_lease_left_seconds",
        "How long this node's lease certainly runs unless it is renewed",
        one(cluster.map(|cluster| cluster.lease_left(tokio::time::Instant::now()).as_secs_f64())),
    )?;
    page.gauges(
        "conexus_cluster_directory_agents",
        "Agents of this node that are down in the cluster's directory",
        one(cluster.map(|_| num(look.survey.put_down))),
    )?;
    page.gauges(
        "conexus_cluster_places",
        "Agents of other nodes whose place is remembered",
        one(cluster.map(|cluster| num(cluster.places.len()))),
    )?;
    counter(
        page,
        "conexus_cluster_nodes_lost",
        "Nodes whose lease ended and that this one saw to",
        cluster.map(|cluster| &cluster.tally.burials.nodes),
    )?;
    counter(
        page,
        "conexus_cluster_agents_lost",
        "Agents of such nodes, told to observers as node_lost",
        cluster.map(|cluster| &cluster.tally.burials.agents),
    )
}

/// The engine, and this node's lease there.
fn engine(
    cluster: Option<&Cluster>,
    summary: Option<&ClusterSummary>,
    page: &mut Page<'_>,
) -> fmt::Result {
    let latency = summary.and_then(|summary| summary.engine_us).into_iter().flat_map(|engine| {
        let row = |of, micros: u64| (vec![("of", of)], num::<u64>(micros) / 1e6);
        [row("median", engine.median), row("slowest", engine.slowest)]
    });
    page.gauges(
        "conexus_cluster_engine_latency_seconds",
        "How long the engine took for the last few operations: half of them, and the slowest",
        latency,
    )?;
    page.counters(
        "conexus_cluster_links",
        "Links to the engine, by what became of them (made, refused, lost)",
        cluster.into_iter().flat_map(|cluster| labelled("outcome", cluster.tally.links.all())),
    )?;
    page.counters(
        "conexus_cluster_leases",
        "Renewals of this node's lease, by outcome; entered: it was not on the roster before",
        cluster.into_iter().flat_map(|cluster| labelled("outcome", cluster.tally.leases.all())),
    )
}

fn registrations(cluster: Option<&Cluster>, page: &mut Page<'_>) -> fmt::Result {
    page.counters(
        "conexus_cluster_claims",
        "Registrations here, by what the directory made of them",
        cluster.into_iter().flat_map(|cluster| labelled("outcome", cluster.tally.claims.all())),
    )?;
    page.counters(
        "conexus_cluster_lookups",
        "Looks for agents of other nodes, by outcome",
        cluster.into_iter().flat_map(|cluster| labelled("outcome", cluster.tally.lookups.all())),
    )
}

/// Messages between nodes, and what is under way.
fn messages(core: &Core, cluster: Option<&Cluster>, page: &mut Page<'_>) -> fmt::Result {
    page.counters(
        "conexus_cluster_forwarded_messages",
        "Messages of this node's agents that went to another node, by outcome",
        cluster.into_iter().flat_map(|cluster| labelled("outcome", cluster.tally.forwarded.all())),
    )?;
    page.counters(
        "conexus_cluster_arrived_messages",
        "Messages of other nodes' agents that came here, by what was answered",
        cluster.into_iter().flat_map(|cluster| labelled("outcome", cluster.tally.arrived.all())),
    )?;
    page.histograms(
        "conexus_cluster_round_trip_seconds",
        "From a message's being sent to another node to the word that it was delivered there",
        cluster.map(|cluster| latency(&cluster.tally.round_trip.snapshot())),
    )?;
    let mut peers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let nodes = if cluster.is_some() { nodes(core) } else { Vec::new() };
    // Two nodes of one name would be two samples of one series.
    for node in nodes.into_iter().filter(|node| !node.this) {
        let (messages, bytes) = peers.entry(node.id).or_default();
        *messages += node.under_way.messages;
        *bytes += node.under_way.bytes;
    }
    page.gauges(
        "conexus_cluster_under_way_messages",
        "Messages under way to a node, their confirmation included",
        peers.iter().map(|(peer, (messages, _))| (vec![("peer", peer.as_str())], num(*messages))),
    )?;
    page.gauges(
        "conexus_cluster_under_way_bytes",
        "The same in bytes",
        peers.iter().map(|(peer, (_, bytes))| (vec![("peer", peer.as_str())], num(*bytes))),
    )?;
    page.gauges(
        "conexus_cluster_under_way_messages_limit",
        "cluster.queue_messages",
        cluster.map(|cluster| (Labels::new(), num(cluster.settings.queue_messages))),
    )
}

fn batches(cluster: Option<&Cluster>, page: &mut Page<'_>) -> fmt::Result {
    let traffic = cluster.map(|cluster| &cluster.tally.traffic);
    let directions = |sent: &Count, received: &Count| {
        let row = |direction, count: &Count| (vec![("direction", direction)], count.get());
        [row("sent", sent), row("received", received)]
    };
    page.counters(
        "conexus_cluster_batches",
        "Batches of frames between nodes, by direction",
        traffic.into_iter().flat_map(|traffic| directions(&traffic.sent, &traffic.received)),
    )?;
    page.counters(
        "conexus_cluster_batch_bytes",
        "Bytes of those batches, by direction",
        traffic
            .into_iter()
            .flat_map(|traffic| directions(&traffic.sent_bytes, &traffic.received_bytes)),
    )?;
    counter(
        page,
        "conexus_cluster_unheard_batches",
        "Batches that were put on the channel of a node that did not listen",
        traffic.map(|traffic| &traffic.unheard),
    )?;
    page.counters(
        "conexus_cluster_stale_batches",
        "Batches of other nodes that were not taken, by reason",
        cluster.into_iter().flat_map(|cluster| labelled("reason", cluster.tally.stale.all())),
    )
}

fn questions(cluster: Option<&Cluster>, page: &mut Page<'_>) -> fmt::Result {
    let questions = cluster.map(|cluster| &cluster.tally.questions);
    page.counters(
        "conexus_cluster_questions",
        "What this node asked other nodes, by whether it was answered in time",
        questions.into_iter().flat_map(|questions| {
            let counts = [("answered", &questions.answered), ("unanswered", &questions.unanswered)];
            counts.map(|(outcome, count)| (vec![("outcome", outcome)], count.get()))
        }),
    )?;
    counter(
        page,
        "conexus_cluster_unsettled_messages",
        "Messages of which this node had to ask what became of them",
        questions.map(|questions| &questions.unsettled),
    )
}

/// A counter, where there is something to count.
fn counter(page: &mut Page<'_>, name: &str, help: &str, count: Option<&Count>) -> fmt::Result {
    page.counters(name, help, count.map(|count| (Labels::new(), count.get())))
}
