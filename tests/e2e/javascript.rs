//! The client in JavaScript, by its own tests: they start this very gateway and end it.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// For a whole file of tests, each of which has a patience of its own.
const PATIENCE: Duration = Duration::from_secs(100);

async fn passes(tests: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/js");
    let modules = folder.join("node_modules");
    assert!(modules.is_dir(), "{} is missing, which tests/run makes", modules.display());
    let running = Command::new("node")
        .args(["--experimental-websocket", "--no-warnings", "--test", "--test-reporter=spec"])
        .args(tests)
        .current_dir(folder)
        .env("CONEXUS_BIN", env!("CARGO_BIN_EXE_conexus"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = timeout(PATIENCE, running).await.expect("the tests in JavaScript to end");
    let ended = ended.unwrap_or_else(|error| panic!("no node, which tests/run installs: {error}"));
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains("pass "), "no test was run: {said}");
}

#[tokio::test]
async fn its_vectors_units_and_types_hold() {
    passes(&["test/vectors.test.js", "test/units.test.js", "test/types.test.js"]).await;
}

#[tokio::test]
async fn it_registers_sends_watches_and_comes_back() {
    passes(&["test/signaling.test.js", "test/examples.test.js"]).await;
}

#[tokio::test]
async fn its_peers_connect_and_talk() {
    passes(&["test/peers.test.js", "test/relay.test.js"]).await;
}
