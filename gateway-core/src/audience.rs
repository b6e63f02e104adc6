//! Which URLs are this gateway's own: what keeps another gateway from passing our nonce on.
//!
//! A registration names the URL that the agent dialed, under its signature. It must be one of
//! `server.public_urls`; while there are none, a loopback URL with the listener's port and the scheme
//! that it speaks. Asked by the handshake.

use std::net::SocketAddr;

use url::{Host, Url};

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Audiences {
    Named(Vec<Url>),
    /// Any loopback URL with this port. A gateway that is `exposed` beyond loopback has other
    /// names as well, which nobody told it.
    Loopback {
        port: u16,
        scheme: &'static str,
        exposed: bool,
    },
}

impl Audiences {
    pub(crate) fn new(public_urls: &[Url], listening: SocketAddr, tls: bool) -> Self {
        if !public_urls.is_empty() {
            Self::Named(public_urls.to_vec())
        } else {
            let scheme = if tls { "wss" } else { "ws" };
            let (port, exposed) = (listening.port(), !listening.ip().is_loopback());
            Self::Loopback { port, scheme, exposed }
        }
    }

    /// Whether whoever reaches the gateway can name it: else `ioap.v1.1` is not offered.
    pub(crate) const fn known(&self) -> bool {
        !matches!(self, Self::Loopback { exposed: true, .. })
    }

    /// Whether `audience` names this gateway.
    pub(crate) fn accept(&self, audience: &str) -> bool {
        let Ok(url) = Url::parse(audience) else { return false };
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return false;
        }
        match self {
            Self::Named(ours) => ours.iter().any(|own| same(own, &url)),
            Self::Loopback { port, scheme, .. } => {
                url.scheme() == *scheme
                    && url.port_or_known_default() == Some(*port)
                    && url.path() == crate::http::WS_PATH
                    && url.host().is_some_and(is_loopback)
            }
        }
    }
}

/// Scheme, host, port with its default filled in, and path.
fn same(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host() == b.host()
        && a.port_or_known_default() == b.port_or_known_default()
        && a.path() == b.path()
}

fn is_loopback(host: Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn without_public_urls_only_loopback_with_the_listeners_port_counts() {
        let ours = Audiences::new(&[], listening("127.0.0.1:8000"), false);
        for (audience, accepted) in [
            ("ws://127.0.0.1:8000/ws", true),
            ("ws://127.9.9.9:8000/ws", true),
            ("ws://localhost:8000/ws", true),
            ("WS://LOCALHOST:8000/ws", true),
            ("ws://[::1]:8000/ws", true),
            ("ws://127.0.0.1:8001/ws", false),
            ("ws://127.0.0.1/ws", false),
            ("ws://127.0.0.1:8000/other", false),
            ("wss://127.0.0.1:8000/ws", false),
            ("http://127.0.0.1:8000/ws", false),
            ("ws://gateway.example:8000/ws", false),
            ("ws://localhost.example:8000/ws", false),
            ("ws://user@127.0.0.1:8000/ws", false),
            ("ws://127.0.0.1:8000/ws#x", false),
            ("not a url", false),
            ("", false),
        ] {
            assert_eq!(ours.accept(audience), accepted, "{audience}");
        }
    }

    #[test]
    fn with_tls_the_scheme_is_another_one() {
        let ours = Audiences::new(&[], listening("127.0.0.1:443"), true);
        for (audience, accepted) in [
            ("wss://127.0.0.1:443/ws", true),
            ("wss://localhost/ws", true),
            ("ws://127.0.0.1:443/ws", false),
        ] {
            assert_eq!(ours.accept(audience), accepted, "{audience}");
        }
    }

    #[test]
    fn public_urls_compare_as_parsed_urls_and_replace_loopback() {
        let public = [Url::parse("wss://Gateway.example/ws").unwrap()];
        let ours = Audiences::new(&public, listening("0.0.0.0:8000"), false);
        for (audience, accepted) in [
            ("wss://gateway.example/ws", true),
            ("wss://GATEWAY.EXAMPLE:443/ws", true),
            ("wss://gateway.example:8443/ws", false),
            ("ws://gateway.example/ws", false),
            ("wss://gateway.example/", false),
            ("wss://gateway.example/ws?x=1#y", false),
            ("ws://127.0.0.1:8000/ws", false),
        ] {
            assert_eq!(ours.accept(audience), accepted, "{audience}");
        }
    }

    #[test]
    fn beyond_loopback_and_without_a_name_only_loopback_knows_us() {
        let ours = Audiences::new(&[], listening("0.0.0.0:8000"), false);
        assert!(!ours.known());
        assert!(ours.accept("ws://127.0.0.1:8000/ws"));
        assert!(!ours.accept("ws://gateway.example:8000/ws"));
    }
}
