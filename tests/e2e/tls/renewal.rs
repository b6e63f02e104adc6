//! Another certificate while the gateway runs.

use std::{collections::BTreeMap, os::unix::fs::symlink, path::Path};

use conexus_protocol::Identity;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::{
    agent::Agent,
    pki::{Pki, VERSIONS, install, shake, shown},
    process::{Process, write},
    soon, until,
};

/// Sessions that are open meanwhile; `TLS_SESSIONS=1000` is the full size.
fn sessions() -> usize {
    std::env::var("TLS_SESSIONS").map_or(100, |count| count.parse().expect("TLS_SESSIONS"))
}

/// The certificate that a new connection is shown.
async fn presented(pki: &Pki, addr: std::net::SocketAddr) -> CertificateDer<'static> {
    shown(&pki.shake(addr, None, VERSIONS).await.unwrap())
}

/// A process that speaks TLS with the files of the folder.
async fn process(pki: &Pki, more: &str) -> Process {
    let toml = format!("[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n{more}");
    write(&pki.path("gateway.toml"), &toml);
    Process::start(pki.folder.path(), &[]).await
}

async fn problems(process: &Process) -> BTreeMap<String, Value> {
    let (status, overview) =
        crate::support::http::get(process.admin, "/api/v1/overview", &[]).await;
    assert_eq!(status, 200);
    let problems = overview["now"]["problems"].as_array().unwrap().iter();
    let certificates = problems.filter(|problem| problem["kind"] == "certificate");
    certificates
        .map(|problem| (problem["subject"].as_str().unwrap().to_owned(), problem.clone()))
        .collect()
}

