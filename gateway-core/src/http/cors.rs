//! Pages of other origins: which may open a WebSocket, and which may read what the other routes
//! answer.
//!
//! A browser lets any page open a WebSocket to anywhere and says from where in `Origin`, so that the
//! gateway has to judge; what other routes answer it shows to a page only if the answer allows it
//! (CORS). Programs send no `Origin`, and could send any.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, header, request};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::{AllowedOrigin, WebOrigin};

/// How long a browser may keep what it was told by a preflight request.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Whether a request for a WebSocket comes from where it may: from no page, or from an allowed one.
pub(super) fn admits(allowed: &[AllowedOrigin], headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    allowed.is_empty() || origins.all(|origin| allows(allowed, origin))
}

/// Lets allowed pages read answers. None where no page is.
pub(super) fn layer(allowed: &[AllowedOrigin]) -> Option<CorsLayer> {
    if allowed.is_empty() {
        return None;
    }
    let allowed = allowed.to_vec();
    let is_allowed = move |origin: &HeaderValue, _: &request::Parts| allows(&allowed, origin);
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST])
        // `http.agents = "token"`, and a credential for whoever asks for one; the kind of a report.
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        // When it is worth asking again, of a request that was refused for its rate.
        .expose_headers([header::RETRY_AFTER])
        .max_age(MAX_AGE);
    Some(layer)
}

fn allows(allowed: &[AllowedOrigin], origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok().and_then(WebOrigin::parse);
    origin.is_some_and(|origin| allowed.iter().any(|allowed| allowed.allows(&origin)))
}
