//! Every metric: its name, what it tells, where its value comes from. `docs/metrics.md` lists them.
//!
//! Labels are bounded: message types, reasons and states are the protocol's and ours; hooks are the
//! operator's own. No label ever has anything in it that an agent chose.

use std::fmt;

use super::{
    Telemetry,
    exposition::{HistogramRow, Labels, Page},
    histogram::{BOUNDS, Times},
    monitor::{Look, Monitor},
    problems::ProblemKind,
    sessions::State,
};
use crate::{
    core::Core,
    hooks::{BreakerState, HOOK_BUCKETS, HookStatus, Status},
    phase::Phase,
};

/// Writes all of them.
pub(super) fn write(monitor: &Monitor, page: &mut Page<'_>) -> fmt::Result {
    let (core, look, status) = (&*monitor.core, monitor.latest(), monitor.engine.status());
    let telemetry = &*core.router.telemetry;
    about(core, &status, page)?;
    connections(core, telemetry, page)?;
    messages(telemetry, page)?;
    queues(core, &look, page)?;
    hooks(&status, page)?;
    policy(&status, monitor, page)?;
    log(monitor, &look, page)?;
    process(&look, page)?;
    runtime(page)
}

fn about(core: &Core, status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let labels = vec![("version", env!("CARGO_PKG_VERSION")), ("node", core.node_id.as_str())];
    page.gauges("conexus_build_info", "The program; always 1", [(labels, 1.0)])?;
    let draining = core.phase() != Phase::Running;
    page.gauge("conexus_draining", "1 while the gateway is about to stop", flag(draining))?;
    page.gauge(
        "conexus_generation",
        "The generation of hooks that judges",
        num(status.generation.number),
    )?;
    page.gauge("conexus_agents", "Agents that are present", num(core.router.presence.online()))
}

fn connections(core: &Core, telemetry: &Telemetry, page: &mut Page<'_>) -> fmt::Result {
    let sessions = &telemetry.sessions;
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
    page.counter(
        "conexus_rate_limited_messages",
        "Messages of any type over their agent's rate",
        sessions.rate_limited(),
    )
}

fn messages(telemetry: &Telemetry, page: &mut Page<'_>) -> fmt::Result {
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
fn latency(times: &Times) -> HistogramRow<'static> {
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

fn queues(core: &Core, look: &Look, page: &mut Page<'_>) -> fmt::Result {
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

/// The labels by which hooks are told apart.
fn hook<'a>(hook: &'a HookStatus, point: &'a str, generation: &'a str) -> Labels<'a> {
    vec![("hook", &hook.hook), ("point", point), ("generation", generation)]
}

fn hooks(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let generation = status.generation.number.to_string();
    // A chain may name a hook twice; two samples of one name would be an error to a scraper.
    let mut entries: Vec<(&str, &HookStatus)> = Vec::new();
    for (point, hooks) in &status.chains {
        for hook in hooks {
            if !entries.iter().any(|(at, known)| at == point && known.hook == hook.hook) {
                entries.push((point, hook));
            }
        }
    }
    let labels = |(point, of): &(&'_ str, &'_ HookStatus)| -> Vec<(String, String)> {
        hook(of, point, &generation)
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    };
    let labels: Vec<_> = entries.iter().map(labels).collect();
    let with = |index: usize, more: Option<(&'static str, &'static str)>| -> Labels<'_> {
        labels[index].iter().map(|(k, v)| (k.as_str(), v.as_str())).chain(more).collect()
    };
    let each = || entries.iter().enumerate();
    page.histograms(
        "conexus_hook_duration_seconds",
        "How long calls of hooks took",
        each().map(|(index, (_, hook))| HistogramRow {
            labels: with(index, None),
            sum_seconds: num::<u64>(hook.counts.total_us) / 1e6,
            buckets: hook_buckets(&hook.counts.buckets),
        }),
    )?;
    page.counters(
        "conexus_hook_verdicts",
        "Verdicts of hooks",
        each().flat_map(|(index, (_, hook))| {
            hook.counts
                .verdicts
                .iter()
                .map(move |(verdict, count)| (with(index, Some(("verdict", *verdict))), *count))
        }),
    )?;
    page.counters(
        "conexus_hook_faults",
        "Failures of hooks, by kind",
        each().flat_map(|(index, (_, hook))| {
            hook.counts
                .faults
                .iter()
                .map(move |(kind, count)| (with(index, Some(("kind", *kind))), *count))
        }),
    )?;
    page.counters(
        "conexus_hook_overruns",
        "Calls over their budget whose answer counted",
        each().map(|(index, (_, hook))| (with(index, None), hook.counts.overruns)),
    )?;
    page.counters(
        "conexus_hook_slow_calls",
        "Calls over their warning threshold",
        each().map(|(index, (_, hook))| (with(index, None), hook.counts.slow)),
    )?;
    page.gauges(
        "conexus_hook_breaker_open",
        "1 while a hook is quarantined",
        each().map(|(index, (_, hook))| {
            (with(index, None), flag(hook.breaker != BreakerState::Closed))
        }),
    )?;
    page.gauges(
        "conexus_hook_metric",
        "Counters that hooks keep themselves, by instance and name",
        status.metrics.iter().map(|counter| {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            let value = counter.value as f64;
            (vec![("hook", &*counter.instance), ("name", &*counter.name)], value)
        }),
    )
}