/// The problem with this subject, once it is there.
async fn problem(process: &Process, subject: &str) -> Value {
    soon("the problem", async {
        loop {
            if let Some(problem) = problems(process).await.remove(subject) {
                return problem;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn open_sessions_stay_and_new_ones_get_the_new_certificate() {
    let pki = Pki::new();
    let gateway = pki.gateway(|s| s.limits.connections = 0).await;
    let config = pki.authority.config(None, VERSIONS);
    let mut agents: Vec<Agent> = Vec::new();
    for _ in 0..sessions() {
        agents.push(pki.agent(&gateway, Identity::generate()).await);
    }
    let tls = gateway.tls();
    let renewed = pki.authority.server("second");
    pki.install(&renewed);
    let settings = {
        let mut settings = conexus_gateway::config::Settings::default();
        pki.settings(&mut settings);
        settings
    };
    tls.commit(tls.prepare(&settings).unwrap());
    assert_eq!(presented(&pki, gateway.addr).await, renewed.der());
    // Nor is a ticket of before an excuse for not showing it.
    let stream = shake(gateway.addr, config, TcpSocket::new_v4().unwrap()).await.unwrap();
    assert_eq!(shown(&stream), renewed.der());
    for agent in &mut agents {
        agent.ping().await;
    }
    gateway.has_agents(sessions()).await;
}

#[tokio::test]
async fn files_that_change_are_read_again_and_hooks_are_left_alone() {
    let pki = Pki::new();
    let process = process(&pki, "").await;
    let generation = process.generation().await;
    let renewed = pki.authority.server("second");
    // The key comes first, and does not match until the certificate has come, too.
    pki.install(&renewed);
    process.logged("another certificate is in use").await;
    assert_eq!(presented(&pki, process.addr).await, renewed.der());
    assert_eq!(process.generation().await, generation);
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn a_bad_pair_leaves_the_old_one_in_place_and_is_a_problem() {
    let pki = Pki::new();
    let old = pki.authority.server("old");
    pki.install(&old);
    let process = process(&pki, "").await;
    write(&pki.path("key.pem"), &pki.authority.server("other").key);
    let line = process.logged("the certificate was not reloaded").await;
    assert!(line.contains("key.pem is not the key of the certificate in"), "{line}");
    assert_eq!(presented(&pki, process.addr).await, old.der());
    let found = problem(&process, "tls reload").await;
    assert!(found["text"].as_str().unwrap().contains("CN=old"), "{found}");

    // Asked for it says why, and changes nothing.
    let (status, answer) = process.post("/api/v1/reload").await;
    assert_eq!(status, 409);
    assert!(answer["reasons"][0].as_str().unwrap().contains("tls.key: "), "{answer}");
    assert_eq!(presented(&pki, process.addr).await, old.der());

    let renewed = pki.authority.server("new");
    pki.install(&renewed);
    process.logged("another certificate is in use").await;
    assert_eq!(presented(&pki, process.addr).await, renewed.der());
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn a_signal_and_a_request_read_the_files_again_where_nobody_watches() {
    let pki = Pki::new();
    let process = process(&pki, "[policy]\nwatch = false\n").await;
    for (name, by_signal) in [("second", true), ("third", false)] {
        let renewed = pki.authority.server(name);
        pki.install(&renewed);
        if by_signal {
            process.signal("HUP").await;
        } else {
            assert_eq!(process.post("/api/v1/reload").await.0, 200);
        }
        process.logged(&format!("subject=CN={name}")).await;
        assert_eq!(presented(&pki, process.addr).await, renewed.der());
    }
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn a_renewed_pair_counts_though_the_rest_is_refused() {
    let pki = Pki::new();
    let process = process(&pki, "[policy]\nwatch = false\n").await;
    let faults = ["no_such_key = 1\n", "[[chain.on_route]]\nhook = \"nobody\"\n"];
    for (fault, name) in faults.iter().zip(["second", "third"]) {
        let tls = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
        write(&pki.path("gateway.toml"), &format!("{fault}{tls}"));
        let renewed = pki.authority.server(name);
        pki.install(&renewed);
        assert_eq!(process.post("/api/v1/reload").await.0, 409);
        assert_eq!(presented(&pki, process.addr).await, renewed.der());
    }
    assert!(process.stop().await.success());
}

/// As Kubernetes mounts secrets: the files are links through a link to a folder, which is swapped.
fn mount(folder: &Path, version: &str, pair: &crate::support::pki::Pair) {
    std::fs::create_dir(folder.join(version)).unwrap();
    install(&folder.join(version), pair);
    symlink(version, folder.join("..new")).unwrap();
    std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
}

#[tokio::test]
async fn a_mounted_secret_that_is_swapped_is_read_again() {
    let pki = Pki::new();
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_file(pki.path(name)).unwrap();
        symlink(Path::new("..data").join(name), pki.path(name)).unwrap();
    }
    mount(pki.folder.path(), "..v1", &pki.authority.server("first"));
    let process = process(&pki, "").await;
    let renewed = pki.authority.server("second");
    mount(pki.folder.path(), "..v2", &renewed);
    process.logged("another certificate is in use").await;
    assert_eq!(presented(&pki, process.addr).await, renewed.der());
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn turning_tls_off_needs_a_restart_and_says_so() {
    let pki = Pki::new();
    let process = process(&pki, "").await;
    let before = presented(&pki, process.addr).await;
    write(&pki.path("gateway.toml"), "[log]\nlevel = \"info\"\n");
    let line = process.logged("changed settings need a restart").await;
    assert!(line.contains("tls.certificate") && line.contains("tls.key"), "{line}");
    assert_eq!(presented(&pki, process.addr).await, before);
    // Until then it goes on to be renewed.
    let renewed = pki.authority.server("second");
    pki.install(&renewed);
    process.logged("another certificate is in use").await;
    assert_eq!(presented(&pki, process.addr).await, renewed.der());
    until("the log to have it", || !process.log().is_empty()).await;
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_is_a_problem_and_a_warning() {
    let pki = Pki::new();
    pki.install(&pki.authority.expired());
    let process = process(&pki, "").await;
    process.logged("the certificate of CN=expired expired at 2021-01-01T00:00:00Z").await;
    let found = problem(&process, "tls.certificate").await;
    assert_eq!(found["severity"], "critical", "{found}");
    assert!(process.stop().await.success());
}
