//! Plugins that are replaced by other builds while messages are judged.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{size, traffic::Traffic};
use crate::support::process::{Process, folder_with};

const CONFIG: &str = r#"
[policy]
watch = false
libraries = 2
# On a machine that is busy with other tests, calls and agents are kept waiting.
budget = "10s"

[limits]
outbox_messages = 10_000

[plugins.quota]
path = "libquota.so"

[hook.quota]
use    = "plugin:quota"
config = { default = { messages_per_day = 1_000_000_000 } }

[hook.absent]
use = "script:absent"

[[chain.on_route]]
hook = "quota"

[[chain.on_undeliverable]]
hook = "absent"
"#;

const ABSENT: &str = "fn on_undeliverable(event) { deny(\"unknown_agent\", `${event.id} x x`) }\n";

/// A library of this build, in `deps` beside the binary.
fn library(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_conexus")).parent().unwrap();
    folder.join("deps").join(name)
}

/// The same library with another content: what follows its last section means nothing.
fn build(nth: u8) -> Vec<u8> {
    let mut content = fs::read(library("libquota.so")).unwrap();
    content.extend([nth; 16]);
    content
}

/// The copies of the plugin that a process has mapped.
fn mapped(id: u32) -> BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.filter(|path| path.contains("libquota-")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_while_a_plugin_is_swapped_and_equal_content_is_loaded_once() {
    let swaps = size("PLUGIN_SWAPS", 20);
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/absent.rhai", ABSENT)]);
    let at = folder.path().join("libquota.so");
    let put = |content: &[u8]| {
        let beside = folder.path().join("next");
        fs::write(&beside, content).unwrap();
        fs::rename(beside, &at).unwrap();
    };
    let builds = [build(0), build(1)];
    put(&builds[0]);
    let gateway = Process::start(folder.path(), &[]).await;
    let traffic = Traffic::begin(&gateway, 4, Duration::from_millis(4)).await;
    let began = Instant::now();
    let mut hashes = BTreeSet::new();
    for swap in 1..=swaps {
        put(&builds[usize::from(swap % 2 == 1)]);
        let (status, reloaded) = gateway.post("/api/v1/reload").await;
        assert_eq!((status, reloaded["generation"].as_u64()), (200, Some(swap + 1)), "{reloaded}");
        let hooks = gateway.hooks().await;
        let files = hooks["generation"]["files"].as_array().unwrap();
        let plugin = files.iter().find(|file| file["path"] == at.to_str().unwrap());
        hashes.insert(plugin.unwrap()["sha256"].to_string());
    }
    assert_eq!(hashes.len(), 2, "each swap took another build");
    let mapped_files = mapped(gateway.id());
    assert_eq!(mapped_files.len(), 2, "each loaded once: {mapped_files:?}");

    // One build more than may be loaded.
    put(&build(2));
    let (status, refused) = gateway.post("/api/v1/reload").await;
    assert_eq!(status, 409, "{refused}");
    assert!(refused["reasons"].to_string().contains("libquota.so"), "{refused}");
    let took = began.elapsed();
    let failed = gateway.log().into_iter().filter(|line| line.contains("hook failed"));
    assert_eq!(failed.collect::<Vec<_>>(), [""; 0]);
    let sent = traffic.end().await;
    println!("{swaps} swaps in {took:?} under {} messages", sent.to_somebody + sent.to_nobody);
    assert_eq!(gateway.hooks().await["alive"], 2, "the running one and the former one");
    assert!(gateway.stop().await.success());
}