fn hook_buckets(counts: &[u64]) -> Vec<(f64, u64)> {
    let bounds = HOOK_BUCKETS.iter().map(|micros| num::<u64>(*micros) / 1e6).chain([f64::INFINITY]);
    bounds.zip(counts.iter().copied()).collect()
}

fn policy(status: &Status, monitor: &Monitor, page: &mut Page<'_>) -> fmt::Result {
    let reloads = monitor.engine.reloads();
    page.counters(
        "conexus_reloads",
        "Reloads and rollbacks, by result",
        [
            (vec![("result", "done")], reloads.done),
            (vec![("result", "refused")], reloads.refused),
            (vec![("result", "rolled_back")], reloads.rolled_back),
        ],
    )?;
    page.gauge(
        "conexus_reload_refused",
        "1 while the last candidate for a generation was refused",
        flag(status.refusal.is_some()),
    )?;
    page.gauge(
        "conexus_generations_alive",
        "Generations that have calls running or are kept",
        num(status.alive),
    )?;
    let pools = [("decisions", &status.pool), ("chores", &status.chores)];
    let of = |pick: fn(&crate::hooks::PoolUsage) -> usize| {
        pools.map(|(pool, usage)| (vec![("pool", pool)], num(pick(usage))))
    };
    page.gauges(
        "conexus_hook_pool_threads",
        "Threads for calls that may block",
        of(|usage| usage.threads),
    )?;
    page.gauges(
        "conexus_hook_pool_waiting",
        "Calls that wait for such a thread",
        of(|usage| usage.waiting),
    )?;
    page.gauges(
        "conexus_hook_pool_lost",
        "Threads whose call was given up and has not come back",
        of(|usage| usage.lost),
    )?;
    page.gauge(
        "conexus_decisions_deferred",
        "Verdicts that plugins have put off",
        num(status.deferred),
    )?;
    page.counter(
        "conexus_observer_events_dropped",
        "Events that observers were not told, for want of room",
        status.observers_dropped,
    )?;
    page.counter(
        "conexus_decisions_dropped",
        "Decisions that were not recorded, for want of room",
        status.decisions_dropped,
    )?;
    page.gauge(
        "conexus_state_entries",
        "Entries of hooks' state, rate limits among them",
        num(status.state.entries),
    )?;
    page.gauge(
        "conexus_state_bytes",
        "Bytes of keys and values of hooks' state",
        num(status.state.bytes),
    )?;
    page.counter(
        "conexus_state_refusals",
        "Operations on hooks' state that were refused as full",
        status.state.refusals,
    )
}

fn log(monitor: &Monitor, look: &Look, page: &mut Page<'_>) -> fmt::Result {
    page.counter(
        "conexus_log_lines_dropped",
        "Lines of the log that nobody took",
        (monitor.lines_dropped)(),
    )?;
    let of = |kind: ProblemKind| {
        let count = look.overview.problems.iter().filter(|problem| problem.kind == kind).count();
        (vec![("kind", kind.name())], num(count))
    };
    page.gauges(
        "conexus_problems",
        "What is wrong right now, by kind; the dashboard names each",
        ProblemKind::ALL.map(of),
    )
}

fn process(look: &Look, page: &mut Page<'_>) -> fmt::Result {
    let usage = &look.process;
    page.seconds("process_cpu_seconds", "Time on a processor", usage.cpu_seconds)?;
    page.gauge("process_resident_memory_bytes", "Resident memory", num(usage.resident_bytes))?;
    page.gauge("process_virtual_memory_bytes", "Virtual memory", num(usage.virtual_bytes))?;
    page.gauge("process_open_fds", "Open files", num(usage.open_fds))?;
    page.gauge(
        "process_max_fds",
        "Files that may be open; 0 where there is no limit",
        num(usage.max_fds),
    )?;
    page.gauge("process_threads", "Threads", num(usage.threads))?;
    page.gauge(
        "process_start_time_seconds",
        "When the process started, since 1970",
        usage.started_at,
    )
}

/// What tokio's runtime tells of itself in its stable interface.
fn runtime(page: &mut Page<'_>) -> fmt::Result {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Ok(()) };
    let metrics = runtime.metrics();
    let workers = metrics.num_workers();
    page.gauge("conexus_runtime_workers", "Threads of the runtime", num(workers))?;
    page.gauge(
        "conexus_runtime_tasks",
        "Tasks of the runtime that are alive",
        num(metrics.num_alive_tasks()),
    )?;
    page.gauge(
        "conexus_runtime_queue_depth",
        "Tasks that wait in the runtime's global queue",
        num(metrics.global_queue_depth()),
    )?;
    #[cfg(target_has_atomic = "64")]
    {
        let busy: f64 = (0..workers)
            .map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64())
            .sum();
        page.seconds(
            "conexus_runtime_busy_seconds",
            "Time that the runtime's threads were at work",
            busy,
        )?;
    }
    Ok(())
}

fn labelled(
    label: &'static str,
    rows: impl Iterator<Item = (&'static str, u64)>,
) -> impl Iterator<Item = (Labels<'static>, u64)> {
    rows.map(move |(value, count)| (vec![(label, value)], count))
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// As all numbers are to Prometheus.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn num<N: TryInto<u64>>(count: N) -> f64 {
    count.try_into().map_or(0.0, |count: u64| count as f64)
}
