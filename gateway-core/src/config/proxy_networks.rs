//! Networks of proxies whose word about their clients counts: elements of `http.trusted_proxies`.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// What an element may look like, for error texts.
pub(super) const NETWORK_FORM: &str =
    r#"an IP address or a network such as "10.0.0.1", "10.0.0.0/8" or "2001:db8::/32""#;

/// The networks of IPv4 written as IPv6 are within these bits: `::ffff:0:0/96`.
const MAPPED: u8 = 96;

/// An address or a network. What of IPv4 is written as IPv6 counts as IPv4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyNetwork(IpNet);

impl ProxyNetwork {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl TryFrom<String> for ProxyNetwork {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let one = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        match one.or_else(|_| text.parse::<IpNet>()) {
            Ok(IpNet::V6(network)) => canonical(network).map(Self).ok_or_else(|| {
                format!(
                    "{text:?} holds all IPv4 addresses and others; write 0.0.0.0/0 for the former"
                )
            }),
            Ok(network) => Ok(Self(network)),
            Err(_) => Err(format!("{text:?} is no network; expected {NETWORK_FORM}")),
        }
    }
}

/// The same as IPv4 where that is what it is of. None where it is of both: addresses are looked at as
/// what they are, so that those of IPv4 would not be found in it.
fn canonical(network: Ipv6Net) -> Option<IpNet> {
    let Some(v4) = network.network().to_ipv4_mapped() else {
        let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
        // All of IPv6 is a sensible thing to write.
        let is_of_both = network.prefix_len() > 0 && network.contains(&mapped);
        return (!is_of_both).then_some(network.into());
    };
    let length = network.prefix_len().checked_sub(MAPPED)?;
    Some(Ipv4Net::new(v4, length).ok()?.into())
}

impl From<ProxyNetwork> for String {
    fn from(ProxyNetwork(network): ProxyNetwork) -> Self {
        if network.prefix_len() == network.max_prefix_len() {
            network.addr().to_string()
        } else {
            network.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Result<ProxyNetwork, String> {
        ProxyNetwork::try_from(text.to_owned())
    }

    #[test]
    fn addresses_and_networks_are_read_and_written() {
        for (text, within, beyond) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
            ("::ffff:10.1.2.3/104", "::ffff:10.255.0.1", "11.0.0.1"),
            ("::ffff:0:0/96", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("192.0.2.0/24", "::ffff:192.0.2.9", "::ffff:192.0.3.9"),
        ] {
            let network = network(text).unwrap();
            assert!(network.contains(within.parse().unwrap()), "{text} {within}");
            assert!(!network.contains(beyond.parse().unwrap()), "{text} {beyond}");
            let again = ProxyNetwork::try_from(String::from(network.clone())).unwrap();
            assert_eq!(again, network, "{text}");
        }
        for text in
            ["", "10.0.0", "10.0.0.0/33", "localhost", "10.0.0.1:80", "*", "::ffff:0:0/95", "::/8"]
        {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
