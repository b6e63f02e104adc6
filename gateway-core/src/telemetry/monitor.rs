//! The monitor: looks at the gateway once a second, so that whoever asks gets an answer at once,
//! and a problem is known since when it began, not since when somebody looked.
//!
//! One look serves everybody: the scraper, the API, and all dashboards that are open.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use conexus_protocol::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    cluster,
    events::Topic,
    findings::{Evidence, Findings},
    histogram::Times,
    overview::{
        MailboxSummary, NodeSummary, Overview, Past, ProcessSummary, Quantiles, Rates, Series,
    },
    problems::Now,
    process::ProcessUsage,
    sessions::State,
};
use crate::{
    accounting::Messages,
    core::Core,
    hooks::{Engine, Status},
    phase::Phase,
    presence::survey::Survey,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// A count that is kept elsewhere.
pub(crate) type Count = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A look at everything.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) survey: Survey,
    pub(crate) process: ProcessUsage,
    pub(crate) overview: Overview,
}

/// See the [module](self).
pub(crate) struct Monitor {
    pub(crate) core: Arc<Core>,
    pub(crate) engine: Arc<Engine>,
    /// Lines of the log that were dropped.
    pub(crate) lines_dropped: Count,
    /// Requests of the admin listener without a token that counts.
    pub(crate) denied: Count,
    latest: ArcSwap<Look>,
    past: Mutex<Past>,
}

/// What a look counted, to see what has happened by the next one.
#[derive(Debug, Clone)]
struct Counted {
    at: Instant,
    messages: Messages,
    registrations: u64,
    bytes: (u64, u64),
    latency: Times,
    cpu_seconds: f64,
}

impl Monitor {
    pub(crate) fn new(
        core: Arc<Core>,
        engine: Arc<Engine>,
        lines_dropped: Count,
        denied: Count,
    ) -> Self {
        let process = ProcessUsage::read(&ProcessUsage::default());
        let counted = Counted::now(&core, &process);
        // Nothing has happened yet, and nothing is wrong.
        let overview =
            overview(&core, &engine.status(), &Survey::default(), &process, [&counted; 2]);
        let look = Look { survey: Survey::default(), process, overview };
        let latest = ArcSwap::from_pointee(look);
        Self { core, engine, lines_dropped, denied, latest, past: Mutex::default() }
    }

    /// The last look, a second old at most while it [runs](Self::run).
    pub(crate) fn latest(&self) -> Arc<Look> {
        self.latest.load_full()
    }

    /// The last minutes, for charts.
    pub(crate) fn series(&self) -> Series {
        self.past.lock().series(u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX))
    }

    /// Looks once a second, until dropped.
    pub(crate) async fn run(&self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut findings = Findings::default();
        let mut before = Counted::now(&self.core, &self.latest().process);
        loop {
            ticks.tick().await;
            before = self.look(&before, &mut findings).await;
        }
    }

    async fn look(&self, before: &Counted, findings: &mut Findings) -> Counted {
        let core = &self.core;
        let survey = core.router.presence.survey(core.clock.now()).await;
        let process = ProcessUsage::read(&self.latest().process);
        let status = self.engine.status();
        let counted = Counted::now(core, &process);
        let mut overview = overview(core, &status, &survey, &process, [before, &counted]);
        overview.problems = findings.update(&Evidence {
            core,
            status: &status,
            survey: &survey,
            process: &process,
            lines_dropped: (self.lines_dropped)(),
            now: Now { wall_ms: overview.at_ms, moment: core.clock.now() },
        });
        self.past.lock().keep(&overview);
        core.router.telemetry.hub.publish(Topic::Overview, &[], &overview);
        self.latest.store(Arc::new(Look { survey, process, overview }));
        counted
    }
}

impl Counted {
    fn now(core: &Core, process: &ProcessUsage) -> Self {
        let telemetry = &core.router.telemetry;
        Self {
            at: Instant::now(),
            messages: telemetry.messages.snapshot(),
            registrations: telemetry.sessions.registrations().map(|(_, count)| count).sum(),
            bytes: telemetry.bytes(),
            latency: telemetry.latency.snapshot(),
            cpu_seconds: process.cpu_seconds,
        }
    }
}

fn overview(
    core: &Core,
    status: &Status,
    survey: &Survey,
    process: &ProcessUsage,
    [before, now]: [&Counted; 2],
) -> Overview {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let telemetry = &core.router.telemetry;
    Overview {
        at_ms: Timestamp::now().as_unix_millis(),
        node: NodeSummary {
            id: core.node_id.clone(),
            did: core.router.voice.did().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            started_ms: core.clock.started_at().as_unix_millis(),
            phase: if core.phase() == Phase::Running { "running" } else { "draining" },
            generation: status.generation.number,
        },
        problems: Vec::new(),
        agents: core.router.presence.online(),
        connections: telemetry.sessions.connections(),
        sessions: telemetry.sessions.in_state(State::Active).collect(),
        messages: now.messages,
        rates: rates(before, now, seconds),
        latency_us: quantiles(&now.latency.since(&before.latency)),
        process: ProcessSummary {
            cpu: per_second(now.cpu_seconds - before.cpu_seconds, seconds),
            rss_bytes: process.resident_bytes,
            open_fds: process.open_fds,
            max_fds: process.max_fds,
        },
        mailbox: MailboxSummary {
            agents: survey.mailboxes,
            messages: survey.mail,
            bytes: survey.mail_bytes,
        },
        cluster: cluster::summary(core),
    }
}

fn rates(before: &Counted, now: &Counted, seconds: f64) -> Rates {
    #[expect(clippy::cast_precision_loss, reason = "what can happen within a second or so")]
    let rate = |now: u64, before: u64| per_second(now.saturating_sub(before) as f64, seconds);
    Rates {
        received: rate(now.messages.received, before.messages.received),
        delivered: rate(now.messages.delivered, before.messages.delivered),
        refused: rate(now.messages.refused, before.messages.refused),
        registrations: rate(now.registrations, before.registrations),
        bytes_in: rate(now.bytes.0, before.bytes.0),
        bytes_out: rate(now.bytes.1, before.bytes.1),
    }
}

fn per_second(amount: f64, seconds: f64) -> f64 {
    // A glance is for people: three digits will do, and the JSON stays short.
    if seconds > 0.0 { (amount / seconds * 1000.0).round() / 1000.0 } else { 0.0 }
}

fn quantiles(times: &Times) -> Option<Quantiles> {
    Some(Quantiles {
        p50: times.quantile(0.5)?,
        p90: times.quantile(0.9)?,
        p99: times.quantile(0.99)?,
    })
}
