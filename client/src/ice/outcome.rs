//! Telling the gateway how a connection to another agent came out, for its operators' counts.
//!
//! Nobody tells unless the application wants it to: a gateway learns by it which kinds of addresses an
//! agent's connections take, and how long that took, though not to whom.

use std::time::Duration;

use serde_json::json;

use crate::{Handle, HttpError};

/// Where a candidate is from (RFC 8445, section 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An own interface.
    Host,
    /// What a STUN server sees.
    ServerReflexive,
    /// What the other side sees.
    PeerReflexive,
    /// A TURN server's.
    Relay,
}

impl CandidateKind {
    /// As WebRTC spells it: `host`, `srflx`, `prflx`, `relay`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relay => "relay",
        }
    }
}

/// What a candidate's packets go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateProtocol {
    /// UDP.
    Udp,
    /// TCP (RFC 6544).
    Tcp,
}

impl CandidateProtocol {
    /// `udp` or `tcp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What came of looking for a way to another agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceOutcome {
    /// One was found: the pair of candidates in use.
    Connected {
        /// The kind of the own candidate.
        local: CandidateKind,
        /// The kind of the other side's.
        remote: CandidateKind,
        /// What the own candidate speaks.
        protocol: CandidateProtocol,
        /// From the first step until the connection was open.
        took: Duration,
    },
    /// There was none.
    Failed {
        /// From the first step until it was given up.
        took: Duration,
    },
}

impl IceOutcome {
    fn to_json(self) -> String {
        // No gateway takes longer ones.
        let millis = |took: Duration| took.as_millis().min(600_000) as u64;
        let body = match self {
            Self::Connected { local, remote, protocol, took } => json!({
                "outcome": "connected",
                "local": local.as_str(),
                "remote": remote.as_str(),
                "transport": protocol.as_str(),
                "duration_ms": millis(took),
            }),
            Self::Failed { took } => json!({ "outcome": "failed", "duration_ms": millis(took) }),
        };
        body.to_string()
    }
}

/// Reports.
impl Handle {
    /// Tells the gateway how a connection to another agent came out (`POST /ice/outcome`), which counts it for
    /// its operators' metrics and keeps nothing else. For applications that do WebRTC by themselves; peers
    /// do so where the builder's `report_outcomes` says.
    ///
    /// # Errors
    ///
    /// [`HttpError`]; 404 where the gateway does not collect outcomes (its setting `ice.outcomes`), 401 where
    /// this agent is not registered at the moment, 429 over its rate. Nothing is lost by leaving it at that.
    pub async fn report_ice_outcome(&self, outcome: IceOutcome) -> Result<(), HttpError> {
        let config = &self.shared.config;
        let url = config.dialer.beside("ice/outcome");
        let token = self.agent_token();
        config.dialer.post(&url, &token, outcome.to_json(), config.request_timeout).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_in_webrtcs_words() {
        let connected = IceOutcome::Connected {
            local: CandidateKind::ServerReflexive,
            remote: CandidateKind::PeerReflexive,
            protocol: CandidateProtocol::Tcp,
            took: Duration::from_micros(70_900),
        };
        let told = |outcome: IceOutcome| {
            serde_json::from_str::<serde_json::Value>(&outcome.to_json()).unwrap()
        };
        let words = json!({
            "outcome": "connected", "local": "srflx", "remote": "prflx", "transport": "tcp",
            "duration_ms": 70,
        });
        assert_eq!(told(connected), words);
        let failed = IceOutcome::Failed { took: Duration::from_secs(3600) };
        assert_eq!(told(failed), json!({ "outcome": "failed", "duration_ms": 600_000 }));
    }
}
