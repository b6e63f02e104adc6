//! What the engine tells of itself: generations, chains, and how each hook fares.

use std::collections::BTreeMap;

use conexus_plugin_api::Point;
use serde::Serialize;

use super::{
    breaker::BreakerState, chain::Entry, generation::Generation, instance::SourceFile,
    pool::PoolUsage, stats::HookCounts,
};
use crate::config::{Chain, ChainEntry, FailMode, Mode};

/// What [`Engine::status`](super::Engine::status) tells.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// The generation that judges.
    pub generation: GenerationStatus,
    /// The one that a rollback brings back.
    pub former: Option<GenerationStatus>,
    /// Why the last candidate was refused, unless a later one was accepted.
    pub refusal: Option<Refusal>,
    /// Generations that have calls running or are kept.
    pub alive: usize,
    /// The chains by point, hooks in order, those that are off among them.
    pub chains: BTreeMap<&'static str, Vec<HookStatus>>,
    /// Counters of the hooks' own, by instance and name.
    pub metrics: Vec<crate::state::Counter>,
    /// Threads for calls that may block.
    pub pool: PoolUsage,
    /// Threads for ticks, timers, and the beginnings and ends of instances.
    pub chores: PoolUsage,
    /// Verdicts that plugins have put off.
    pub deferred: usize,
    /// Events that observers were not told, for want of room.
    pub observers_dropped: u64,
    /// Decisions that were not recorded, for want of room.
    pub decisions_dropped: u64,
    /// What the hooks' state takes.
    pub state: crate::state::Usage,
}

/// One generation.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct GenerationStatus {
    /// Its number, from 1.
    pub number: u64,
    /// When it was built, in Unix milliseconds.
    pub since_ms: i64,
    /// The files that it was made from, beside the configuration.
    pub files: Vec<SourceFile>,
}

/// One hook at one point.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct HookStatus {
    /// The instance.
    pub hook: String,
    /// `script:NAME` or `plugin:NAME`.
    pub source: String,
    /// Whether it is obeyed.
    pub mode: Mode,
    /// What the configuration says of that, where it says something else: the mode was changed
    /// since, or the generation is a former one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configured_mode: Option<Mode>,
    /// What a failure means.
    pub on_error: FailMode,
    /// How long a call may take, in milliseconds.
    pub budget_ms: u64,
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// What has been counted in this generation.
    pub counts: HookCounts,
}

pub(super) fn about(generation: &Generation) -> GenerationStatus {
    GenerationStatus {
        number: generation.number,
        since_ms: generation.since_ms,
        files: generation.files(),
    }
}

pub(super) fn chains(
    generation: &Generation,
    configured: &BTreeMap<Chain, Vec<ChainEntry>>,
) -> BTreeMap<&'static str, Vec<HookStatus>> {
    let chain = |point: Point| {
        let configured = configured.get(&Chain(point)).map_or(&[][..], Vec::as_slice);
        let hooks = generation.entries(point).iter().map(|entry| hook_status(entry, configured));
        (point.name(), hooks.collect::<Vec<_>>())
    };
    Point::ALL.iter().copied().map(chain).filter(|(_, hooks)| !hooks.is_empty()).collect()
}

fn hook_status(entry: &Entry, configured: &[ChainEntry]) -> HookStatus {
    let hook = entry.instance.name.to_string();
    let written = configured.iter().find(|written| written.hook == hook);
    HookStatus {
        configured_mode: written.map(|written| written.mode).filter(|mode| *mode != entry.mode),
        hook,
        source: entry.instance.source.clone(),
        mode: entry.mode,
        on_error: entry.on_error,
        budget_ms: u64::try_from(entry.budget.as_millis()).unwrap_or(u64::MAX),
        breaker: match entry.mode {
            // Nobody is kept from it who would ask.
            Mode::Off => BreakerState::Closed,
            Mode::Enforce | Mode::Shadow => entry.breaker(),
        },
        counts: entry.stats.snapshot(),
    }
}

/// Why the last candidate was refused.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Refusal {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// What was wrong, a line each.
    pub reasons: Vec<String>,
}
