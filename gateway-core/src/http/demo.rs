//! A page to try the gateway with: two tabs find each other by it and then chat directly.
//!
//! The page is the client of `client/js` at work, whose modules are served to it as they are. Both are
//! part of the binary. `routes` is asked for where `http.demo` is set, which takes a listener on loopback.

use axum::{Router, response::Redirect, routing::get};
use rust_embed::RustEmbed;

use crate::assets;

#[derive(RustEmbed)]
#[folder = "src/http/demo/"]
struct Page;

/// What agents in browsers and Node use, unchanged.
#[derive(RustEmbed)]
#[folder = "../client/js/src/"]
struct Client;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets::routes::<Page, S>("/demo")
        .merge(assets::routes::<Client, S>("/demo/client"))
        .route("/demo", get(async || Redirect::permanent("/demo/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<F: RustEmbed>() -> Vec<(String, String)> {
        let text = |path: &str| String::from_utf8(F::get(path).unwrap().data.into_owned()).unwrap();
        F::iter().map(|path| (path.to_string(), text(&path))).collect()
    }

    #[test]
    fn no_file_holds_what_the_policy_forbids_or_makes_markup_of_strings() {
        for (path, text) in files::<Page>().into_iter().chain(files::<Client>()) {
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
            assert!(!text.contains("<script>"), "{path} has a script in it");
        }
    }

    #[test]
    fn the_page_names_files_that_are_there() {
        let page = String::from_utf8(Page::get("index.html").unwrap().data.into_owned()).unwrap();
        let named = page.split('"').filter_map(|part| part.strip_prefix("/demo/"));
        for path in named.filter(|path| !path.is_empty()) {
            let is_there = match path.strip_prefix("client/") {
                Some(module) => Client::get(module).is_some(),
                None => Page::get(path).is_some(),
            };
            assert!(is_there, "{path} is not there");
        }
    }
}
