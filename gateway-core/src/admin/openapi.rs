//! The API's description, made from the handlers themselves.

use std::collections::HashMap;

use axum::{
    extract::State,
    http::{Method, header},
    response::IntoResponse,
};
use bytes::Bytes;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        path::PathItem,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AdminState;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Conexus admin API",
        description = "What an operator sees of a gateway and may do with it. Times are Unix \
                       milliseconds. Whatever is not a GET needs the scope operate."
    ),
    security((), ("token" = [])),
    modifiers(&Token)
)]
struct About;

struct Token;

impl Modify for Token {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "A token of [admin_token.NAME]; none is needed where there is none.",
        ));
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// The description without any route.
pub(super) fn about() -> openapi::OpenApi {
    About::openapi()
}

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(description))
}

/// This description
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "openapi",
    tag = "node",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object))
)]
async fn description(State(state): State<AdminState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], state.description.clone())
}

pub(super) fn json(api: &openapi::OpenApi) -> Bytes {
    // Plain data with text keys: it always serializes.
    serde_json::to_vec(api).unwrap_or_default().into()
}

/// The ids of all operations, by method and path as axum has it.
pub(super) fn operations(api: &openapi::OpenApi) -> HashMap<(Method, String), String> {
    let paths = api.paths.paths.iter();
    paths.flat_map(|(path, item)| of_path(path, item)).collect()
}

fn of_path(
    path: &str,
    item: &PathItem,
) -> impl Iterator<Item = ((Method, String), String)> + use<> {
    let operations = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ];
    let named = operations.map(|(method, operation)| {
        let id = operation.as_ref().and_then(|operation| operation.operation_id.clone());
        id.map(|id| ((method, path.to_owned()), id))
    });
    named.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_can_be_read_back() {
        let (_, api) = crate::admin::api().split_for_parts();
        let value = serde_json::to_value(&api).unwrap();
        let read: openapi::OpenApi = serde_json::from_value(value).unwrap();
        assert!(read == api);
    }
}
