//! Files that change under a gateway that watches them: each change that matters becomes exactly
//! one generation, and nothing else does.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{
    process::{Process, folder_with, write},
    soon, until,
};

const CONFIG: &str = r#"
[log]
level = "conexus_gateway::reload=debug,info"

[hook.a]
use = "script:a"

[[chain.on_route]]
hook = "a"
"#;

const SCRIPT: &str = "fn on_route(event) { }\n";

/// A script that is like no other.
fn script(n: u32) -> String {
    format!("// {n}\n{SCRIPT}")
}

/// A gateway, and how many generations it is to have had.
struct Watched {
    gateway: Process,
    expected: u64,
}

impl Watched {
    async fn start(folder: &Path) -> Self {
        let gateway = Process::start(folder, &[]).await;
        Self { gateway, expected: 1 }
    }

    /// What runs once that holds.
    async fn once(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        soon(what, async {
            loop {
                let hooks = self.gateway.hooks().await;
                if condition(&hooks) {
                    return hooks;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Waits for the next generation, which has to be made of what lies on the disk.
    async fn reloads(&mut self, because_of: &str) {
        self.expected += 1;
        let what = format!("generation {} because of {because_of}", self.expected);
        let number = |hooks: &Value| hooks["generation"]["number"].as_u64().unwrap();
        let hooks = self.once(&what, |hooks| number(hooks) >= self.expected).await;
        assert_eq!(number(&hooks), self.expected, "{because_of}");
        assert_eq!(hooks["refusal"], Value::Null, "{because_of}");
        for file in hooks["generation"]["files"].as_array().unwrap() {
            let content = fs::read(file["path"].as_str().unwrap()).unwrap();
            let hash =
                Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!(file["sha256"], hash, "{because_of}: {file}");
        }
    }

    /// Waits until the watcher has looked at something that happens now, and found nothing.
    async fn does_not_care(&self, happens: impl FnOnce()) {
        let looks = || {
            let log = self.gateway.log();
            log.iter().filter(|line| line.contains("no file that matters has changed")).count()
        };
        // At the start it looks once without a reason, and may find what the test has done already.
        let looked =
            || looks() > 0 || self.gateway.log().iter().any(|it| it.contains("have changed"));
        until("the first look", looked).await;
        let before = looks();
        happens();
        until("a look at the files", || looks() > before).await;
    }

    /// Waits until a candidate was refused with that reason, and nothing else has changed.
    async fn refuses(&self, reason: &str) {
        let says = |hooks: &Value| hooks["refusal"]["reasons"].to_string().contains(reason);
        let hooks = self.once(&format!("a refusal for {reason}"), says).await;
        assert_eq!(hooks["generation"]["number"], self.expected);
    }
}

/// In the folder of `path`, as an editor or a deployment does it.
fn rename_over(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn files_written_in_place_or_renamed_over_become_the_next_generation() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let path = folder.path().join("scripts/a.rhai");
    let mut watched = Watched::start(folder.path()).await;
    for n in 0..2 {
        fs::write(&path, script(n)).unwrap();
        watched.reloads("a write").await;
        rename_over(&path, &script(n + 10));
        watched.reloads("a rename").await;
    }
    let config = folder.path().join("gateway.toml");
    rename_over(&config, &format!("{CONFIG}budget = \"70ms\"\n"));
    watched.reloads("another configuration").await;
    assert_eq!(watched.gateway.hooks().await["chains"]["on_route"][0]["budget_ms"], 70);
    let notes = folder.path().join("scripts/notes.txt");
    watched.does_not_care(|| write(&notes, "x")).await;
    watched.does_not_care(|| rename_over(&path, &script(11))).await;
    fs::write(&path, script(99)).unwrap();
    watched.reloads("the write after files that do not matter").await;
}

/// A folder as Kubernetes mounts a config map: links into a folder that a link names.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, version: u32, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mount = Self(path);
        mount.version(version, files);
        symlink(format!("..{version}"), mount.0.join("..data")).unwrap();
        for (name, _) in files {
            symlink(format!("..data/{name}"), mount.0.join(name)).unwrap();
        }
        mount
    }

    fn version(&self, version: u32, files: &[(&str, &str)]) {
        for (name, content) in files {
            write(&self.0.join(format!("..{version}")).join(name), content);
        }
    }

    /// All of them at once, then the former ones are removed.
    fn swap(&self, version: u32, files: &[(&str, &str)]) {
        self.version(version, files);
        let next = self.0.join("..data_tmp");
        symlink(format!("..{version}"), &next).unwrap();
        fs::rename(next, self.0.join("..data")).unwrap();
        fs::remove_dir_all(self.0.join(format!("..{}", version - 1))).unwrap();
    }
}

#[tokio::test]
async fn config_maps_that_are_swapped_become_the_next_generation_each_time() {
    let folder = folder_with(&[]);
    let etc = Mount::new(folder.path().to_owned(), 0, &[("gateway.toml", CONFIG)]);
    let scripts = Mount::new(folder.path().join("scripts"), 0, &[("a.rhai", SCRIPT)]);
    let mut watched = Watched::start(folder.path()).await;
    for version in 1..4 {
        scripts.swap(version, &[("a.rhai", &script(version))]);
        watched.reloads("swapped scripts").await;
        let config = format!("{CONFIG}budget = \"{version}s\"\n");
        etc.swap(version, &[("gateway.toml", &config)]);
        watched.reloads("a swapped configuration").await;
        let hooks = watched.gateway.hooks().await;
        assert_eq!(hooks["chains"]["on_route"][0]["budget_ms"], version * 1000);
    }
}

#[tokio::test]
async fn modules_lists_and_parts_of_the_configuration_count_as_well_when_they_come_to_be() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let at = |name: &str| folder.path().join(name);
    let mut watched = Watched::start(folder.path()).await;

    let importing = "import \"lib/x\" as x;\nfn on_route(event) { x::nothing() }\n";
    write(&at("scripts/a.rhai"), importing);
    watched.refuses("lib/x").await;
    write(&at("scripts/lib/x.rhai"), "fn nothing() { }\n");
    watched.reloads("a module in a folder that was not there").await;
    write(&at("scripts/lib/x.rhai"), "fn nothing() { () }\n");
    watched.reloads("another module").await;

    let listing = format!(
        "{CONFIG}\n[hook.b]\nuse = \"script:b\"\nconfig = {{ file = \"far/away/agents.txt\" }}\n"
    );
    write(&at("gateway.toml"), &listing);
    watched.refuses("b.rhai").await;
    write(&at("scripts/b.rhai"), SCRIPT);
    watched.refuses("agents.txt").await;
    write(&at("far/away/agents.txt"), "did:key:a\n");
    watched.reloads("a list in folders that were not there").await;
    write(&at("far/away/agents.txt"), "did:key:b\n");
    watched.reloads("another list").await;

    write(&at("conf.d/10.toml"), "[hook.c]\nuse = \"script:b\"\n");
    watched.reloads("a part of the configuration in a folder that was not there").await;
    fs::remove_file(at("conf.d/10.toml")).unwrap();
    watched.reloads("a part of the configuration that was removed").await;
}

#[tokio::test]
async fn what_is_broken_changes_nothing_until_it_is_mended() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let at = |name: &str| folder.path().join(name);
    let mut watched = Watched::start(folder.path()).await;
    for (file, broken, mended, reason) in [
        ("scripts/a.rhai", "fn on_rout(event) { }", SCRIPT, "a.rhai:1:4"),
        ("scripts/a.rhai", "fn on_route(event) {\n  1 +\n}", SCRIPT, "a.rhai:3:1"),
        (
            "gateway.toml",
            "[hook.a]\nuse = \"script:a\"\n[[chain.on_rote]]\n",
            CONFIG,
            "gateway.toml:3:",
        ),
        ("gateway.toml", "[hook", CONFIG, "gateway.toml:1:"),
    ] {
        write(&at(file), broken);
        watched.refuses(reason).await;
        write(&at(file), mended);
        watched.reloads(reason).await;
    }
    fs::remove_file(at("scripts/a.rhai")).unwrap();
    watched.refuses("a.rhai").await;
    write(&at("scripts/a.rhai"), SCRIPT);
    watched.reloads("a script that is back").await;
}

#[tokio::test]
async fn a_burst_of_changes_becomes_few_generations_of_which_the_last_has_the_last_change() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let path = folder.path().join("scripts/a.rhai");
    let watched = Watched::start(folder.path()).await;
    let last = script(499);
    for n in 0..500 {
        fs::write(&path, script(n)).unwrap();
    }
    let hash = Sha256::digest(&last).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let hooks = watched
        .once("the last change", |hooks| hooks["generation"]["files"][0]["sha256"] == hash)
        .await;
    assert!(hooks["generation"]["number"].as_u64().unwrap() < 10, "{hooks}");
}

#[tokio::test]
async fn a_rollback_stands_until_a_file_changes_that_the_policy_was_made_from() {
    let folder = folder_with(&[
        ("gateway.toml", CONFIG),
        ("scripts/a.rhai", SCRIPT),
        ("more/scripts/a.rhai", &script(1)),
    ]);
    let at = |name: &str| folder.path().join(name);
    let mut watched = Watched::start(folder.path()).await;
    // The former generation has a file that the new configuration does not know of.
    write(&at("gateway.toml"), &format!("{CONFIG}\n[scripts]\npath = \"more/scripts\"\n"));
    watched.reloads("another folder of scripts").await;
    let (status, back) = watched.gateway.post("/api/v1/rollback").await;
    assert_eq!((status, back["generation"].as_u64()), (200, Some(1)), "{back}");
    watched.does_not_care(|| write(&at("more/scripts/notes.txt"), "x")).await;
    assert_eq!(watched.gateway.generation().await, 1);
    write(&at("more/scripts/a.rhai"), &script(2));
    watched.reloads("a change of what the configuration names").await;
}
