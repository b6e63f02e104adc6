//! How two peers are connected: the stack's pair of candidates in use, and its counts.

use std::time::{Duration, Instant};

use ::webrtc::peer_connection::{
    PeerConnection, RTCIceCandidate, RTCIceCandidateType, RTCIceProtocol, RTCStatsReport,
    RTCStatsReportEntry, StatsSelector,
};

use crate::p2p::transport::{CandidateKind, CandidateProtocol, PathStats};

pub(super) async fn of(stack: &dyn PeerConnection) -> Option<PathStats> {
    let ice = stack.sctp().await?.transport().ice_transport();
    let pair = ice.get_selected_candidate_pair().await.ok()??;
    let told = ice.get_remote_candidates().await.ok()?;
    let counts = Counts::read(&stack.get_stats(Instant::now(), StatsSelector::None).await);
    Some(PathStats {
        local: kind(pair.local())?,
        remote: kind(as_told(pair.remote(), &told))?,
        protocol: match pair.local().protocol {
            RTCIceProtocol::Tcp => CandidateProtocol::Tcp,
            _ => CandidateProtocol::Udp,
        },
        round_trip: counts.round_trip,
        bytes_sent: counts.sent,
        bytes_received: counts.received,
    })
}

/// The other side's candidate by the name under which it told it. A check that came before the candidate did makes
/// the stack take it for one that only its checks show.
fn as_told<'a>(used: &'a RTCIceCandidate, told: &'a [RTCIceCandidate]) -> &'a RTCIceCandidate {
    let is_it = |candidate: &&RTCIceCandidate| {
        candidate.typ != RTCIceCandidateType::Prflx
            && candidate.protocol == used.protocol
            && candidate.address == used.address
            && candidate.port == used.port
    };
    told.iter().find(is_it).unwrap_or(used)
}

fn kind(candidate: &RTCIceCandidate) -> Option<CandidateKind> {
    match candidate.typ {
        RTCIceCandidateType::Host => Some(CandidateKind::Host),
        RTCIceCandidateType::Srflx => Some(CandidateKind::ServerReflexive),
        RTCIceCandidateType::Prflx => Some(CandidateKind::PeerReflexive),
        RTCIceCandidateType::Relay => Some(CandidateKind::Relay),
        _ => None,
    }
}

#[derive(Default)]
struct Counts {
    round_trip: Option<Duration>,
    sent: u64,
    received: u64,
}

impl Counts {
    fn read(report: &RTCStatsReport) -> Self {
        let selected = report.iter().find_map(|entry| match entry {
            RTCStatsReportEntry::Transport(transport) => {
                Some(&transport.selected_candidate_pair_id)
            }
            _ => None,
        });
        let mut counts = Self::default();
        for entry in report.iter() {
            match entry {
                RTCStatsReportEntry::IceCandidatePair(pair) if Some(&pair.stats.id) == selected => {
                    let time = Duration::try_from_secs_f64(pair.current_round_trip_time).ok();
                    counts.round_trip = time.filter(|time| !time.is_zero());
                }
                RTCStatsReportEntry::DataChannel(channel) => {
                    counts.sent += channel.bytes_sent;
                    counts.received += channel.bytes_received;
                }
                _ => {}
            }
        }
        counts
    }
}
