//! The dashboard's files, which are part of the binary.

use axum::Router;
use rust_embed::RustEmbed;

use crate::assets;

#[derive(RustEmbed)]
#[folder = "src/admin/dashboard/"]
struct Dashboard;

/// A route for each file, and `/` for the page itself.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets::routes::<Dashboard, S>("")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode, header};

    use super::*;
    use crate::assets::{Asset, GUARDS};

    fn asset(path: &'static str) -> Asset {
        Asset::new(Dashboard::get(path).unwrap(), "", path)
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
