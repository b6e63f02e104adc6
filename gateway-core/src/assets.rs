//! Files that are part of the binary, served to browsers.
//!
//! They hold no data, so anybody who reaches their listener may read them. Each is a route of its own:
//! what was not embedded cannot be asked for. The dashboard and the demo are such files.

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
pub(crate) const GUARDS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Kept, but asked about each time: after an update nobody operates with yesterday's page.
    (header::CACHE_CONTROL, "no-cache"),
];

/// A route for each file of a folder, below `base`.
pub(crate) fn routes<F: RustEmbed, S: Clone + Send + Sync + 'static>(base: &str) -> Router<S> {
    F::iter().filter_map(|path| Some(Asset::new(F::get(&path)?, base, &path))).fold(
        Router::new(),
        |routes, asset| {
            let path = asset.route.clone();
            routes
                .route(&path, get(move |headers: HeaderMap| async move { asset.answer(&headers) }))
        },
    )
}

#[derive(Clone)]
pub(crate) struct Asset {
    route: String,
    content: Cow<'static, [u8]>,
    media_type: HeaderValue,
    pub(crate) tag: HeaderValue,
}

impl Asset {
    /// The file at `path`, below `base`; `index.html` is the folder itself.
    pub(crate) fn new(file: EmbeddedFile, base: &str, path: &str) -> Self {
        let path = if path == "index.html" { "" } else { path };
        let hash: String =
            file.metadata.sha256_hash().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            route: format!("{base}/{path}"),
            media_type: media_type(file.metadata.mimetype()),
            tag: HeaderValue::try_from(format!("\"{hash}\"")).expect("hexadecimal"),
            content: file.data,
        }
    }

    pub(crate) fn answer(&self, headers: &HeaderMap) -> Response {
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
