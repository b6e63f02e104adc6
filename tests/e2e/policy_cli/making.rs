//! `conexus new`: what it makes passes its own tests and the check, and nothing is overwritten.

use std::fs;

use super::{failed, printed, says};
use crate::support::process::{folder_with, write};

#[tokio::test]
async fn a_new_script_passes_its_tests_and_the_check_as_its_header_says() {
    let folder = folder_with(&[]);
    let made = printed(folder.path(), &["new", "script", "my-rules"]).await;
    let tests = "scripts/my-rules.test.rhai";
    says(&made, &["scripts/my-rules.rhai", tests, "conexus test ", "conexus check"]);
    let tested = printed(folder.path(), &["test", tests]).await;
    says(&tested, &["2 passed, 0 failed"]);
    says(&printed(folder.path(), &["test"]).await, &["2 passed, 0 failed"]);

    // The header of the script is the configuration that it takes.
    let script = fs::read_to_string(folder.path().join("scripts/my-rules.rhai")).unwrap();
    let header = script.lines().skip_while(|line| !line.starts_with("// [hook."));
    let header = header.map_while(|line| Some(line.strip_prefix("//")?.trim()));
    write(&folder.path().join("gateway.toml"), &header.collect::<Vec<_>>().join("\n"));
    let checked = printed(folder.path(), &["check"]).await;
    says(&checked, &["hook.my-rules: script:my-rules, asked at on_register\n"]);

    let again = failed(folder.path(), &["new", "script", "my-rules"]).await;
    says(&again.err, &["my-rules.rhai is there already"]);
    assert_eq!(fs::read_to_string(folder.path().join("scripts/my-rules.rhai")).unwrap(), script);
}

#[tokio::test]
async fn a_new_plugin_is_the_crate_that_it_says_and_is_made_once() {
    let folder = folder_with(&[]);
    let api = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api");
    let made = printed(folder.path(), &["new", "plugin", "my-gate", "--api", api]).await;
    says(
        &made,
        &[
            "made ./my-gate",
            "cargo test",
            "cargo build --release, which makes target/release/libmy_gate.so",
            "[plugins.my-gate]\npath = \"./my-gate/target/release/libmy_gate.so\"\n",
            "[hook.my-gate]\nuse = \"plugin:my-gate\"\n",
            "[[chain.on_register]]\nhook = \"my-gate\"\n",
        ],
    );
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    says(
        &read("my-gate/Cargo.toml"),
        &["name = \"my-gate\"", "plugin-api\"", "crate-type = [\"cdylib\", \"rlib\"]"],
    );
    let code = read("my-gate/src/lib.rs");
    says(&code, &["pub struct MyGate", "declare_plugin!(MyGate);"]);
    assert!(!code.contains("{{"), "{code}");

    let again = failed(folder.path(), &["new", "plugin", "my-gate", "--api", api]).await;
    says(&again.err, &["my-gate is there already"]);
    assert_eq!(read("my-gate/src/lib.rs"), code);
    let ended = failed(folder.path(), &["new", "plugin", "other", "--api", "nowhere"]).await;
    says(&ended.err, &["nowhere has no Cargo.toml"]);
    assert!(!folder.path().join("other").exists());
    let ended = failed(folder.path(), &["new", "plugin", "../evil"]).await;
    says(&ended.err, &["\"../evil\" is no name"]);
}
