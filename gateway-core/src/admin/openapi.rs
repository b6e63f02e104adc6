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
        self, ContentBuilder, Ref, RefOr, ResponseBuilder,
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

/// Adds what the guard may answer to every operation.
pub(super) fn describe_guard(api: &mut openapi::OpenApi) {
    let fault = |text: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Fault"))).build();
        ResponseBuilder::new().description(text).content("application/json", content).build()
    };
    let answers = [
        ("401", fault("A valid token is needed")),
        ("403", fault("Not with this token, or not from this page")),
    ];
    for item in api.paths.paths.values_mut() {
        let PathItem { get, put, post, delete, .. } = item;
        for operation in [get, put, post, delete].into_iter().flatten() {
            for (status, answer) in &answers {
                let responses = &mut operation.responses.responses;
                responses.insert((*status).to_owned(), RefOr::T(answer.clone()));
            }
        }
    }
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
        let (_, mut api) = crate::admin::api().split_for_parts();
        describe_guard(&mut api);
        let value = serde_json::to_value(&api).unwrap();
        let read: openapi::OpenApi = serde_json::from_value(value).unwrap();
        assert_eq!(read.paths.paths.len(), api.paths.paths.len());
    }
}
