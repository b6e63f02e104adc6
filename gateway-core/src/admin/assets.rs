//! The dashboard's files, which are part of the binary.
//!
//! They hold no data, so anybody who reaches the listener may read them. Each is a route of its own:
//! what was not embedded cannot be asked for.

use std::borrow::Cow;

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};

/// Scripts, styles and requests of this listener's own, and nothing else: what an agent calls itself
/// stays text even if a page should forget that once. `data:` is for what browsers draw themselves.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// On every answer, `304` included.
const GUARDS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Kept, but asked about each time: after an update nobody operates with yesterday's page.
    (header::CACHE_CONTROL, "no-cache"),
];

#[derive(RustEmbed)]
#[folder = "src/admin/dashboard/"]
struct Dashboard;

/// A route for each file, and `/` for the page itself.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Dashboard::iter()
        .filter_map(|path| Some((Dashboard::get(&path)?, path)))
        .map(|(file, path)| Asset::new(file, path))
        .fold(Router::new(), |routes, asset| {
            let path = asset.route.clone();
            routes
                .route(&path, get(move |headers: HeaderMap| async move { asset.answer(&headers) }))
        })
}

#[derive(Clone)]
struct Asset {
    route: String,
    content: Cow<'static, [u8]>,
    media_type: HeaderValue,
    tag: HeaderValue,
}

impl Asset {
    fn new(file: EmbeddedFile, path: Cow<'static, str>) -> Self {
        let route = if path == "index.html" { "/".to_owned() } else { format!("/{path}") };
        let hash: String =
            file.metadata.sha256_hash().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            route,
            media_type: media_type(file.metadata.mimetype()),
            tag: HeaderValue::try_from(format!("\"{hash}\"")).expect("hexadecimal"),
            content: file.data,
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut response = if self.is_known(headers) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.media_type.clone())], self.content.clone())
                .into_response()
        };
        let answer = response.headers_mut();
        answer.insert(header::ETAG, self.tag.clone());
        answer.extend(GUARDS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }

    /// Whether the browser has this very content (RFC 9110, section 13.1.2).
    fn is_known(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::IF_NONE_MATCH).iter().any(|known| {
            known.as_bytes().split(|byte| *byte == b',').any(|tag| {
                let tag = tag.trim_ascii();
                tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.tag.as_bytes()
            })
        })
    }
}

/// All text here is UTF-8, which a type may leave open.
fn media_type(guessed: &str) -> HeaderValue {
    let charset = if guessed.starts_with("text/") { "; charset=utf-8" } else { "" };
    HeaderValue::try_from(format!("{guessed}{charset}")).expect("a media type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(path: &'static str) -> Asset {
        Asset::new(Dashboard::get(path).unwrap(), path.into())
    }

    fn knowing(tag: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.parse().unwrap())])
    }

    fn text(path: &str) -> String {
        String::from_utf8(Dashboard::get(path).unwrap().data.into_owned()).unwrap()
    }

    #[test]
    fn every_file_has_its_type() {
        for (path, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("app.css", "text/css; charset=utf-8"),
            ("pages/agents.js", "text/javascript; charset=utf-8"),
            ("icon.svg", "image/svg+xml"),
        ] {
            let response = asset(path).answer(&HeaderMap::new());
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[header::CONTENT_TYPE], expected, "{path}");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again_but_guarded_all_the_same() {
        let asset = asset("app.js");
        let tag = asset.tag.to_str().unwrap().to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let response = asset.answer(&knowing(&known));
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
            for (name, value) in GUARDS {
                assert_eq!(response.headers()[name], value);
            }
        }
        assert_eq!(asset.answer(&knowing("\"x\"")).status(), StatusCode::OK);
    }

    #[test]
    fn no_file_holds_what_the_policy_forbids_or_makes_markup_of_strings() {
        for path in Dashboard::iter() {
            let text = text(&path);
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
            ] {
                assert!(!text.contains(forbidden), "{path} has {forbidden}");
            }
        }
        assert!(!text("index.html").contains("<script>"));
    }

    #[test]
    fn the_page_names_files_that_are_there_and_all_of_its_modules() {
        let page = text("index.html");
        let named: Vec<&str> = page
            .split(['"'])
            .filter_map(|part| part.strip_prefix('/'))
            .filter(|path| !path.is_empty())
            .collect();
        for path in &named {
            assert!(Dashboard::get(path).is_some(), "{path} is not there");
        }
        for path in Dashboard::iter().filter(|path| path.ends_with(".js")) {
            assert!(named.contains(&&*path), "{path} would be found late");
        }
    }
}
