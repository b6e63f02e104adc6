//! Origins of web pages, as a browser's `Origin` header and `http.allowed_origins` have them
//! (RFC 6454): a scheme, a host and a port, compared as what they mean rather than as text.

use serde::{Deserialize, Serialize};
use url::Url;

/// Where a page that asks was loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: String,
    host: String,
    /// With the scheme's usual one filled in.
    port: Option<u16>,
}

impl WebOrigin {
    /// Reads `https://app.example.com:8443`. `null`, which a page without an origin sends, is none.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.contains("://") {
            return None;
        }
        let url = Url::parse(text).ok()?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && matches!(url.path(), "" | "/");
        let host = url.host_str().filter(|host| bare && !host.is_empty())?;
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: host.to_ascii_lowercase(),
            port: url.port_or_known_default(),
        })
    }
}

/// An element of `http.allowed_origins`: an origin, or all subdomains of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowedOrigin {
    text: String,
    origin: WebOrigin,
    subdomains: bool,
}

/// What an element may look like, for error texts.
pub(super) const ORIGIN_FORM: &str =
    r#"an origin such as "https://app.example.com" or "https://*.example.com""#;

impl AllowedOrigin {
    /// Whether a page from there is let in.
    pub fn allows(&self, origin: &WebOrigin) -> bool {
        let Self { origin: allowed, subdomains, .. } = self;
        let same_host = if *subdomains {
            // At least one label more, so "*.example.com" is not example.com itself.
            origin
                .host
                .strip_suffix(&allowed.host)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            origin.host == allowed.host
        };
        same_host && origin.scheme == allowed.scheme && origin.port == allowed.port
    }
}

impl TryFrom<String> for AllowedOrigin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("{text:?} is no origin; expected {ORIGIN_FORM}");
        let (plain, subdomains) = match text.split_once("://*.") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (text.clone(), false),
        };
        let origin = WebOrigin::parse(&plain).filter(|origin| !origin.host.contains('*'));
        let origin = origin.ok_or_else(fault)?;
        Ok(Self { text, origin, subdomains })
    }
}

impl From<AllowedOrigin> for String {
    fn from(allowed: AllowedOrigin) -> Self {
        allowed.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allowed: &str, origin: &str) -> bool {
        let allowed = AllowedOrigin::try_from(allowed.to_owned()).unwrap();
        WebOrigin::parse(origin).is_some_and(|origin| allowed.allows(&origin))
    }

    #[test]
    fn origins_compare_by_scheme_host_and_port() {
        for (allowed, origin, expected) in [
            ("https://app.example.com", "https://app.example.com", true),
            ("https://app.example.com/", "https://APP.example.com:443", true),
            ("HTTPS://App.Example.com:443", "https://app.example.com", true),
            ("https://app.example.com", "http://app.example.com", false),
            ("https://app.example.com", "https://app.example.com:8443", false),
            ("https://app.example.com", "https://app.example.com.evil.example", false),
            ("https://app.example.com", "https://evilapp.example.com", false),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://[::1]:3000", "http://[0:0:0:0:0:0:0:1]:3000", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "http://a.example.com", false),
            ("chrome-extension://abcdef", "chrome-extension://abcdef", true),
            ("chrome-extension://abcdef", "chrome-extension://abcdeg", false),
            ("https://app.example.com", "null", false),
            ("https://app.example.com", "", false),
            ("https://app.example.com", "https://app.example.com/page", false),
            ("https://app.example.com", "https://user@app.example.com", false),
        ] {
            assert_eq!(allows(allowed, origin), expected, "{allowed} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a.example/page",
            "https://a.example?x",
            "https://u:p@a.example",
            "https://*",
            "https://a.*.example",
            "https://*.*.example",
            "https:a.example",
        ] {
            let refused = AllowedOrigin::try_from(text.to_owned());
            assert!(refused.is_err(), "{text:?}: {refused:?}");
        }
    }
}
