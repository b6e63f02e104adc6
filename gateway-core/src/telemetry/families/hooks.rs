//! Metrics of policy: hooks, generations, the state that hooks keep.

use std::fmt;

use super::{flag, num};
use crate::{
    config::Mode,
    hooks::{BreakerState, HOOK_BUCKETS, HookStatus, Status},
    telemetry::{
        exposition::{HistogramRow, Labels, Page},
        monitor::Monitor,
    },
};

/// The labels by which hooks are told apart.
fn hook<'a>(hook: &'a HookStatus, point: &'a str, generation: &'a str) -> Labels<'a> {
    vec![("hook", &hook.hook), ("point", point), ("generation", generation)]
}

/// Each hook at each of its points.
pub(super) fn hooks(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let generation = status.generation.number.to_string();
    // A chain may name a hook twice; two samples of one name would be an error to a scraper.
    let mut entries: Vec<(&str, &HookStatus)> = Vec::new();
    for (point, hooks) in &status.chains {
        for hook in hooks.iter().filter(|hook| hook.mode != Mode::Off) {
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
    page.counters(
        "conexus_hook_mismatches",
        "Verdicts in shadow mode that would have led to another ruling",
        each().map(|(index, (_, hook))| (with(index, None), hook.counts.mismatches)),
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

/// Generations, pools, and what hooks keep.
pub(super) fn policy(status: &Status, monitor: &Monitor, page: &mut Page<'_>) -> fmt::Result {
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
    page.counter(
        "conexus_decisions_skipped",
        "Decisions worth seeing that were too many within a second to be kept",
        monitor.engine.decisions_skipped(),
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
