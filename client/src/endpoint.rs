//! The gateway's URL: what is dialed, and what REGISTER names as its audience.
//!
//! The audience is the user's text to the letter, only without user info and fragment,
//! which a gateway refuses there.

#[cfg(feature = "find")]
use rustls::pki_types::ServerName;
use url::{Host, Url};

/// Why a text is no gateway URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Not a URL at all.
    #[error("not a url")]
    Syntax(#[from] url::ParseError),
    /// Neither `ws` nor `wss`.
    #[error("the scheme is {0:?}, not ws or wss")]
    Scheme(String),
    /// No host to dial.
    #[error("the url names no host")]
    NoHost,
}

/// A gateway's URL that can be dialed.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    audience: String,
    target: Url,
    host: Host<String>,
    port: u16,
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let audience = without_user_info(text.split('#').next().unwrap_or(text));
        let target = Url::parse(&audience)?;
        let default_port = match target.scheme() {
            "ws" => 80,
            "wss" => 443,
            other => return Err(UrlError::Scheme(other.to_owned())),
        };
        let host = target.host().ok_or(UrlError::NoHost)?.to_owned();
        let port = target.port().unwrap_or(default_port);
        Ok(Self { audience, target, host, port })
    }

    /// The URL as its user wrote it.
    pub(crate) fn audience(&self) -> &str {
        &self.audience
    }

    /// The URL in the form that an HTTP request takes.
    pub(crate) fn target(&self) -> &str {
        self.target.as_str()
    }

    #[cfg(feature = "find")]
    pub(crate) fn target_url(&self) -> &Url {
        &self.target
    }

    /// Whose certificate the gateway has to have.
    #[cfg(feature = "find")]
    pub(crate) fn server_name(
        &self,
    ) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
        match &self.host {
            Host::Domain(name) => ServerName::try_from(name.clone()),
            Host::Ipv4(address) => Ok(ServerName::IpAddress((*address).into())),
            Host::Ipv6(address) => Ok(ServerName::IpAddress((*address).into())),
        }
    }

    pub(crate) fn host(&self) -> &Host<String> {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.target.scheme() == "wss"
    }

    /// Whether what is sent there stays on this machine or is encrypted on its way.
    pub(crate) fn is_private(&self) -> bool {
        self.is_tls()
            || match &self.host {
                // RFC 6761, 6.3: the name is the loopback interface, always.
                Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
                Host::Ipv4(address) => address.is_loopback(),
                Host::Ipv6(address) => address.is_loopback(),
            }
    }
}

/// `scheme://user:password@host/path` becomes `scheme://host/path`; the rest stays as it is.
fn without_user_info(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audience_is_the_users_text_without_user_info_and_fragment() {
        for (url, audience) in [
            ("ws://127.0.0.1:8000/ws", "ws://127.0.0.1:8000/ws"),
            ("WSS://Gateway.Example:443/ws", "WSS://Gateway.Example:443/ws"),
            ("wss://gw.example", "wss://gw.example"),
            ("wss://me:se@cret@gw.example/ws?a=@b#top", "wss://gw.example/ws?a=@b"),
            ("ws://[::1]:9/ws#", "ws://[::1]:9/ws"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().audience(), audience, "{url}");
        }
    }

    #[test]
    fn default_ports_follow_the_scheme() {
        assert_eq!(Endpoint::parse("ws://a/ws").unwrap().port(), 80);
        assert_eq!(Endpoint::parse("wss://a/ws").unwrap().port(), 443);
        assert_eq!(Endpoint::parse("ws://a:8765/ws").unwrap().port(), 8765);
    }

    #[test]
    fn what_cannot_be_dialed_is_refused() {
        assert!(matches!(Endpoint::parse("gateway"), Err(UrlError::Syntax(_))));
        assert!(matches!(Endpoint::parse(""), Err(UrlError::Syntax(_))));
        assert!(matches!(Endpoint::parse("ws://"), Err(UrlError::Syntax(_))));
        assert_eq!(
            Endpoint::parse("https://gw.example").unwrap_err(),
            UrlError::Scheme("https".into())
        );
    }

    #[test]
    fn only_tls_and_loopback_are_private() {
        for (url, private) in [
            ("wss://gw.example/ws", true),
            ("ws://localhost:1/ws", true),
            ("ws://LOCALHOST/ws", true),
            ("ws://127.8.9.1/ws", true),
            ("ws://[::1]/ws", true),
            ("ws://gw.example/ws", false),
            ("ws://localhost.gw.example/ws", false),
            ("ws://localhost@gw.example/ws", false),
            ("ws://10.0.0.1/ws", false),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().is_private(), private, "{url}");
        }
    }
}
