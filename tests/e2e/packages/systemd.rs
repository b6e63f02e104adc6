//! The service of systemd, as systemd itself judges it.

use std::fs;

use tokio::process::Command;

use super::python::repository;
use crate::support::soon;

async fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .env("SYSTEMD_PAGER", "")
        .env("SYSTEMD_LOG_LEVEL", "warning")
        .kill_on_drop(true)
        .output();
    let output = soon("systemd-analyze", output).await.unwrap_or_else(|error| {
        panic!("systemd-analyze ({error}); tests/run installs it, from Debian's package systemd")
    });
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn systemd_takes_the_service_and_finds_it_confined() {
    // As it is installed, but for where the program lies.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conexus.service");
    let unit = fs::read_to_string(repository("deploy/systemd/conexus.service")).unwrap();
    let here = env!("CARGO_BIN_EXE_conexus");
    assert_eq!(unit.matches("=/usr/bin/conexus ").count(), 2);
    fs::write(&path, unit.replace("=/usr/bin/conexus ", &format!("={here} "))).unwrap();
    let path = path.to_str().unwrap();
    let said = analyze(&["verify", "--man=no", path]).await;
    let ours: Vec<_> = said.lines().filter(|line| line.contains("conexus")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    // Of 10.0, the worst: 2.0 and less is what systemd calls OK.
    analyze(&["security", "--offline=true", "--threshold=20", "--no-pager", path]).await;
}

#[test]
fn there_is_time_enough_to_stop() {
    let unit = fs::read_to_string(repository("deploy/systemd/conexus.service")).unwrap();
    let seconds = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches('=').parse::<u64>().unwrap()
    };
    let drain = conexus_gateway::config::Settings::default().server.drain_timeout.as_secs();
    assert!(seconds("TimeoutStopSec") >= drain + 15 + 10);
}
