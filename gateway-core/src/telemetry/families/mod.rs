//! Every metric: its name, what it tells, where its value comes from. `docs/metrics.md` lists them.
//!
//! Labels are bounded: message types, reasons and states are the protocol's and ours; hooks are the
//! operator's own. No label ever has anything in it that an agent chose.

mod agents;
mod cluster;
mod hooks;
mod process;

use std::fmt;

use super::{
    exposition::{Labels, Page},
    monitor::Monitor,
};
use crate::{core::Core, hooks::Status, phase::Phase};

/// Writes all of them.
pub(super) fn write(monitor: &Monitor, page: &mut Page<'_>) -> fmt::Result {
    let (core, look, status) = (&*monitor.core, monitor.latest(), monitor.engine.status());
    about(core, &status, page)?;
    agents::connections(core, page)?;
    agents::tls(core, page)?;
    agents::ice(core, page)?;
    agents::messages(core, page)?;
    agents::queues(core, &look, page)?;
    agents::watches(core, page)?;
    cluster::cluster(core, &look, page)?;
    hooks::hooks(&status, page)?;
    hooks::policy(&status, monitor, page)?;
    hooks::shared(monitor, page)?;
    process::log(monitor, &look, page)?;
    process::process(&look, page)?;
    process::runtime(page)
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
