//! Metrics of agents: their connections, their messages, what waits for them.

use std::fmt;

use super::{labelled, num};
use crate::{
    core::Core,
    telemetry::{
        exposition::{HistogramRow, Labels, Page},
        histogram::{BOUNDS, Times},
        monitor::Look,
        sessions::State,
    },
};

/// Sockets, sessions, and how they began and ended.
pub(super) fn connections(core: &Core, page: &mut Page<'_>) -> fmt::Result {
    let sessions = &core.router.telemetry.sessions;
    page.gauge(
        "conexus_connections",
        "Open connections of the public listener",
        num(sessions.connections()),
    )?;
    page.gauge(
        "conexus_connections_limit",
        "limits.connections; 0 is none",
        num(core.settings.limits.connections),
    )?;
    page.counter(
        "conexus_connections_accepted",
        "Connections accepted on the public listener",
        sessions.connections_accepted(),
    )?;
    page.counters(
        "conexus_connections_refused",
        "Connections that did not become a WebSocket, by reason",
        labelled("reason", sessions.connections_refused.all()),
    )?;
    let states = State::ALL.into_iter().flat_map(|state| {
        let label = move |(subprotocol, count)| {
            (vec![("state", state.name()), ("subprotocol", subprotocol)], num::<u64>(count))
        };
        sessions.in_state(state).map(label)
    });
    page.gauges(
        "conexus_sessions",
        "Upgraded connections, by state (handshake, active, leaving) and subprotocol",
        states,
    )?;
    page.counters(
        "conexus_registrations",
        "Agents that registered",
        labelled("subprotocol", sessions.registrations()),
    )?;
    page.counters(
        "conexus_registration_renewals",
        "Registrations that were renewed on their session",
        labelled("subprotocol", sessions.renewals()),
    )?;
    page.counters(
        "conexus_registrations_refused",
        "Upgraded connections that did not become a session, by reason",
        labelled("reason", sessions.registrations_refused.all()),
    )?;
    page.counters(
        "conexus_sessions_ended",
        "Sessions that ended, by reason",
        labelled("reason", sessions.ended.all()),
    )?;
    page.gauge("conexus_bans", "Agents that may not register for a while", num(core.bans.count()))?;
    page.counter(
        "conexus_takeovers",
        "Registrations that took their key over from an older session",
        sessions.takeovers(),
    )?;
    page.counter("conexus_leases_lapsed", "Leases that ran out", sessions.lapses())?;
    page.counter(
        "conexus_leases_extended",
        "Lapsed leases that policy extended",
        sessions.leases_extended(),
    )?;
    page.counter(
        "conexus_bad_messages",
        "Malformed messages after REGISTER",
        sessions.bad_messages(),
    )?;
    page.counters(
        "conexus_rate_limited_messages",
        "Messages of any type over their agent's rate, by what it is of (messages, bytes)",
        labelled("limit", sessions.rate_limited.all()),
    )?;
    page.counters(
        "conexus_oversize",
        "Messages over limits.message_bytes, metadata over limits.metadata_bytes",
        labelled("what", sessions.oversize.all()),
    )?;
    page.counter(
        "conexus_accept_failures",
        "Connections that the system did not hand over, as when no file descriptor is left",
        sessions.accept_failures(),
    )?;
    page.gauge(
        "conexus_networks_connected",
        "Addresses (of IPv6: /64) with a connection open; 0 without limits.connections_per_address",
        num(core.limits.networks()),
    )?;
    page.counters(
        "conexus_limits_untracked",
        "What passed a limit uncounted since too many addresses or agents came at once, by limit",
        labelled("limit", core.limits.untracked().into_iter()),
    )
}

/// Handshakes, and the certificate that they are made with.
pub(super) fn tls(core: &Core, page: &mut Page<'_>) -> fmt::Result {
    let handshakes = &core.router.telemetry.sessions.tls;
    page.counters(
        "conexus_tls_handshakes",
        "TLS handshakes of the public listener, by version and kind (full, resumed)",
        handshakes
            .done()
            .map(|(version, kind, count)| (vec![("version", version), ("kind", kind)], count)),
    )?;
    page.counters(
        "conexus_tls_handshake_failures",
        "TLS handshakes of the public listener that failed, by reason",
        labelled("reason", handshakes.failures.all()),
    )?;
    page.gauge(
        "conexus_tls_certificate_not_after_seconds",
        "When the certificate in use expires, since 1970; 0 without TLS",
        core.tls.as_ref().map_or(0.0, |tls| num(tls.facts().not_after)),
    )
}

/// ICE servers that agents were told of, and what came of them.
pub(super) fn ice(core: &Core, page: &mut Page<'_>) -> fmt::Result {
    page.counter(
        "conexus_ice_credentials_minted",
        "TURN credentials made from the secret of a server in ice.servers",
        core.ice.minted(),
    )?;
    page.counters(
        "conexus_ice_requests",
        "Requests for GET /ice, by outcome",
        labelled("outcome", core.ice.answers.all()),
    )?;
    page.counters(
        "conexus_ice_reports",
        "Reports at POST /ice/outcome, by what became of them",
        labelled("outcome", core.ice.reports.all()),
    )?;
    page.counters(
        "conexus_ice_outcomes",
        "How agents say that they connected to each other, by the kinds of the two candidates",
        core.ice.outcomes.all().map(|(words, count)| {
            let [outcome, local, remote, transport] = words;
            let labels = vec![
                ("outcome", outcome),
                ("local", local),
                ("remote", remote),
                ("transport", transport),
            ];
            (labels, count)
        }),
    )?;
    let (sum_seconds, buckets) = core.ice.outcomes.times();
    page.histograms(
        "conexus_ice_connect_seconds",
        "How long agents say that it took to connect to each other",
        [HistogramRow { labels: Labels::new(), sum_seconds, buckets }],
    )
}

