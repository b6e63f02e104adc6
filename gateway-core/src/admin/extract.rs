//! What handlers take from a request: bodies, queries and agents' keys, whose faults name the member.

use std::ops::Deref;

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::request::Parts,
};
use conexus_protocol::AgentKey;
use serde::de::DeserializeOwned;

use super::fault::Fault;

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON body that may be left out: then everything in it is.
pub(crate) struct OptionalBody<T>(pub(crate) T);

/// The query.
pub(crate) struct Asked<T>(pub(crate) T);

/// The agent that the path names.
pub(crate) struct Named(pub(crate) AgentKey);

impl From<JsonRejection> for Fault {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Fault {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<PathRejection> for Fault {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let Json(body) = <Json<T> as FromRequest<S>>::from_request(request, state).await?;
        Ok(Self(body))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let body = <Option<Json<T>> as FromRequest<S>>::from_request(request, state).await?;
        Ok(Self(body.map(|Json(body)| body).unwrap_or_default()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let Query(asked) = Query::<T>::from_request_parts(parts, state).await?;
        Ok(Self(asked))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let Path(did) = Path::<String>::from_request_parts(parts, state).await?;
        key_of(&did).map(Self)
    }
}

impl Deref for Named {
    type Target = AgentKey;

    fn deref(&self) -> &AgentKey {
        &self.0
    }
}

/// The key that a DID spells.
pub(crate) fn key_of(did: &str) -> Result<AgentKey, Fault> {
    AgentKey::parse_did(did).map_err(|_| Fault::unprocessable("did: not a did:key of Ed25519"))
}
