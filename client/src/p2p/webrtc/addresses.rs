//! The addresses that sockets are bound to: looked up whenever the stack binds, so that an ICE restart follows
//! the machine to another network.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    vec,
};

use rtc::shared::ifaces::ifaces;

/// Each costs a socket, and a check with each of the other side's.
const MAX_ADDRESSES: usize = 16;

/// Those of the machine, or those that an application chose.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses(Option<Arc<[IpAddr]>>);

impl Addresses {
    pub(super) fn these(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(Some(addresses.into_iter().collect()))
    }
}

impl ToSocketAddrs for Addresses {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let addresses = match &self.0 {
            Some(chosen) => chosen.to_vec(),
            None => {
                let all = ifaces()?.into_iter().filter_map(|interface| interface.addr);
                usable(all.map(|address| address.ip()))
            }
        };
        let sockets: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
        Ok(sockets.into_iter())
    }
}

/// Without those that nobody else can use, unless there are no others.
fn usable(all: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut usable: Vec<IpAddr> = Vec::new();
    for ip in all {
        if !ip.is_loopback() && !ip.is_unspecified() && !is_of_one_link(ip) && !usable.contains(&ip)
        {
            usable.push(ip);
        }
    }
    if usable.len() > MAX_ADDRESSES {
        tracing::debug!(
            addresses = usable.len(),
            used = MAX_ADDRESSES,
            "not all addresses are offered to a peer"
        );
        usable.truncate(MAX_ADDRESSES);
    }
    if usable.is_empty() {
        usable = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    usable
}

fn is_of_one_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(addresses: &[&str]) -> Vec<String> {
        usable(addresses.iter().map(|ip| ip.parse().unwrap()))
            .iter()
            .map(IpAddr::to_string)
            .collect()
    }

    #[test]
    fn the_machines_own_and_single_links_addresses_are_left_out() {
        let all =
            ["127.0.0.1", "::1", "192.0.2.2", "192.0.2.2", "169.254.3.4", "fe80::1", "2001:db8::1"];
        assert_eq!(of(&all), ["192.0.2.2", "2001:db8::1"]);
    }

    #[test]
    fn a_machine_with_nothing_else_uses_loopback() {
        assert_eq!(of(&["127.0.0.1", "::1", "fe80::1"]), ["127.0.0.1", "::1"]);
        assert_eq!(of(&[]), ["127.0.0.1", "::1"]);
    }

    #[test]
    fn their_number_is_bounded() {
        let many = (1..=40).map(|last| IpAddr::from([10, 0, 0, last]));
        assert_eq!(usable(many).len(), MAX_ADDRESSES);
    }
}