/// What became of messages, and how long it took.
pub(super) fn messages(core: &Core, page: &mut Page<'_>) -> fmt::Result {
    let telemetry = &core.router.telemetry;
    // One reading for all, so that they add up.
    let accounts: Vec<_> = telemetry.messages.by_type().collect();
    let of = |name: &'static str| vec![("type", name)];
    page.counters(
        "conexus_messages_received",
        "Messages for an agent that passed the session's checks; at any quiet moment received = delivered + refused + held",
        accounts.iter().map(|account| (of(account.kind.as_str()), account.received)),
    )?;
    page.counters(
        "conexus_messages_delivered",
        "Messages whose last byte the kernel accepted for the target's socket",
        accounts.iter().map(|account| (of(account.kind.as_str()), account.delivered)),
    )?;
    page.counters(
        "conexus_messages_refused",
        "Messages that were refused, by reason",
        accounts.iter().flat_map(|account| {
            let kind = account.kind.as_str();
            let row = move |(reason, count): &(&'static str, u64)| {
                (vec![("type", kind), ("reason", *reason)], *count)
            };
            account.refused.iter().map(row)
        }),
    )?;
    page.gauges(
        "conexus_messages_held",
        "Messages that wait in mailboxes",
        accounts.iter().map(|account| (of(account.kind.as_str()), num(account.held))),
    )?;
    let taps = telemetry.messages.taps();
    page.counters(
        "conexus_message_copies",
        "Copies that policy made beside the delivery, by outcome",
        [
            (vec![("outcome", "delivered")], taps.delivered),
            (vec![("outcome", "dropped")], taps.dropped),
        ],
    )?;
    page.histograms(
        "conexus_message_latency_seconds",
        "From a message's frame received to its frame written, of messages that were not held",
        [latency(&telemetry.latency.snapshot())],
    )?;
    let (received, sent) = telemetry.bytes();
    page.counter("conexus_received_bytes", "Bytes read from registered agents", received)?;
    page.counter("conexus_sent_bytes", "Bytes that the kernel took for registered agents", sent)
}

/// Three bounds a decade of the ten that are counted.
pub(super) fn latency(times: &Times) -> HistogramRow<'static> {
    const EVERY: [u64; 3] = [1, 2, 5];
    let shown = |bound: u64| {
        let decade = 10_u64.pow(bound.ilog10());
        EVERY.iter().any(|step| step * decade == bound)
    };
    let (mut buckets, mut below) = (Vec::new(), 0);
    for (index, count) in times.buckets.iter().enumerate() {
        below += count;
        match BOUNDS.get(index) {
            Some(bound) if !shown(*bound) => {}
            bound => {
                let bound = bound.map_or(f64::INFINITY, |micros| num::<u64>(*micros) / 1e6);
                buckets.push((bound, std::mem::take(&mut below)));
            }
        }
    }
    HistogramRow { labels: Labels::new(), sum_seconds: num::<u64>(times.nanos) / 1e9, buckets }
}

/// What waits, and for whom too much.
pub(super) fn queues(core: &Core, look: &Look, page: &mut Page<'_>) -> fmt::Result {
    let survey = &look.survey;
    page.gauge(
        "conexus_outbox_messages",
        "Messages that wait in all outboxes",
        num(survey.outbox_messages),
    )?;
    page.gauge(
        "conexus_outbox_bytes",
        "Bytes that wait in all outboxes",
        num(survey.outbox_bytes),
    )?;
    page.gauge(
        "conexus_outbox_messages_max",
        "Messages that wait in the fullest outbox",
        num(survey.deepest),
    )?;
    page.gauge(
        "conexus_slow_readers",
        "Agents that do not take what is sent to them",
        num(survey.slow),
    )?;
    page.gauge(
        "conexus_mailbox_agents",
        "Agents that are away and something waits for",
        num(survey.mailboxes),
    )?;
    page.gauge(
        "conexus_mailbox_bytes",
        "Bytes that wait in mailboxes",
        num(core.router.presence.postroom.bytes()),
    )?;
    page.gauge(
        "conexus_mailbox_bytes_limit",
        "mailbox.total_bytes",
        num(core.settings.mailbox.total_bytes),
    )?;
    page.gauge("conexus_mailboxes_full", "Mailboxes that have no room", num(survey.full))
}

/// Who watches whom, and what they were told.
pub(super) fn watches(core: &Core, page: &mut Page<'_>) -> fmt::Result {
    let counts = &core.router.telemetry.watches;
    page.gauge(
        "conexus_watches",
        "Agents that are watched, each as often as somebody does",
        num(counts.count()),
    )?;
    page.gauge(
        "conexus_watched_agents",
        "Agents that anybody watches",
        num(core.router.presence.watches.watched()),
    )?;
    let (waiting, waited) = core.router.presence.watches.backlog();
    page.gauge(
        "conexus_presence_untold_agents",
        "Agents whose watchers are yet to be told of a change",
        num(waiting),
    )?;
    page.gauge(
        "conexus_presence_untold_seconds",
        "How long the watchers who wait longest have been waiting to be told",
        waited.as_secs_f64(),
    )?;
    page.counters(
        "conexus_watches_refused",
        "Agents that somebody may not watch, by reason; for limit, whole lists",
        labelled("reason", counts.refused.all()),
    )?;
    let (told, coalesced) = counts.presences();
    page.counter("conexus_presence_told", "PRESENCEs put into outboxes", told)?;
    page.counter(
        "conexus_presence_coalesced",
        "Changes that a watcher was not told, since a later one took their place",
        coalesced,
    )
}
