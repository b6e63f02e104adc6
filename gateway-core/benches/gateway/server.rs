//! The processes under test: a gateway or the relay, in a folder of its own, on a free port.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::relay;

/// What is started.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Gateway(Gateway),
    Relay(relay::Mode),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(gateway) => write!(f, "{}", gateway.binary.display()),
            Self::Relay(_) => f.write_str("the relay"),
        }
    }
}

/// A gateway's binary, and how it is configured beyond [`SETTINGS`].
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) binary: PathBuf,
    pub(crate) config: Config,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// `signatures.routed`, unless it is the default.
    pub(crate) signatures: Option<&'static str>,
    /// The rest of its configuration file.
    pub(crate) file: String,
    /// A script, at the name `measured`.
    pub(crate) script: Option<&'static str>,
    /// Whether it has an operator's listener.
    pub(crate) admin: bool,
    /// Whether it speaks TLS, with a certificate of `conexus cert`.
    pub(crate) tls: bool,
    /// Where the Redis is that it shares with others.
    pub(crate) redis: Option<String>,
}

/// What all gateways get: ports of their own, and limits that are out of the way, namely of
/// connections (10,000 by default) and of what may wait for one agent.
const SETTINGS: [&str; 5] = [
    "server.listen=127.0.0.1:0",
    "admin.listen=127.0.0.1:0",
    "limits.connections=50000",
    "limits.outbox_messages=4096",
    "limits.outbox_bytes=16MiB",
];

/// The folder of a server's certificate, in its folder.
const TLS: &str = "tls";

/// The file that a server's log goes to, in its folder.
const LOG: &str = "log";

/// A child that is killed when it is given up, by a panic as well.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that listens. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    /// What it is to a reader.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// What agents dial.
    pub(crate) url: String,
    /// From before the process was made to its word that it listens.
    pub(crate) started_in: Duration,
    child: Killed,
    folder: TempDir,
}

impl Server {
    pub(crate) fn start(subject: &Subject) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = match subject {
            Subject::Gateway(gateway) => gateway.command(folder.path()),
            Subject::Relay(mode) => relay_command(*mode),
        };
        let log = folder.path().join(LOG);
        command
            .current_dir(folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let began = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut child = Killed(child);
        let mut line = String::new();
        // The pipe stays open, should it have more to say.
        let out = child.0.stdout.as_mut().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let started_in = began.elapsed();
        let url = line.split(' ').find(|word| word.contains("://")).unwrap_or_default();
        let listening = url.split('/').nth(2);
        let address = listening.and_then(|address| address.parse().ok()).unwrap_or_else(|| {
            panic!("{command:?} did not start: {}", fs::read_to_string(&log).unwrap_or_default())
        });
        let (name, url) = (subject.to_string(), url.trim().to_owned());
        Self { name, address, url, started_in, child, folder }
    }

    /// The file with whom to trust, where it speaks TLS.
    pub(crate) fn authority(&self) -> Option<PathBuf> {
        self.url.starts_with("wss").then(|| self.folder.path().join(TLS).join("ca.pem"))
    }

    /// Where the operator's listener is, which the log alone says, a moment after the start.
    pub(crate) fn admin(&self) -> SocketAddr {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let log = fs::read_to_string(self.folder.path().join(LOG)).unwrap();
            let line = log.lines().find(|line| line.contains("admin listening"));
            let address = line.and_then(|line| line.split("address=").nth(1));
            if let Some(address) = address.and_then(|rest| rest.split_whitespace().next()) {
                return address.parse().unwrap();
            }
            assert!(Instant::now() < deadline, "no operator's listener: {log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }
}

impl Gateway {
    fn command(&self, folder: &Path) -> Command {
        let Config { signatures, file, script, admin, tls, redis } = &self.config;
        // Also keeps it from reading a file of somebody else's.
        let path = folder.join("gateway.toml");
        fs::write(&path, file).unwrap();
        if let Some(script) = script {
            fs::create_dir(folder.join("scripts")).unwrap();
            fs::write(folder.join("scripts/measured.rhai"), script).unwrap();
        }
        if *tls {
            let made = Command::new(&self.binary)
                .args(["cert", "--out", TLS])
                .current_dir(folder)
                .stdout(Stdio::null())
                .status();
            assert!(made.unwrap().success(), "no certificate");
        }
        let mut command = Command::new(&self.binary);
        command.arg("run").arg("--config").arg(path);
        for setting in SETTINGS {
            command.args(["--set", setting]);
        }
        command.arg("--set").arg(format!("admin.enabled={admin}"));
        if *tls {
            for (key, file) in [("certificate", "cert.pem"), ("key", "key.pem")] {
                let path = folder.join(TLS).join(file);
                command.arg("--set").arg(format!("tls.{key}={}", path.display()));
            }
        }
        if let Some(redis) = redis {
            command.arg("--set").arg(format!("cluster.redis.url={redis}"));
        }
        if let Some(signatures) = signatures {
            command.arg("--set").arg(format!("signatures.routed={signatures}"));
        }
        command
    }
}

fn relay_command(mode: relay::Mode) -> Command {
    let mode = clap::ValueEnum::to_possible_value(&mode).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("relay").arg(mode.get_name());
    command
}
