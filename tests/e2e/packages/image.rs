//! The Dockerfile, as far as it can be looked at without an engine: what it is built from is all there,
//! and the binary runs in what the image would have for a file system.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Stdio,
};

use serde_json::Value;
use tokio::process::Command;

use super::python::check;
use crate::support::{process::Process, soon};

/// The user of the image.
const NOBODY: u32 = 65_532;

/// Lays the image out; the settings of its last stage.
async fn image(layout: &Path) -> Value {
    let settings = check("docker.py", &[layout.to_str().unwrap()], "").await;
    serde_json::from_str(&settings).unwrap()
}

#[tokio::test]
async fn the_image_is_built_from_all_that_the_workspace_needs() {
    let layout = tempfile::tempdir().unwrap();
    image(layout.path()).await;
    let metadata = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--no-deps", "--locked", "--offline", "--format-version=1"])
        .arg("--manifest-path")
        .arg(layout.path().join("src/Cargo.toml"))
        .kill_on_drop(true)
        .output();
    let metadata = soon("cargo metadata", metadata).await.unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let targets = packages.flat_map(|package| package["targets"].as_array().unwrap());
    let paths: Vec<_> = targets.map(|target| target["src_path"].as_str().unwrap()).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert!(Path::new(path).exists(), "{path}");
    }
}

#[tokio::test]
async fn the_image_runs_as_nobody_and_writes_nothing_but_its_key() {
    let layout = tempfile::tempdir().unwrap();
    let settings = image(layout.path()).await;
    let root = layout.path().join("root");
    let program = root.join("usr/bin/conexus");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_conexus"), &program).unwrap();
    let volume = settings["VOLUME"][0].as_str().unwrap();
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    fs::create_dir_all(inside(volume)).unwrap();
    protect(layout.path());
    let key = settings["ENV"]["CONEXUS_SERVER__IDENTITY"].as_str().unwrap();
    assert!(Path::new(key).starts_with(volume));
    let am_root = fs::metadata(layout.path()).unwrap().uid() == 0;
    set_mode(&inside(volume), 0o700);
    if am_root {
        chown(inside(volume), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    assert_eq!(settings["USER"], format!("{NOBODY}:{NOBODY}"));
    assert_eq!(settings["STOPSIGNAL"], "SIGTERM");

    let in_image = |program: &Value, arguments: &[&str]| {
        let mut command = Command::new(inside(program.as_str().unwrap()));
        command
            .args(arguments)
            .current_dir(inside(settings["WORKDIR"].as_str().unwrap()))
            .env_clear()
            .env("CONEXUS_SERVER__IDENTITY", inside(key))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if am_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let log = "log.format=human";
    let ports = ["server.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", log];
    let set: Vec<_> = ports.iter().flat_map(|set| ["--set", set]).collect();
    let checked = in_image(&settings["ENTRYPOINT"][0], &["check"]).output();
    let checked = soon("the check", checked).await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    let mut gateway = Process::spawn(in_image(&settings["ENTRYPOINT"][0], &set)).await;
    let listen = format!("server.listen={}", gateway.addr);
    let healthcheck: Vec<_> = settings["HEALTHCHECK"].as_array().unwrap().iter().collect();
    let asked: Vec<_> = healthcheck[1..].iter().map(|it| it.as_str().unwrap()).collect();
    let asked = [&asked[..], &["--set", &listen]].concat();
    let healthy =
        soon("the health check", in_image(healthcheck[0], &asked).output()).await.unwrap();
    assert!(healthy.status.success(), "{healthy:?}");
    gateway.last_words().await;
    let unhealthy =
        soon("the health check", in_image(healthcheck[0], &asked).output()).await.unwrap();
    assert_eq!(unhealthy.status.code(), Some(1), "{unhealthy:?}");
    let written: Vec<_> = fs::read_dir(inside(volume)).unwrap().map(|it| it.unwrap()).collect();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(written[0].path(), inside(key));
}

/// Readable for everybody, writable for nobody.
fn protect(path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| protect(&entry.unwrap().path()));
    }
    let executable = metadata.is_dir() || metadata.permissions().mode() & 0o100 != 0;
    set_mode(path, if executable { 0o755 } else { 0o644 });
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
