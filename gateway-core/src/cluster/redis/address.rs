//! Where a machine of the engine is.

use std::fmt;

use url::Url;

/// What is meant by a URL without a port.
const PORT: u16 = 6379;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// Without the brackets that an address of IPv6 has before a port.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Self { host: host.to_owned(), port }
    }

    pub(super) fn of(url: &Url) -> Option<Self> {
        Some(Self::new(url.host_str()?, url.port().unwrap_or(PORT)))
    }

    /// `HOST:PORT`, as in `cluster.redis.seeds`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::of(&Url::parse(&format!("redis://{text}")).ok()?)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["redis.example:7000", "127.0.0.1:6379", "[::1]:6379"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        let url = Url::parse("rediss://redis.example/3").unwrap();
        assert_eq!(Address::of(&url), Some(Address::new("redis.example", 6379)));
        assert_eq!(Address::of(&Url::parse("redis://[::1]").unwrap()).unwrap().host, "::1");
        assert_eq!(Address::parse(""), None);
    }
}
