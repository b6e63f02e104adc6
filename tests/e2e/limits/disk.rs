//! A disk that is full: nothing spins, nothing stops, it is said once and counted.

use std::{fs, process::Stdio};

use crate::support::{
    process::{Process, conexus, folder_with, run},
    scrape::Scrape,
};

const SCRIPTS: [(&str, &str); 1] = [("scripts/all.rhai", "fn on_route(message) { allow() }\n")];
const CHAIN: &str = "[hook.all]\nuse = \"script:all\"\n[[chain.on_route]]\nhook = \"all\"\n";

#[tokio::test]
async fn decisions_that_a_full_disk_does_not_take_are_counted_and_said_once() {
    let settings = format!("[telemetry]\ndecision_log = \"/dev/full\"\n{CHAIN}");
    let folder = folder_with(&[("gateway.toml", &*settings), SCRIPTS[0]]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (mut a, mut b) = (gateway.agent().await, gateway.agent().await);
    let lost = |scrape: &Scrape| scrape.count("conexus_decisions_dropped_total", &[]) > 20;
    let mut exchanged = 0;
    while exchanged < 20_000 && !lost(&Scrape::of(&gateway).await) {
        for _ in 0..50 {
            let (_, text) = a.send_offer(&b.did(), "x").await;
            assert_eq!(b.text().await, text);
        }
        exchanged += 50;
    }
    assert!(lost(&Scrape::of(&gateway).await), "{exchanged} messages");
    let said = gateway.logged("decisions are not recorded").await;
    assert!(said.contains("/dev/full") && said.contains("No space left"), "{said}");
    let lines = gateway.log().iter().filter(|line| line.contains("are not recorded")).count();
    assert_eq!(lines, 1);
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn a_log_that_goes_to_a_full_disk_stops_nobody_and_is_counted() {
    let folder = folder_with(&[]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = conexus(
        folder.path(),
        &[
            "--set",
            "server.listen=127.0.0.1:0",
            "--set",
            "admin.listen=127.0.0.1:0",
            "--set",
            "log.level=debug",
        ],
    );
    command.stderr(Stdio::from(full));
    let mut child = command.spawn().unwrap();
    let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    crate::support::soon("the start", tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line))
        .await
        .unwrap();
    let address = line.split("ws://").nth(1).unwrap().split('/').next().unwrap();
    let address: std::net::SocketAddr = address.parse().unwrap();
    for _ in 0..50 {
        let (status, _) = crate::support::http::get(address, "/health", &[]).await;
        assert_eq!(status, 200);
    }
    let id = child.id().unwrap();
    let mut kill = tokio::process::Command::new("kill");
    assert!(kill.arg("-TERM").arg(id.to_string()).status().await.unwrap().success());
    let status = crate::support::soon("its end", child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn an_identity_that_cannot_be_written_is_an_error_that_names_it() {
    let folder = folder_with(&[("a.file", "")]);
    let identity = folder.path().join("a.file/conexus.key");
    let setting = format!("server.identity={}", identity.display());
    let ended =
        run(folder.path(), &["run", "--set", &setting, "--set", "server.listen=127.0.0.1:0"]).await;
    assert_ne!(ended.code, Some(0));
    assert!(ended.err.contains("a.file/conexus.key"), "{}", ended.err);
}
