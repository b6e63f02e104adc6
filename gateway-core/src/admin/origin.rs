//! Requests that a web page of somebody else's could have caused.
//!
//! Browsers say whose page it was. Where a token is asked for a strange page has none; where none is,
//! the `Host` must be one that no stranger can point here (DNS rebinding).

use axum::http::{HeaderMap, header};

/// Why a request is none of the operator's.
pub(crate) fn stranger(headers: &HeaderMap, tokens_required: bool) -> Option<&'static str> {
    if !is_of_this_site(headers) {
        return Some("not for other sites' pages");
    }
    (!tokens_required && !is_addressed_here(headers))
        .then_some("without tokens the Host must be an address or localhost")
}

fn is_of_this_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if !sites.all(|site| site == "same-origin" || site == "none") {
        return false;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        named.zip(host).is_some_and(|(named, host)| named.eq_ignore_ascii_case(host))
    })
}

/// A page of an attacker's name that resolves to this machine still sends that name.
fn is_addressed_here(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_addresses_and_localhost_are_hosts_of_this_listener() {
        for (host, ours) in [
            ("127.0.0.1:9100", true),
            ("[::1]:9100", true),
            ("localhost", true),
            ("Localhost:9100", true),
            ("evil.example:9100", false),
            ("localhost.evil.example", false),
        ] {
            let headers = headers(&[("host", host)]);
            assert_eq!(stranger(&headers, false).is_none(), ours, "{host}");
            assert_eq!(stranger(&headers, true), None, "with tokens any name will do: {host}");
        }
        assert!(stranger(&HeaderMap::new(), false).is_some());
    }

    #[test]
    fn only_its_own_pages_may_ask() {
        let host = ("host", "localhost:9100");
        for (others, ours) in [
            (&[("origin", "http://localhost:9100")][..], true),
            (&[("origin", "https://LOCALHOST:9100")], true),
            (&[("origin", "http://localhost:9100"), ("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("origin", "http://localhost:9101")], false),
            (&[("origin", "http://localhost")], false),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("origin", "http://localhost:9100"), ("origin", "http://evil.example")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
        ] {
            let headers = headers(&[&[host], others].concat());
            for tokens in [false, true] {
                assert_eq!(stranger(&headers, tokens).is_none(), ours, "{others:?}");
            }
        }
    }
}
