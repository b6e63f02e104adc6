//! STUN and TURN servers, as the stack can use them.
//!
//! It looks names up while it drives the connection, which stands still meanwhile, so they are looked up before.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ::webrtc::peer_connection::RTCIceServer;
use conexus_protocol::IceServer;
use futures_util::future::join_all;

/// URLs that count; each costs a packet from each address.
const MAX_URLS: usize = 16;
/// How long the look-up of names may hold up a connection.
const LOOK_UP_TIME: Duration = Duration::from_secs(2);

/// Those that the stack can use, by their addresses.
pub(super) async fn usable(servers: &[IceServer]) -> Vec<RTCIceServer> {
    let urls = servers.iter().flat_map(|server| server.urls.iter().map(move |url| (server, url)));
    let usable = urls.take(MAX_URLS).filter_map(|(server, url)| match Url::parse(url, server) {
        Ok(url) => Some((server, url)),
        Err(why) => {
            tracing::debug!(%url, why, "a server is not used for peers");
            None
        }
    });
    let found =
        join_all(usable.map(|(server, url)| async move { (server, url.find().await) })).await;
    let wants_turn = has_turn(servers.iter().flat_map(|server| &server.urls));
    if wants_turn && !has_turn(found.iter().flat_map(|(_, urls)| urls)) {
        tracing::warn!("no TURN server can be used: the stack needs one over UDP, by IPv4");
    }
    let servers = found.into_iter().filter(|(_, urls)| !urls.is_empty());
    let servers = servers.map(|(server, urls)| RTCIceServer {
        urls,
        username: server.username.clone().unwrap_or_default(),
        credential: server.credential.clone().unwrap_or_default(),
    });
    servers.collect()
}

fn has_turn<'a>(mut urls: impl Iterator<Item = &'a String>) -> bool {
    urls.any(|url| url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("turn")))
}

/// A server's URL (RFC 7064, RFC 7065) that the stack speaks to.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    is_turn: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str, server: &IceServer) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once(':').ok_or("it is no URL")?;
        let is_turn = match scheme.to_ascii_lowercase().as_str() {
            "stun" => false,
            "turn" => true,
            "stuns" | "turns" => return Err("the stack has no TLS to servers"),
            _ => return Err("it is neither STUN nor TURN"),
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        if is_turn && !matches!(query.to_ascii_lowercase().as_str(), "" | "transport=udp") {
            return Err("the stack speaks to TURN servers over UDP alone");
        }
        if is_turn && (server.username.is_none() || server.credential.is_none()) {
            return Err("TURN takes a username and a credential");
        }
        let (host, port) = match authority.rsplit_once(':') {
            // The colon of an address without a port is within its brackets.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| "its port is no number")?)
            }
            _ => (authority, 3478),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match host.is_empty() {
            true => Err("it names no host"),
            false => Ok(Self { is_turn, host, port }),
        }
    }

    /// The same with an address of each family instead of the name.
    async fn find(&self) -> Vec<String> {
        let found: Vec<IpAddr> = match self.host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => {
                let looking = tokio::net::lookup_host((self.host, self.port));
                match tokio::time::timeout(LOOK_UP_TIME, looking).await {
                    Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
                    Ok(Err(error)) => {
                        tracing::warn!(host = self.host, %error, "a STUN or TURN server was not found");
                        return Vec::new();
                    }
                    Err(_) => {
                        tracing::warn!(
                            host = self.host,
                            "a STUN or TURN server was not found in time"
                        );
                        return Vec::new();
                    }
                }
            }
        };
        let v4 = found.iter().find(|ip| ip.is_ipv4());
        // The stack's TURN cannot be told such an address.
        let v6 = found.iter().find(|ip| ip.is_ipv6() && !self.is_turn);
        let scheme = if self.is_turn { "turn" } else { "stun" };
        let with_ip = |ip: &IpAddr| format!("{scheme}:{}", SocketAddr::new(*ip, self.port));
        v4.into_iter().chain(v6).map(with_ip).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(urls: &[&str]) -> IceServer {
        IceServer {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            username: Some("someone".to_owned()),
            credential: Some("sesame".to_owned()),
        }
    }

    async fn used(urls: &[&str]) -> Vec<String> {
        usable(&[server(urls)]).await.into_iter().flat_map(|server| server.urls).collect()
    }

    #[tokio::test]
    async fn servers_are_told_by_their_addresses() {
        for (url, told) in [
            ("stun:192.0.2.1", "stun:192.0.2.1:3478"),
            ("STUN:192.0.2.1:99", "stun:192.0.2.1:99"),
            ("stun:192.0.2.1?transport=udp", "stun:192.0.2.1:3478"),
            ("stun:[2001:db8::1]", "stun:[2001:db8::1]:3478"),
            ("turn:192.0.2.1:99?transport=udp", "turn:192.0.2.1:99"),
            ("turn:192.0.2.1", "turn:192.0.2.1:3478"),
        ] {
            assert_eq!(used(&[url]).await, [told], "{url}");
        }
        let named = used(&["turn:localhost:99"]).await;
        assert_eq!(named, ["turn:127.0.0.1:99"]);
    }

    #[tokio::test]
    async fn what_the_stack_cannot_use_is_left_out() {
        for url in [
            "turns:192.0.2.1",
            "stuns:192.0.2.1",
            "turn:192.0.2.1?transport=tcp",
            "turn:[2001:db8::1]",
            "turn:192.0.2.1:many",
            "turn:192.0.2.1:65536",
            "stun:",
            "stun:[]",
            "https://192.0.2.1",
            "",
            "stun:name.invalid",
        ] {
            assert!(used(&[url]).await.is_empty(), "{url}");
        }
        let without =
            IceServer { credential: None, ..server(&["turn:192.0.2.1", "stun:192.0.2.1"]) };
        let told: Vec<_> = usable(&[without]).await.into_iter().flat_map(|s| s.urls).collect();
        assert_eq!(told, ["stun:192.0.2.1:3478"]);
    }

    #[tokio::test]
    async fn their_number_is_bounded() {
        let many: Vec<_> = (1..=40).map(|last| format!("stun:192.0.2.{last}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(used(&many).await.len(), MAX_URLS);
    }

    #[test]
    fn no_credential_is_written_down() {
        let config = crate::p2p::transport::ConnectionConfig {
            ice_servers: vec![server(&["turn:192.0.2.1"])],
            ..Default::default()
        };
        assert!(!format!("{config:?}").contains("sesame"));
    }
}
