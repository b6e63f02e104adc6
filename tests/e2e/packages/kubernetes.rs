//! The manifests, judged by the schemas of Kubernetes and by one another; and the gateway takes what its
//! container would find.

use std::{fs, path::Path, time::Duration};

use conexus_gateway::config::{Sources, load};
use serde_json::Value;

use super::python::{check, repository};
use crate::support::{
    process::{conexus, run},
    soon,
};

#[tokio::test]
async fn the_manifests_are_valid_and_the_gateway_takes_what_they_mount() {
    for kustomization in ["base", "overlays/tls", "overlays/turn", "overlays/cluster"] {
        let layout = tempfile::tempdir().unwrap();
        let folder = format!("deploy/kubernetes/{kustomization}");
        let told = check("kubernetes.py", &[&folder, layout.path().to_str().unwrap()], "").await;
        let told: Value = serde_json::from_str(&told).unwrap();
        give_what_secrets_have(layout.path()).await;
        let workdir = layout.path().join("etc/conexus");
        let env = told["env"].as_object().unwrap().iter();
        let env = env.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let env: Vec<_> = env.collect();
        let mut command = conexus(&workdir, &["check"]);
        command.envs(env.clone());
        let checked = soon("the check", command.output()).await.unwrap();
        let said = String::from_utf8(checked.stdout).unwrap();
        assert!(checked.status.success(), "{kustomization}: {said}");
        assert_eq!(oddities(&said), Vec::<&str>::new(), "{kustomization}");
        assert!(said.contains("hook.rates: script:rate_limit, asked at on_route"), "{said}");

        // Nobody is killed who stops as he should.
        let sources = Sources { working_dir: workdir, env, ..Sources::default() };
        let settings = load(&sources).unwrap().settings;
        let is_node = settings.cluster_redis.url.is_some();
        assert_eq!(is_node, kustomization.ends_with("cluster"), "{kustomization}");
        assert!(!is_node || told["replicas"].as_u64().unwrap() > 1, "{told}");
        let server = settings.server;
        let patience = Duration::from_secs(told["patience"].as_u64().unwrap());
        let hooks = Duration::from_secs(15);
        let needed = server.drain_delay + server.drain_timeout + hooks;
        assert!(needed < patience, "{kustomization}: {patience:?}");
    }
}

/// What `conexus check` warns of, but for what is left to something in front of the gateway.
pub(super) fn oddities(said: &str) -> Vec<&str> {
    let warnings = said.lines().filter(|line| line.starts_with("warning"));
    warnings.filter(|line| !line.contains("NO TLS")).collect()
}

/// A key, and a certificate where one is mounted.
async fn give_what_secrets_have(layout: &Path) {
    let key = layout.join("etc/conexus-identity/conexus.key");
    fs::remove_file(&key).unwrap();
    let made = run(layout, &["keygen", "--out", key.to_str().unwrap()]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let tls = layout.join("etc/conexus-tls");
    if tls.exists() {
        let folder = tls.to_str().unwrap();
        let cert = ["cert", "--force", "--out", folder, "--name", "gateway.example"];
        let made = run(layout, &cert).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        fs::rename(tls.join("cert.pem"), tls.join("tls.crt")).unwrap();
        fs::rename(tls.join("key.pem"), tls.join("tls.key")).unwrap();
    }
}

#[test]
fn the_mounted_policy_is_the_stock_one() {
    let folder = repository("deploy/kubernetes/base/scripts");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stock = repository("scripts").join(path.file_name().unwrap());
        let (mounted, stock) =
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(stock).unwrap());
        assert!(mounted == stock, "{} differs: copy the one of scripts/", path.display());
    }
}
