//! The commands and requests by which operators make, check, test, load and replay a policy.

mod admin;
mod checking;
mod making;
mod members;
mod replaying;
mod testing;

use std::path::Path;

use crate::support::process::{Ended, run};

/// What a command printed when it succeeded.
async fn printed(folder: &Path, arguments: &[&str]) -> String {
    let ended = run(folder, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:#?}");
    ended.out
}

/// What it said when it failed, as programs of this kind do: status 1.
async fn failed(folder: &Path, arguments: &[&str]) -> Ended {
    let ended = run(folder, arguments).await;
    assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:#?}");
    ended
}

/// Each of these texts is in it.
#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
