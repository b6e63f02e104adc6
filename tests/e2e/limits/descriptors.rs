//! Out of file descriptors: sessions go on, the log says so at most once a second, and connections
//! are accepted again without anybody's help.

use std::time::{Duration, Instant};

use conexus_protocol::{Identity, Subprotocol};
use tokio::net::TcpStream;

use crate::{
    metrics::problem,
    support::{
        process::{Process, conexus, folder_with},
        scrape::Scrape,
        soon,
    },
};

/// The limit, of which the gateway itself needs some thirty.
const FILES: u64 = 120;

/// A gateway that may have no more open files than this.
async fn with_few_files(folder: &std::path::Path, settings: &[&str]) -> Process {
    let ports = ["--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"];
    let arguments: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let plain = conexus(folder, &[&["run"][..], &ports, &arguments].concat());
    // The hard limit, too: the gateway raises the soft one.
    let mut command = tokio::process::Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -n {FILES}; exec \"$0\" \"$@\""))
        .arg(plain.as_std().get_program())
        .args(plain.as_std().get_args())
        .current_dir(folder)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    Process::spawn(command).await
}

fn lines(gateway: &Process, what: &str) -> usize {
    gateway.log().iter().filter(|line| line.contains(what)).count()
}

#[tokio::test]
async fn without_file_descriptors_sessions_go_on_and_it_accepts_again_by_itself() {
    const POLICY: &str = "[telemetry]\ndecision_log = \"decisions.jsonl\"\n\
        decision_log_bytes = \"64KiB\"\n\
        [hook.all]\nuse = \"script:all\"\n[[chain.on_route]]\nhook = \"all\"\n";
    const ALL: &str = "fn on_route(message) { allow() }\n";
    let folder = folder_with(&[("gateway.toml", POLICY), ("scripts/all.rhai", ALL)]);
    let gateway = with_few_files(folder.path(), &[]).await;
    let mut a = gateway.agent().await;
    let mut b = gateway.agent().await;
    // Connections that are kept alive, over the admin listener as well: none may be opened later.
    let began = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..FILES {
        crowd.push(soon("the backlog", TcpStream::connect(gateway.addr)).await.unwrap());
    }
    let said = gateway.logged("cannot accept connections").await;
    assert!(said.contains("WARN") && said.contains("os error 24"), "{said}");

    // What was there goes on, for as long as it takes for three lines at most; its decision log,
    // which wants new files now and then, and a reload do it no harm.
    gateway.signal("HUP").await;
    let mut exchanged = 0;
    while began.elapsed() < Duration::from_millis(2500) {
        let (_, text) = a.send_offer(&b.did(), &"x".repeat(1000)).await;
        assert_eq!(b.text().await, text);
        exchanged += 1;
    }
    assert!(exchanged > 100, "{exchanged}");
    let said = lines(&gateway, "cannot accept connections");
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((2..=seconds + 1).contains(&said), "{said} lines in {seconds} s");
    assert_eq!(lines(&gateway, "accepts connections again"), 0);

    // Some of the crowd leave, and whoever comes is let in: no restart, no signal.
    crowd.truncate(20);
    let mut late = soon("a new agent to be let in", async {
        gateway.connect(Subprotocol::V1_1, Identity::generate()).await
    })
    .await;
    late.register().await;
    let (_, text) = late.send_offer(&b.did(), "x").await;
    assert_eq!(b.text().await, text);
    let said = gateway.logged("accepts connections again").await;
    assert!(said.contains("failures="), "{said}");
    let scrape = Scrape::of(&gateway).await;
    assert!(scrape.count("conexus_accept_failures_total", &[]) >= 10, "ten a second");
    let low = problem(&gateway, "files_low").await;
    assert!(low["text"].as_str().unwrap().contains("could not be accepted"), "{low}");

    // A decision is lost where a file is full just while none can be opened; later ones are not.
    soon("the decisions to go on", async {
        let did = late.did();
        let recorded = |name| {
            let log = std::fs::read_to_string(folder.path().join(name));
            log.is_ok_and(|log| log.contains(&did))
        };
        while !recorded("decisions.jsonl") && !recorded("decisions.jsonl.1") {
            let (_, text) = late.send_offer(&b.did(), "x").await;
            assert_eq!(b.text().await, text);
        }
    })
    .await;
    assert!(gateway.stop().await.success());
}
