//! Metrics of the process: its log, its problems, what it takes of the machine.

use std::fmt;

use super::num;
use crate::telemetry::{
    exposition::Page,
    monitor::{Look, Monitor},
    problems::ProblemKind,
};

/// The log, and what is wrong.
pub(super) fn log(monitor: &Monitor, look: &Look, page: &mut Page<'_>) -> fmt::Result {
    page.counter(
        "conexus_log_lines_dropped",
        "Lines of the log that nobody took",
        (monitor.lines_dropped)(),
    )?;
    page.counter(
        "conexus_admin_requests_denied",
        "Requests of the admin listener without a token that counts",
        (monitor.denied)(),
    )?;
    page.gauge(
        "conexus_event_listeners",
        "Who listens to events: dashboards, conexus trace",
        num(monitor.core.router.telemetry.hub.listeners()),
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

/// What the process takes of the machine.
pub(super) fn process(look: &Look, page: &mut Page<'_>) -> fmt::Result {
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
pub(super) fn runtime(page: &mut Page<'_>) -> fmt::Result {
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
