//! What a service manager is told (sd_notify), with a socket of the test's own in the manager's place.

use std::{path::Path, time::Duration};

use tempfile::TempDir;
use tokio::net::UnixDatagram;

use crate::support::{
    process::{Process, conexus, folder_with, write},
    soon,
};

/// A manager that has started a gateway.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = folder_with(&[]);
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { socket, folder }
    }

    async fn start(&self, watchdog: Option<Duration>, arguments: &[&str]) -> Process {
        let ports = ["--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"];
        let folder: &Path = self.folder.path();
        let mut command = conexus(folder, &[&ports[..], arguments].concat());
        command.env("NOTIFY_SOCKET", folder.join("notify"));
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        Process::spawn(command).await
    }

    /// The next thing it is told.
    async fn told(&self) -> Vec<String> {
        let mut datagram = [0; 4096];
        let length = soon("a notification", self.socket.recv(&mut datagram)).await.unwrap();
        let text = std::str::from_utf8(&datagram[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The next thing with this line in it.
    async fn told_of(&self, line: &str) -> Vec<String> {
        loop {
            let told = self.told().await;
            if told.iter().any(|told| told == line) {
                return told;
            }
        }
    }
}

fn value<'a>(told: &'a [String], name: &str) -> &'a str {
    let found = told.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("{name} in {told:?}"))
}

#[tokio::test]
async fn a_manager_is_told_of_start_reload_and_stop() {
    let manager = Manager::new();
    let arguments = ["--set", "server.drain_timeout=3s", "--set", "server.drain_delay=1ms"];
    let gateway = manager.start(None, &arguments).await;
    assert_eq!(manager.told().await, ["READY=1", "STATUS=0 agents"], "once it listens");
    let agent = gateway.agent().await;

    let before = monotonic_micros();
    gateway.signal("HUP").await;
    let told = manager.told_of("RELOADING=1").await;
    let at: u128 = value(&told, "MONOTONIC_USEC").parse().unwrap();
    assert!((before..=monotonic_micros()).contains(&at), "of this reload: {told:?}");
    assert_eq!(manager.told_of("READY=1").await, ["READY=1", "STATUS=1 agent"]);

    write(&manager.folder.path().join("gateway.toml"), "[ice]\nservers = 1\n");
    gateway.signal("HUP").await;
    manager.told_of("RELOADING=1").await;
    let told = manager.told_of("READY=1").await;
    let status = "the last reload was refused, see the log; 1 agent";
    assert_eq!(value(&told, "STATUS"), status, "it runs on as it was");

    gateway.signal("TERM").await;
    let told = manager.told_of("STOPPING=1").await;
    assert_eq!(value(&told, "STATUS"), "stopping; 1 agent");
    // Draining, and hooks that are told to stop.
    assert!(value(&told, "EXTEND_TIMEOUT_USEC").parse::<u64>().unwrap() > 3_000_000, "{told:?}");
    drop(agent);
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn a_watchdog_is_told_twice_in_its_time_that_the_gateway_is_alive_until_it_stops() {
    let manager = Manager::new();
    let gateway = manager.start(Some(Duration::from_millis(400)), &[]).await;
    let began = std::time::Instant::now();
    for _ in 0..4 {
        manager.told_of("WATCHDOG=1").await;
    }
    // The first one comes at once, the others after 200 ms each.
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let agent = gateway.agent().await;
    while !manager.told().await.contains(&"STATUS=1 agent".to_owned()) {}
    drop(agent);
    assert!(gateway.stop().await.success());
    manager.told_of("STOPPING=1").await;
}

#[tokio::test]
async fn a_manager_that_has_gone_is_no_reason_not_to_run() {
    let manager = Manager::new();
    let Manager { socket, folder } = manager;
    drop(socket);
    let socket = folder.path().join("notify");
    let ports = ["--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"];
    let mut command = conexus(folder.path(), &ports);
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "100000");
    let gateway = Process::spawn(command).await;
    drop(gateway.agent().await);
    assert!(gateway.stop().await.success());
}

/// As systemd reads it.
fn monotonic_micros() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u128::try_from(now.tv_sec), u128::try_from(now.tv_nsec));
    seconds.unwrap() * 1_000_000 + nanos.unwrap() / 1000
}
