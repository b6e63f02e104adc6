//! The gateway at a glance: what the dashboard shows first, and what is kept of it for charts.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use utoipa::ToSchema;

use super::{cluster::ClusterSummary, problems::Problem};
use crate::accounting::Messages;

/// How much is kept for charts: ten minutes, at a look a second.
pub(crate) const KEPT: usize = 600;

/// The gateway at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// When, in Unix milliseconds.
    pub(crate) at_ms: i64,
    /// Which gateway.
    pub(crate) node: NodeSummary,
    /// What is wrong, the worst first.
    pub(crate) problems: Vec<Problem>,
    /// Agents that are present.
    pub(crate) agents: usize,
    /// Connections of the public listener.
    pub(crate) connections: u64,
    /// Registered sessions, by subprotocol.
    pub(crate) sessions: BTreeMap<&'static str, u64>,
    /// What became of all messages so far.
    pub(crate) messages: Messages,
    /// What happens, per second, over the last second or so.
    pub(crate) rates: Rates,
    /// From frame received to frame written, over the last second or so; null without messages.
    pub(crate) latency_us: Option<Quantiles>,
    /// What the process takes.
    pub(crate) process: ProcessSummary,
    /// What waits for agents that are away.
    pub(crate) mailbox: MailboxSummary,
    /// This node's place in its cluster; null where it is alone.
    pub(crate) cluster: Option<ClusterSummary>,
}

/// One gateway.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NodeSummary {
    /// How it calls itself (`server.node_id`).
    pub(crate) id: String,
    /// Its own DID.
    pub(crate) did: String,
    /// The version of the program.
    pub(crate) version: &'static str,
    /// When it started, in Unix milliseconds.
    pub(crate) started_ms: i64,
    /// `running` or `draining`.
    pub(crate) phase: &'static str,
    /// The generation of hooks that judges.
    pub(crate) generation: u64,
}

/// Events per second.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Rates {
    /// Messages received.
    pub(crate) received: f64,
    /// Messages delivered.
    pub(crate) delivered: f64,
    /// Messages refused.
    pub(crate) refused: f64,
    /// Agents registered.
    pub(crate) registrations: f64,
    /// Bytes read from agents.
    pub(crate) bytes_in: f64,
    /// Bytes written to agents.
    pub(crate) bytes_out: f64,
}

/// Times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Quantiles {
    /// Half of all took no longer.
    pub(crate) p50: u64,
    /// Nine of ten took no longer.
    pub(crate) p90: u64,
    /// All but one of a hundred took no longer.
    pub(crate) p99: u64,
}

/// What the process takes of the machine.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ProcessSummary {
    /// Processors in use, over the last second or so: 0.5 is half of one.
    pub(crate) cpu: f64,
    /// Memory that is resident.
    pub(crate) rss_bytes: u64,
    /// Files that are open.
    pub(crate) open_fds: u64,
    /// Files that may be open; 0 where there is no limit.
    pub(crate) max_fds: u64,
}

/// What waits for agents that are away.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct MailboxSummary {
    /// Agents that something waits for.
    pub(crate) agents: u64,
    /// Messages.
    pub(crate) messages: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// The last minutes for charts, oldest first. All lists are equally long.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Series {
    /// How far apart the points are meant to be, in milliseconds.
    pub(crate) step_ms: u64,
    /// When, in Unix milliseconds.
    pub(crate) at_ms: Vec<i64>,
    /// Messages received per second.
    pub(crate) received: Vec<f64>,
    /// Messages delivered per second.
    pub(crate) delivered: Vec<f64>,
    /// Messages refused per second.
    pub(crate) refused: Vec<f64>,
    /// The median latency in microseconds; null without messages.
    pub(crate) p50_us: Vec<Option<u64>>,
    /// The 99th percentile of the latency in microseconds; null without messages.
    pub(crate) p99_us: Vec<Option<u64>>,
    /// Agents present.
    pub(crate) agents: Vec<usize>,
    /// Processors in use.
    pub(crate) cpu: Vec<f64>,
    /// Memory in use, in bytes.
    pub(crate) rss_bytes: Vec<u64>,
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
