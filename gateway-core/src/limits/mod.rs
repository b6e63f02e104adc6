//! Limits that are kept by who somebody is: an address, or an agent's key.
//!
//! An address counts by its [`network`]. [`places`] are connections that are open, [`rates`] is how
//! often something may be tried; both know only who is there or was there a moment ago, so that
//! their memory is bounded. `http` asks about connections, `session` about registrations.

mod network;
mod places;
mod rates;

use std::{net::IpAddr, sync::Arc, time::Duration};

use conexus_protocol::AgentKey;

pub(crate) use self::places::AddressPlace;
use self::{network::Network, places::Places, rates::Rates};
use crate::config::LimitSettings;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The limits of one gateway; each is absent where there is none.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    places: Option<Arc<Places>>,
    connects: Option<Rates<Network>>,
    registrations_of_address: Option<Rates<Network>>,
    registrations_of_agent: Option<Rates<AgentKey>>,
}

/// What an address has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Open connections.
    Connections,
    /// Attempts to connect.
    Connects,
}

impl Excess {
    /// How it is counted.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Connections => "address_full",
            Self::Connects => "address_rate",
        }
    }

    /// The key that says how much is too much.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections_per_address",
            Self::Connects => "limits.connects_per_second_per_address",
        }
    }
}

impl Limits {
    pub(crate) fn new(settings: &LimitSettings) -> Self {
        let per_second = |count, burst| Rates::new(count, SECOND, burst);
        Self {
            places: (settings.connections_per_address > 0)
                .then(|| Arc::new(Places::new(settings.connections_per_address))),
            connects: per_second(
                settings.connects_per_second_per_address,
                settings.connect_burst_per_address,
            ),
            registrations_of_address: per_second(
                settings.registrations_per_second_per_address,
                settings.registration_burst_per_address,
            ),
            registrations_of_agent: Rates::new(
                settings.registrations_per_minute_per_did,
                MINUTE,
                0,
            ),
        }
    }

    /// One more connection from an address; what is returned is to be kept as long as that is open.
    pub(crate) fn connect(&self, address: IpAddr) -> Result<Option<AddressPlace>, Excess> {
        let network = Network::of(address);
        if self.connects.as_ref().is_some_and(|rates| !rates.admit(network)) {
            return Err(Excess::Connects);
        }
        match &self.places {
            None => Ok(None),
            Some(places) => places.take(network).map(Some).ok_or(Excess::Connections),
        }
    }

    /// Whether one more REGISTER from an address is looked at.
    pub(crate) fn may_register_from(&self, address: IpAddr) -> bool {
        let rates = self.registrations_of_address.as_ref();
        rates.is_none_or(|rates| rates.admit(Network::of(address)))
    }

    /// Whether an agent that has proved who it is may register once more.
    pub(crate) fn may_register(&self, agent: AgentKey) -> bool {
        self.registrations_of_agent.as_ref().is_none_or(|rates| rates.admit(agent))
    }

    /// How many networks have a connection open; nothing where nobody counts.
    pub(crate) fn networks(&self) -> usize {
        self.places.as_ref().map_or(0, |places| places.networks())
    }

    /// What passed uncounted, by limit, since a table had no room for one more.
    pub(crate) fn untracked(&self) -> [(&'static str, u64); 3] {
        let of = |rates: Option<u64>| rates.unwrap_or_default();
        [
            ("connects_per_address", of(self.connects.as_ref().map(Rates::untracked))),
            (
                "registrations_per_address",
                of(self.registrations_of_address.as_ref().map(Rates::untracked)),
            ),
            (
                "registrations_per_did",
                of(self.registrations_of_agent.as_ref().map(Rates::untracked)),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_limits_everything_passes_and_nothing_is_kept() {
        let limits = Limits::new(&LimitSettings::default());
        for _ in 0..1000 {
            assert!(limits.connect(ip("192.0.2.1")).unwrap().is_none());
            assert!(limits.may_register_from(ip("192.0.2.1")));
        }
        assert_eq!(limits.networks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_attempt_takes_no_place_and_a_full_address_uses_up_its_attempts() {
        let limits = Limits::new(&LimitSettings {
            connections_per_address: 2,
            connects_per_second_per_address: 1,
            connect_burst_per_address: 4,
            ..LimitSettings::default()
        });
        let first = limits.connect(ip("192.0.2.1")).unwrap();
        let second = limits.connect(ip("192.0.2.1")).unwrap();
        assert_eq!(limits.connect(ip("192.0.2.1")).unwrap_err(), Excess::Connections);
        drop(first);
        let third = limits.connect(ip("192.0.2.1")).unwrap();
        assert_eq!(limits.connect(ip("192.0.2.1")).unwrap_err(), Excess::Connects);
        assert!(limits.connect(ip("192.0.2.2")).is_ok());
        drop((second, third));
        assert_eq!(limits.networks(), 0);
    }
}
