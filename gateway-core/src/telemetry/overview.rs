//! The gateway at a glance: what the dashboard shows first, and what is kept of it for charts.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use utoipa::ToSchema;

use super::problems::Problem;
use crate::accounting::Messages;

/// How much is kept for charts: ten minutes, at a look a second.
pub(crate) const KEPT: usize = 600;

/// The gateway at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overview {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// Which gateway.
    pub node: NodeSummary,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// Agents that are present.
    pub agents: usize,
    /// Connections of the public listener.
    pub connections: u64,
    /// Registered sessions, by subprotocol.
    pub sessions: BTreeMap<&'static str, u64>,
    /// What became of all messages so far.
    pub messages: Messages,
    /// What happens, per second, over the last second or so.
    pub rates: Rates,
    /// From frame received to frame written, over the last second or so; null without messages.
    pub latency_us: Option<Quantiles>,
    /// What the process takes.
    pub process: ProcessSummary,
    /// What waits for agents that are away.
    pub mailbox: MailboxSummary,
}

/// One gateway.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeSummary {
    /// How it calls itself (`server.node_id`).
    pub id: String,
    /// Its own DID.
    pub did: String,
    /// The version of the program.
    pub version: &'static str,
    /// When it started, in Unix milliseconds.
    pub started_ms: i64,
    /// `running` or `draining`.
    pub phase: &'static str,
    /// The generation of hooks that judges.
    pub generation: u64,
}

/// Events per second.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Rates {
    /// Messages received.
    pub received: f64,
    /// Messages delivered.
    pub delivered: f64,
    /// Messages refused.
    pub refused: f64,
    /// Agents registered.
    pub registrations: f64,
    /// Bytes read from agents.
    pub bytes_in: f64,
    /// Bytes written to agents.
    pub bytes_out: f64,
}

/// Times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quantiles {
    /// Half of all took no longer.
    pub p50: u64,
    /// Nine of ten took no longer.
    pub p90: u64,
    /// All but one of a hundred took no longer.
    pub p99: u64,
}

/// What the process takes of the machine.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ProcessSummary {
    /// Processors in use, over the last second or so: 0.5 is half of one.
    pub cpu: f64,
    /// Memory that is resident.
    pub rss_bytes: u64,
    /// Files that are open.
    pub open_fds: u64,
    /// Files that may be open; 0 where there is no limit.
    pub max_fds: u64,
}

/// What waits for agents that are away.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct MailboxSummary {
    /// Agents that something waits for.
    pub agents: u64,
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The last minutes for charts, oldest first. All lists are equally long.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Series {
    /// How far apart the points are meant to be, in milliseconds.
    pub step_ms: u64,
    /// When, in Unix milliseconds.
    pub at_ms: Vec<i64>,
    /// Messages received per second.
    pub received: Vec<f64>,
    /// Messages delivered per second.
    pub delivered: Vec<f64>,
    /// Messages refused per second.
    pub refused: Vec<f64>,
    /// The median latency in microseconds; null without messages.
    pub p50_us: Vec<Option<u64>>,
    /// The 99th percentile of the latency in microseconds; null without messages.
    pub p99_us: Vec<Option<u64>>,
    /// Agents present.
    pub agents: Vec<usize>,
    /// Processors in use.
    pub cpu: Vec<f64>,
    /// Memory in use, in bytes.
    pub rss_bytes: Vec<u64>,
}

/// What is kept of a glance.
#[derive(Clone, Copy, Debug)]
struct Point {
    at_ms: i64,
    rates: Rates,
    latency: Option<Quantiles>,
    agents: usize,
    cpu: f64,
    rss_bytes: u64,
}

/// The last [`KEPT`] glances.
#[derive(Debug, Default)]
pub(crate) struct Past(VecDeque<Point>);

impl Past {
    pub(crate) fn keep(&mut self, now: &Overview) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Point {
            at_ms: now.at_ms,
            rates: now.rates,
            latency: now.latency_us,
            agents: now.agents,
            cpu: now.process.cpu,
            rss_bytes: now.process.rss_bytes,
        });
    }

    pub(crate) fn series(&self, step_ms: u64) -> Series {
        let points = &self.0;
        Series {
            step_ms,
            at_ms: points.iter().map(|point| point.at_ms).collect(),
            received: points.iter().map(|point| point.rates.received).collect(),
            delivered: points.iter().map(|point| point.rates.delivered).collect(),
            refused: points.iter().map(|point| point.rates.refused).collect(),
            p50_us: points.iter().map(|point| point.latency.map(|times| times.p50)).collect(),
            p99_us: points.iter().map(|point| point.latency.map(|times| times.p99)).collect(),
            agents: points.iter().map(|point| point.agents).collect(),
            cpu: points.iter().map(|point| point.cpu).collect(),
            rss_bytes: points.iter().map(|point| point.rss_bytes).collect(),
        }
    }
}
