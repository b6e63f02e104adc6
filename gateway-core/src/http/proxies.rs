//! Whose word about an address counts: proxies that the operator trusts, and the headers that they
//! tell their clients' addresses by.
//!
//! Such a header grows to the right, each proxy adding whom it was asked by. So it is read from the
//! right, through the addresses that are trusted, and what comes next is the client; what stands
//! further left is the client's own invention. A header that cannot be read there is refused, since
//! everybody behind that proxy would pass for the proxy.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::config::{ForwardedHeader, HttpSettings, ProxyNetwork};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    trusted: Vec<ProxyNetwork>,
    header: Option<ForwardedHeader>,
    speaks_first: bool,
}

/// A trusted proxy's header does not say whom it speaks for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{header} has no address where its client's should be")]
pub(crate) struct Unreadable {
    header: &'static str,
}

impl Proxies {
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        Self {
            trusted: settings.trusted_proxies.clone(),
            header: Some(settings.forwarded).filter(|header| *header != ForwardedHeader::Off),
            speaks_first: settings.proxy_protocol,
        }
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from a trusted proxy begins with a PROXY header.
    pub(crate) const fn speak_first(&self) -> bool {
        self.speaks_first
    }

    /// The client that a peer speaks for by a request's headers; none where it speaks for itself.
    /// One that was told without a port has port 0.
    pub(crate) fn client(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Option<SocketAddr>, Unreadable> {
        let Some(header) = self.header.filter(|_| self.trusts(peer.ip())) else { return Ok(None) };
        let is_standard = header == ForwardedHeader::Forwarded;
        let name = if is_standard { header::FORWARDED } else { X_FORWARDED_FOR };
        let unreadable =
            || Unreadable { header: if is_standard { "Forwarded" } else { "X-Forwarded-For" } };
        let mut furthest = None;
        for value in headers.get_all(name).iter().rev() {
            let value = value.to_str().map_err(|_| unreadable())?;
            let elements = match is_standard {
                true => split_outside_quotes(value, ',').ok_or_else(unreadable)?,
                false => value.split(',').collect(),
            };
            for element in elements.into_iter().rev().map(str::trim) {
                let client = if is_standard { forwarded_for(element) } else { address(element) };
                let client = client.ok_or_else(unreadable)?;
                if !self.trusts(client.ip()) {
                    return Ok(Some(client));
                }
                furthest = Some(client);
            }
        }
        // Proxies alone: the one furthest away asks for itself.
        Ok(furthest)
    }
}

/// `for=` of an element of `Forwarded` (RFC 7239, 4). A name that hides an address is none.
fn forwarded_for(element: &str) -> Option<SocketAddr> {
    let mut found = split_outside_quotes(element, ';')?.into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    });
    let value = found.next().filter(|_| found.next().is_none())?;
    let unquoted = match value.strip_prefix('"') {
        // An address has no character that would have to be escaped.
        Some(quoted) => quoted.strip_suffix('"')?,
        None => value,
    };
    address(unquoted)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<SocketAddr> {
    let alone = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0));
    let in_brackets = || {
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        alone(inside).filter(SocketAddr::is_ipv6)
    };
    let read = alone(text).or_else(|| text.parse().ok()).or_else(in_brackets);
    read.map(super::canonical)
}

