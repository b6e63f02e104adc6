//! The documentation names what there is: keys of the configuration, metrics, files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use conexus_gateway::config::{KEYS, SECTIONS};
use regex::Regex;

use super::python::repository;
use crate::support::{
    process::{Process, folder_with},
    scrape::Scrape,
};

/// Every page, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = vec![repository("README.md")];
    for folder in ["docs", "deploy", "scripts"] {
        let entries = fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    let pages = pages.into_iter();
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_key_that_a_page_names_is_one() {
    let keys: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
    let sections = SECTIONS.iter().map(|(section, _)| section.replace('.', r"\."));
    // Those within another first, which begin like it.
    let sections = sections.rev().collect::<Vec<_>>().join("|");
    // In code alone: a sentence may well end with "policy".
    let key = Regex::new(&format!(r"`({sections})\.([a-z][a-z0-9_]+)\b(?:`| = |=)")).unwrap();
    let variable = Regex::new(r"\bCONEXUS_([A-Z0-9]+__[A-Z0-9_]+)\b").unwrap();
    let mut found = 0;
    for (page, text) in pages() {
        for named in key.captures_iter(&text) {
            let path = format!("{}.{}", &named[1], &named[2]);
            // A member of the admin API's answer, members of an event, and files.
            let other = ["state.refusals", "tls.version", "tls.client"].contains(&path.as_str());
            if other || path.ends_with(".crt") || path.ends_with(".toml") || path.ends_with(".rs") {
                continue;
            }
            found += 1;
            assert!(keys.contains(path.as_str()), "{}: {path}", page.display());
        }
        for named in variable.captures_iter(&text) {
            let path = named[1].replace("__", ".").to_ascii_lowercase();
            let own = ["hook.", "chain.", "plugins."].iter().any(|it| path.starts_with(it));
            assert!(own || keys.contains(path.as_str()), "{}: {path}", page.display());
        }
    }
    assert!(found > 50, "{found}");
}

#[tokio::test]
async fn every_metric_that_a_page_names_is_served() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let served = Scrape::of(&gateway).await.types;
    let named = Regex::new(r"\bconexus_[a-z0-9_]+\b").unwrap();
    let is_served = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        served.contains_key(name) || base.is_some_and(|base| served.contains_key(base))
    };
    // The crates, in code and in the log's filters; what hooks have for metrics; a family of names.
    let other = |name: &str| {
        ["conexus_gateway", "conexus_client", "conexus_protocol", "conexus_plugin"]
            .iter()
            .any(|it| name.starts_with(it))
            || name.starts_with("conexus_hook_custom")
            || name.ends_with('_')
    };
    let mut found = 0;
    for (page, text) in pages() {
        for name in named.find_iter(&text).map(|found| found.as_str()).filter(|name| !other(name)) {
            found += 1;
            assert!(is_served(name), "{}: {name}", page.display());
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)").unwrap();
    for (page, text) in pages() {
        for found in link.captures_iter(&text).filter(|found| !found[1].contains("://")) {
            let target = page.parent().unwrap().join(&found[1]);
            assert!(target.exists(), "{}: {}", page.display(), &found[1]);
            if let Some(anchor) = found.get(2) {
                let headings = anchors(&target);
                let anchor = anchor.as_str();
                assert!(headings.contains(anchor), "{}: {}#{anchor}", page.display(), &found[1]);
            }
        }
    }
}

/// What the headings of a page are linked by, as GitHub has it.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}
