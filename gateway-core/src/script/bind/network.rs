//! Addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;
use rhai::Array;

use super::{Bindings, Fallible};

/// A network, or an address as a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is no network; write \"10.0.0.0/8\" or an address"))
}

/// Addresses of IPv4 that a socket for both shows as IPv6 are what they are.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Text that is no address (it may come from an agent) is in no network; a wrong network is the
/// script's own fault.
fn cidr(text: &str, net: &str) -> Fallible<bool> {
    let net = network(net)?;
    Ok(address(text).is_some_and(|address| net.contains(&address)))
}

fn cidr_any(text: &str, nets: &Array) -> Fallible<bool> {
    let address = address(text);
    for net in nets {
        let net = net
            .read_lock::<rhai::ImmutableString>()
            .ok_or_else(|| format!("{} in place of a network", net.type_name()))?;
        let net = network(&net)?;
        if address.is_some_and(|address| net.contains(&address)) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn bind(bindings: &mut Bindings) {
    bindings.function("cidr", |ip: &str, net: &str| cidr(ip, net));
    bindings.function("cidr", |ip: &str, nets: Array| cidr_any(ip, &nets));
    bindings.function("is_ip", |text: &str| text.parse::<IpAddr>().is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_networks_of_their_kind() {
        for (text, net, inside) in [
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("::ffff:10.1.2.3", "10.0.0.0/8", true),
            ("fd00::1", "fc00::/7", true),
            ("10.1.2.3", "fc00::/7", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("host.local", "10.0.0.0/8", false),
        ] {
            assert_eq!(cidr(text, net).unwrap(), inside, "{text} {net}");
        }
        assert!(cidr("10.1.2.3", "10.0.0.0/33").is_err());
    }
}
