//! Metrics of policy: hooks, generations, the state that hooks keep.

use std::{collections::BTreeMap, fmt};

use super::{agents::latency, flag, num};
use crate::{
    config::Mode,
    hooks::{BreakerState, HOOK_BUCKETS, HookCounts, HookStatus, Status},
    telemetry::{
        exposition::{HistogramRow, Labels, Page},
        monitor::Monitor,
    },
};

/// One hook at one point, however often the point's chain names it: two samples of one name would be
/// an error to a scraper.
struct Row<'a> {
    hook: &'a str,
    point: &'a str,
    counts: HookCounts,
    is_open: bool,
}

impl<'a> Row<'a> {
    fn of_all(status: &'a Status) -> Vec<Self> {
        let mut rows: Vec<Self> = Vec::new();
        for (point, hooks) in &status.chains {
            // Nobody asks one that is off.
            for HookStatus { hook, counts, breaker, .. } in
                hooks.iter().filter(|hook| hook.mode != Mode::Off)
            {
                let is_open = *breaker != BreakerState::Closed;
                match rows.iter_mut().find(|row| row.point == *point && row.hook == hook) {
                    Some(row) => {
                        row.counts.add(counts);
                        row.is_open |= is_open;
                    }
                    None => rows.push(Row { hook, point, counts: counts.clone(), is_open }),
                }
            }
        }
        rows
    }

    /// How it is told from others, and one count of it from another one.
    fn labels(&self, generation: &'a str, more: Option<(&'a str, &'a str)>) -> Labels<'a> {
        let own = [("hook", self.hook), ("point", self.point), ("generation", generation)];
        own.into_iter().chain(more).collect()
    }
}

/// Each hook at each of its points.
pub(super) fn hooks(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let generation = &*status.generation.number.to_string();
    let rows = Row::of_all(status);
    page.histograms(
        "conexus_hook_duration_seconds",
        "How long calls of hooks took",
        rows.iter().map(|row| HistogramRow {
            labels: row.labels(generation, None),
            sum_seconds: num::<u64>(row.counts.total_us) / 1e6,
            buckets: hook_buckets(&row.counts.buckets),
        }),
    )?;
    outcomes(&rows, generation, page)?;
    page.gauges(
        "conexus_hook_breaker_open",
        "1 while a hook is quarantined",
        rows.iter().map(|row| (row.labels(generation, None), flag(row.is_open))),
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

/// What calls came to.
fn outcomes(rows: &[Row<'_>], generation: &str, page: &mut Page<'_>) -> fmt::Result {
    let by = |name: &'static str, of: fn(&HookCounts) -> &BTreeMap<&'static str, u64>| {
        rows.iter().flat_map(move |row| {
            let label = move |(kind, count): (&&'static str, &u64)| {
                (row.labels(generation, Some((name, *kind))), *count)
            };
            of(&row.counts).iter().map(label)
        })
    };
    page.counters("conexus_hook_verdicts", "Verdicts of hooks", by("verdict", |of| &of.verdicts))?;
    page.counters(
        "conexus_hook_faults",
        "Failures of hooks, by kind",
        by("kind", |of| &of.faults),
    )?;
    type Count = fn(&HookCounts) -> u64;
    let counts: [(&str, &str, Count); 3] = [
        ("conexus_hook_overruns", "Calls over their budget whose answer counted", |of| of.overruns),
        ("conexus_hook_slow_calls", "Calls over their warning threshold", |of| of.slow),
        (
            "conexus_hook_mismatches",
            "Verdicts in shadow mode that would have led to another ruling",
            |of| of.mismatches,
        ),
    ];
    for (name, help, of) in counts {
        let each = rows.iter().map(|row| (row.labels(generation, None), of(&row.counts)));
        page.counters(name, help, each)?;
    }
    Ok(())
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

/// What hooks of scope "cluster" asked their cluster for.
pub(super) fn shared(monitor: &Monitor, page: &mut Page<'_>) -> fmt::Result {
    let tally = monitor.engine.shared_tally();
    let asked = tally.counts().filter(|(.., count)| *count > 0);
    page.counters(
        "conexus_cluster_state_operations",
        "What hooks asked of the state and the agents of the cluster, by what came of it",
        asked.map(|(operation, outcome, count)| {
            (vec![("operation", operation), ("outcome", outcome)], count)
        }),
    )?;
    page.histograms(
        "conexus_cluster_state_duration_seconds",
        "How long a hook waited for that",
        [latency(&tally.times.snapshot())],
    )
}
