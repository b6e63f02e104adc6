//! A real TURN server (coturn) on loopback, and two peers in Python that have nothing but its relays.

use std::{net::SocketAddr, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::UdpSocket,
    process::{Child, Command},
    time::{Duration, timeout},
};

use crate::{
    foreign::{python, repository},
    support::soon,
};

/// A TURN server that shares a secret. Dropping it kills it.
pub(crate) struct Coturn {
    addr: SocketAddr,
    _child: Child,
    _folder: TempDir,
}

/// The server that `tests/run` puts there where the system has none.
fn turnserver() -> Command {
    let made = repository("target/tools/turnserver");
    Command::new(if made.exists() { made } else { "turnserver".into() })
}

impl Coturn {
    pub(crate) async fn start(secret: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It takes no port 0.
        let free = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let port = free.port().to_string();
        let child = turnserver()
            .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay"])
            .args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"])
            .args(["--listening-port", &port, "--allow-loopback-peers", "--realm", "test"])
            .args(["--use-auth-secret", "--static-auth-secret", secret])
            .args(["--log-file", "stdout", "--simple-log", "--pidfile", "pid", "--userdb", "db"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("turnserver: run tests/run, once at least");
        soon("the TURN server to answer", answers(free)).await;
        Self { addr: free, _child: child, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("turn:{}?transport=udp", self.addr)
    }

    /// Two peers with a user name and a password each: what `ice_relay.py` says came of it.
    pub(crate) async fn relay(&self, credentials: [(String, String); 2]) -> Value {
        let mut child = Command::new(python())
            .arg(repository("tests/foreign/ice_relay.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the Python that tests/run makes");
        let (host, port) = (self.addr.ip().to_string(), self.addr.port());
        let told = serde_json::json!({ "host": host, "port": port, "credentials": credentials });
        let mut input = child.stdin.take().unwrap();
        input.write_all(format!("{told}\n").as_bytes()).await.unwrap();
        let output = soon("the peers to connect", child.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Asks for its own address (RFC 8489) until there is an answer.
async fn answers(server: SocketAddr) {
    const BINDING: [u8; 20] =
        [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 512];
    loop {
        // Nobody listens there at first, which the next call is told.
        let _ = socket.send_to(&BINDING, server).await;
        let heard = timeout(Duration::from_millis(50), socket.recv_from(&mut answer)).await;
        if matches!(heard, Ok(Ok((length, from))) if length >= 20 && from == server) {
            return;
        }
    }
}
