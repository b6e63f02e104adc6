//! A `redis-server` of a test's own: killed with the test, held up or restarted empty as it asks.

use std::{
    net::{SocketAddr, TcpListener},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Below the ports that the system gives to outgoing connections: one that is for a server that is
/// away could otherwise get the server's own port, and be connected to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        // Somebody else may take the port in between.
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let mut server = Self { port: free_port(), folder, child: None };
            if server.run().await {
                return server;
            }
        }
        panic!("redis-server does not start; tests/run installs it");
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), self.port)
    }

    /// Ends it at once, with all that it knows.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Runs it anew, knowing nothing, at the same place.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        assert!(self.run().await, "redis-server starts again at port {}", self.port);
    }

    /// It does nothing any more, and its connections stay.
    pub(crate) async fn pause(&self) {
        self.signal("STOP").await;
    }

    pub(crate) async fn resume(&self) {
        self.signal("CONT").await;
    }

    async fn signal(&self, name: &str) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        let kill = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status();
        assert!(kill.await.unwrap().success());
    }

    /// Whether it answers.
    async fn run(&mut self) -> bool {
        let port = self.port.to_string();
        // Nothing is kept, and nothing that a distribution configures counts.
        let arguments =
            ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let mut child = Command::new("redis-server")
            .args(arguments)
            .arg("--dir")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server; tests/run installs it");
        let answers = timeout(PATIENCE, async {
            loop {
                if child.try_wait().unwrap().is_some() {
                    return false;
                }
                if is_ready(self.addr()).await {
                    // Not somebody else who has taken the port.
                    return child.try_wait().unwrap().is_none();
                }
                sleep(Duration::from_millis(2)).await;
            }
        });
        let answers = answers.await.unwrap_or(false);
        self.child = answers.then_some(child);
        answers
    }
}

async fn is_ready(addr: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(&answer == b"+PONG")
    };
    asked.await.unwrap_or(false)
}

fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in processes of their own, side by side.
    let first = (std::process::id() % 1000) as u16 * 12;
    (0..PORTS.len())
        .map(|_| PORTS.start + (first + NEXT.fetch_add(1, Relaxed)) % (PORTS.end - PORTS.start))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
