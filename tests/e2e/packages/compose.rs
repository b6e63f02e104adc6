//! The compose files: what they refer to is there, a gateway with its files answers Prometheus, and the two
//! of a cluster find each other through a Redis that lets them do what they have to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokio::process::Command;

use super::{
    kubernetes::oddities,
    python::{check, repository},
};
use crate::{
    metrics::deployed::promtool,
    support::{
        http,
        process::{Process, conexus},
        soon,
    },
};

mod cluster;

/// What `compose.py` tells of the files.
#[derive(Deserialize)]
struct Told {
    gateways: BTreeMap<String, Gateway>,
    commands: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Gateway {
    /// In the container, and on this machine; none for a volume.
    files: BTreeMap<String, Option<String>>,
    env: BTreeMap<String, String>,
}

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

impl Gateway {
    /// Lays its files out as its container would find them, and has it judge them.
    async fn laid_out(&self, root: &Path) -> LaidOut {
        for (inside, outside) in &self.files {
            let inside = root.join(inside.trim_start_matches('/'));
            fs::create_dir_all(inside.parent().unwrap()).unwrap();
            match outside {
                Some(outside) => std::os::unix::fs::symlink(outside, inside).unwrap(),
                None => fs::create_dir_all(inside).unwrap(),
            }
        }
        let moved = |value: &str| value.replace("\"/run/", &format!("\"{}/run/", root.display()));
        let env = self.env.iter().map(|(name, value)| (name.clone(), moved(value))).collect();
        let laid_out = LaidOut { root: root.to_owned(), env };
        let checked = soon("the check", laid_out.command(&["check"]).output()).await.unwrap();
        let said = String::from_utf8(checked.stdout).unwrap();
        assert!(checked.status.success(), "{said}");
        assert_eq!(oddities(&said), Vec::<&str>::new());
        laid_out
    }
}

/// A gateway's container, as far as its files and variables go.
struct LaidOut {
    root: PathBuf,
    env: BTreeMap<String, String>,
}

impl LaidOut {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = conexus(&self.root.join("etc/conexus"), arguments);
        command.envs(&self.env);
        command
    }

    /// Starts it on ports of its own, and with further settings.
    async fn start(&self, more: &[&str]) -> Process {
        let key = self.root.join("var/lib/conexus/conexus.key");
        let identity = format!("server.identity={}", key.display());
        let set = [
            "server.listen=127.0.0.1:0",
            "admin.listen=127.0.0.1:0",
            "log.format=human",
            &identity,
        ];
        let set: Vec<_> = set.iter().chain(more).flat_map(|set| ["--set", set]).collect();
        Process::spawn(self.command(&set)).await
    }
}

#[tokio::test]
async fn what_the_compose_file_refers_to_is_there_and_the_gateway_answers_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    set_up(&secrets).await;
    // Secrets of the other file are no business of this one.
    let told = check("compose.py", &[secrets.to_str().unwrap()], "").await;
    let told: Told = serde_json::from_str(&told).unwrap();
    assert_eq!(told.gateways.keys().collect::<Vec<_>>(), ["gateway"]);
    let laid_out = told.gateways["gateway"].laid_out(&folder.path().join("root")).await;
    let gateway = laid_out.start(&[]).await;
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
    assert_eq!(before.len(), 7, "{:?}", before.keys());
    set_up(&secrets).await;
    assert_eq!(before, content());
}

#[tokio::test]
async fn promtool_takes_the_configurations_with_the_files_that_they_name() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        fs::copy(repository("deploy").join(from), folder.path().join(to)).unwrap();
    };
    copy("prometheus/alerts.yml", "alerts.yml");
    fs::write(folder.path().join("conexus.token"), "cxa_sesame").unwrap();
    for name in ["prometheus.yml", "prometheus.cluster.yml"] {
        copy(&format!("compose/{name}"), name);
        let path = folder.path().join(name);
        promtool(&["check", "config", path.to_str().unwrap()], "").await;
    }
}
