//! The compose file: what it refers to is there, and a gateway with its files answers Prometheus.

use std::{collections::BTreeMap, fs, path::Path};

use tokio::process::Command;

use super::python::{check, repository};
use crate::{
    metrics::deployed::promtool,
    support::{
        http,
        process::{Process, conexus, run},
        soon,
    },
};

/// Makes the secrets as an operator would, with this binary.
async fn set_up(secrets: &Path) {
    let setup = Command::new(repository("deploy/compose/setup"))
        .arg(secrets)
        .env("CONEXUS", env!("CARGO_BIN_EXE_conexus"))
        .kill_on_drop(true)
        .output();
    let done = soon("the setup", setup).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn what_the_compose_file_refers_to_is_there_and_the_gateway_answers_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    set_up(&secrets).await;
    let told = check("compose.py", &[secrets.to_str().unwrap()], "").await;
    let mounted: BTreeMap<String, Option<String>> = serde_json::from_str(&told).unwrap();
    let root = folder.path().join("root");
    for (inside, outside) in &mounted {
        let inside = root.join(inside.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        match outside {
            Some(outside) => std::os::unix::fs::symlink(outside, inside).unwrap(),
            None => fs::create_dir_all(inside).unwrap(),
        }
    }
    let workdir = root.join("etc/conexus");
    let checked = run(&workdir, &["check"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(!checked.out.contains("warning"), "{}", checked.out);

    let identity =
        format!("server.identity={}", root.join("var/lib/conexus/conexus.key").display());
    let set =
        ["server.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "log.format=human", &identity];
    let set: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
    let gateway = Process::spawn(conexus(&workdir, &set)).await;
    let metrics = async |token: Option<String>| {
        let token = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = token.iter().map(|token| ("Authorization", token.as_str())).collect();
        http::get_raw(gateway.admin, "/metrics", &headers).await
    };
    let token = |name: &str| fs::read_to_string(secrets.join(name)).unwrap();
    assert_eq!(metrics(None).await.0, 401);
    assert_eq!(metrics(Some(token("prometheus.token"))).await.0, 200);
    assert_eq!(metrics(Some(token("operator.token"))).await.0, 200);
}

#[tokio::test]
async fn what_was_set_up_once_stays() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    set_up(&secrets).await;
    let content = || {
        let files = fs::read_dir(&secrets).unwrap().map(|file| file.unwrap().path());
        files.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
    };
    let before: BTreeMap<_, _> = content();
    assert_eq!(before.len(), 5, "{:?}", before.keys());
    set_up(&secrets).await;
    assert_eq!(before, content());
}

#[tokio::test]
async fn promtool_takes_the_configuration_with_the_files_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        fs::copy(repository("deploy").join(from), folder.path().join(to)).unwrap();
    };
    copy("compose/prometheus.yml", "prometheus.yml");
    copy("prometheus/alerts.yml", "alerts.yml");
    fs::write(folder.path().join("conexus.token"), "cxa_sesame").unwrap();
    let path = folder.path().join("prometheus.yml");
    promtool(&["check", "config", path.to_str().unwrap()], "").await;
}
