//! What a run is to do, after the command line was understood.

use std::{sync::Arc, time::Duration};

use conexus_protocol::Subprotocol;
use rustls::ClientConfig;
use serde::{Serialize, Serializer};

use super::message::Signing;

/// What kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Agents that connect and register, over and over: registrations per second
    Register,
    /// Pairs in a closed loop: messages per second that a gateway can route
    Route,
    /// Pairs at a steady rate: latency at that rate, stalls included
    Rate,
    /// Registered agents that say nothing: memory per agent
    Idle,
    /// Many senders to one receiver, in a closed loop
    Fanin,
    /// Agents that come, exchange a message, and leave, over and over
    Churn,
}

impl Mode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Route => "route",
            Self::Rate => "rate",
            Self::Idle => "idle",
            Self::Fanin => "fanin",
            Self::Churn => "churn",
        }
    }

    /// How many agents there are unless the user says.
    const fn default_agents(self) -> usize {
        match self {
            // Enough for no key to come again while its last session is being buried.
            Self::Register => 10_000,
            Self::Idle => 1_000,
            Self::Route | Self::Rate | Self::Fanin => 50,
            Self::Churn => 100,
        }
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) url: String,
    /// Further nodes of its cluster.
    pub(crate) further: Vec<String>,
    pub(crate) audience: Option<String>,
    /// For wss.
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) protocol: Subprotocol,
    pub(crate) pairs: usize,
    pub(crate) window: usize,
    pub(crate) bytes: usize,
    pub(crate) signing: Signing,
    /// Per second, in all.
    pub(crate) rate: Option<f64>,
    pub(crate) agents: Option<usize>,
    pub(crate) concurrency: usize,
    pub(crate) seconds: Duration,
    pub(crate) warmup: Duration,
    pub(crate) settle: Duration,
    pub(crate) idle_message: bool,
    /// Whom idle agents watch.
    pub(crate) watch: Option<String>,
    pub(crate) pids: Vec<u32>,
    pub(crate) sources: Option<u8>,
    pub(crate) threads: usize,
    pub(crate) quiet: bool,
}

impl Plan {
    pub(super) fn agents(&self) -> usize {
        self.agents.unwrap_or(self.mode.default_agents())
    }

    /// How many connections are open at once, at most.
    pub(super) fn connections(&self) -> usize {
        match self.mode {
            Mode::Register => self.concurrency,
            Mode::Route | Mode::Rate => 2 * self.pairs,
            Mode::Idle | Mode::Fanin | Mode::Churn => self.agents() + 1,
        }
    }
}