/// Parts of a text between separators that are in no quoted string. None where a quote is left open:
/// a client could take what a proxy added after it into a string of its own.
fn split_outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped, mut from) = (false, false, 0);
    let mut parts = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            other if other == separator && !quoted => {
                parts.push(&text[from..at]);
                from = at + other.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        let network = |text: &str| ProxyNetwork::try_from(text.to_owned()).unwrap();
        Proxies::new(&HttpSettings {
            trusted_proxies: trusted.map(network).to_vec(),
            forwarded: header,
            ..HttpSettings::default()
        })
    }

    fn client(
        header: ForwardedHeader,
        peer: &str,
        lines: &[(&'static str, &str)],
    ) -> Result<Option<String>, Unreadable> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let client = proxies(header).client(format!("{peer}:9").parse().unwrap(), &headers);
        Ok(client?.map(|client| client.to_string()))
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_is_the_client() {
        for (lines, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9:0"),
            (&["203.0.113.9:4711"], "203.0.113.9:4711"),
            (&["1.2.3.4, 203.0.113.9"], "203.0.113.9:0"),
            (&["1.2.3.4, 203.0.113.9, 10.1.1.1,10.2.2.2"], "203.0.113.9:0"),
            (&["nonsense, 203.0.113.9"], "203.0.113.9:0"),
            (&["1.2.3.4", "203.0.113.9, 10.1.1.1"], "203.0.113.9:0"),
            (&["203.0.113.9", "10.1.1.1", "10.2.2.2"], "203.0.113.9:0"),
            (&["2001:db8::7"], "[2001:db8::7]:0"),
            (&["[2001:db8::7]"], "[2001:db8::7]:0"),
            (&["[2001:db8::7]:80"], "[2001:db8::7]:80"),
            (&["::ffff:203.0.113.9"], "203.0.113.9:0"),
            (&["1.2.3.4, ::ffff:10.0.0.3"], "1.2.3.4:0"),
            (&["10.7.7.7, 10.1.1.1"], "10.7.7.7:0"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let told = client(ForwardedHeader::XForwardedFor, "10.0.0.1", &lines);
            assert_eq!(told, Ok(Some(expected.to_owned())), "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_where_the_client_should_be_is_refused() {
        for line in [
            "",
            "unknown",
            "203.0.113.9,",
            "203.0.113",
            "203.0.113.9:port",
            "[203.0.113.9]",
            "_hidden",
            "203.0.113.9 10.0.0.1",
            "999.1.1.1",
            "evil, 10.0.0.1",
            "[2001:db8::7",
        ] {
            let told =
                client(ForwardedHeader::XForwardedFor, "10.0.0.1", &[("x-forwarded-for", line)]);
            assert_eq!(told, Err(Unreadable { header: "X-Forwarded-For" }), "{line:?}");
        }
    }

    #[test]
    fn who_is_not_trusted_or_tells_nothing_speaks_for_itself() {
        let line = ("x-forwarded-for", "203.0.113.9");
        assert_eq!(client(ForwardedHeader::XForwardedFor, "192.0.2.1", &[line]), Ok(None));
        assert_eq!(client(ForwardedHeader::XForwardedFor, "10.0.0.1", &[]), Ok(None));
        assert_eq!(client(ForwardedHeader::Forwarded, "10.0.0.1", &[line]), Ok(None));
        assert_eq!(client(ForwardedHeader::Off, "10.0.0.1", &[line]), Ok(None));
    }

    #[test]
    fn the_standard_header_is_read_with_its_quotes() {
        for (line, expected) in [
            ("for=203.0.113.9", Ok("203.0.113.9:0")),
            ("For=\"203.0.113.9:47\";proto=https;by=10.0.0.1", Ok("203.0.113.9:47")),
            ("proto=http; for=\"[2001:db8:cafe::17]:4711\"", Ok("[2001:db8:cafe::17]:4711")),
            (
                "for=1.1.1.1, for=203.0.113.9;by=\"a,b;for=2.2.2.2\", for=10.0.0.2",
                Ok("203.0.113.9:0"),
            ),
            ("for=unknown", Err(())),
            ("for=_hidden", Err(())),
            ("proto=http", Err(())),
            ("for=1.1.1.1;for=2.2.2.2", Err(())),
            ("for=\"1.1.1.1", Err(())),
            ("for=1.1.1.1;x=\", for=203.0.113.9", Err(())),
            ("for=1.1.1.1;x=\"\\\"\\, for=\"[2001:db8::7]\", for=\"[fd00::1]\"", Err(())),
        ] {
            let told = client(ForwardedHeader::Forwarded, "10.0.0.1", &[("forwarded", line)]);
            assert_eq!(told.map_err(drop), expected.map(|text| Some(text.to_owned())), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_adds_on_the_left_changes_nothing(lie in "[ -~]{0,60}") {
            let line = format!("{lie}, 203.0.113.9, 10.0.0.2");
            let told = client(
                ForwardedHeader::XForwardedFor, "10.0.0.1", &[("x-forwarded-for", &line)],
            );
            prop_assert_eq!(told, Ok(Some("203.0.113.9:0".to_owned())));
        }

        #[test]
        fn in_the_standard_header_a_lie_is_of_no_use_either(lie in r#"([ -~]|for=1\.1\.1\.1|;|"){0,12}"#) {
            let line = format!("{lie}, for=\"[2001:db8::7]\", for=10.0.0.2");
            let told = client(ForwardedHeader::Forwarded, "10.0.0.1", &[("forwarded", &line)]);
            let unreadable = Err(Unreadable { header: "Forwarded" });
            prop_assert!(told == unreadable || told == Ok(Some("[2001:db8::7]:0".to_owned())), "{told:?}");
        }

        #[test]
        fn no_header_is_too_strange_to_be_judged(value in "[ -~\t]{0,80}") {
            for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
                let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
                let _ = client(header, "10.0.0.1", &[(name, &value)]);
            }
        }
    }
}
