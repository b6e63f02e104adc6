//! A `conexus` process with its admin listener, whose log is read all the time: a full pipe would
//! hold it up.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
};

use conexus_protocol::{Identity, Subprotocol};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines,
    },
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
};

use super::{agent::Agent, backplane, http, soon, until};

/// `conexus` with nothing of the test's own environment.
pub(crate) fn conexus(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conexus"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    backplane::have_joined(&mut command);
    command
}

/// Sends a process a signal of this name, as `kill` knows it.
pub(crate) async fn signal(process: u32, name: &str) {
    let kill = Command::new("sh").arg("-c").arg(format!("kill -{name} {process}")).status();
    assert!(soon("the signal to be sent", kill).await.unwrap().success());
}

/// What a command that ended by itself left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command that ends by itself.
pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> Ended {
    let Output { status, stdout, stderr } =
        soon("the command to end", conexus(folder, arguments).output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// A folder with these files.
pub(crate) fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(&folder.path().join(name), content);
    }
    folder
}

/// Writes a file, and makes the folder for it. All at once: a gateway that watches the file would
/// otherwise see it empty for a moment, and take its content for another change.
pub(crate) fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let beside = path.with_extension("being-written");
    fs::write(&beside, content).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// A running gateway. Dropping it kills it.
pub(crate) struct Process {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    out: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// In a folder, on free ports.
    pub(crate) async fn start(folder: &Path, arguments: &[&str]) -> Self {
        let ports = ["--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"];
        Self::spawn(conexus(folder, &[&ports[..], arguments].concat())).await
    }

    /// From a command that gives it free ports.
    pub(crate) async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = kept(BufReader::new(child.stderr.take().unwrap()).lines());
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = soon("the start", out.next_line()).await.unwrap() else {
            panic!("it did not start: {:#?}", log.lock().unwrap());
        };
        let listening = line.split("://").nth(1).unwrap().split('/').next().unwrap();
        let addr = listening.parse().unwrap();
        let admin = ([0, 0, 0, 0], 0).into();
        let mut process = Self { addr, admin, child, log, out: kept(out) };
        let said = process.logged("admin listening").await;
        let address = said.split("address=").nth(1).unwrap().split(' ').next().unwrap();
        process.admin = address.parse().unwrap();
        process
    }

    /// A registered agent on `ioap.v1`.
    pub(crate) async fn agent(&self) -> Agent {
        self.agent_of(Identity::generate()).await
    }

    /// The same of a certain identity.
    pub(crate) async fn agent_of(&self, identity: Identity) -> Agent {
        let mut agent = self.connect(Subprotocol::V1, identity).await;
        agent.register().await;
        agent
    }

    /// An agent that has not registered yet.
    pub(crate) async fn connect(&self, subprotocol: Subprotocol, identity: Identity) -> Agent {
        let socket = TcpSocket::new_v4().unwrap();
        Agent::connect_at(self.addr, subprotocol, identity, socket).await
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What runs, as the admin listener tells it.
    pub(crate) async fn hooks(&self) -> Value {
        let (status, hooks) = http::get(self.admin, "/api/v1/hooks", &[]).await;
        assert_eq!(status, 200);
        hooks
    }

    pub(crate) async fn generation(&self) -> u64 {
        self.hooks().await["generation"]["number"].as_u64().unwrap()
    }

    /// Status and JSON body of a POST to the admin listener.
    pub(crate) async fn post(&self, path: &str) -> (u16, Value) {
        post(self.admin, path, &[("Host", "localhost")]).await
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        signal(self.id(), name).await;
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// What it has printed after its first line.
    pub(crate) fn out(&self) -> Vec<String> {
        self.out.lock().unwrap().clone()
    }

    /// The first line of the log with this in it, once it is there.
    pub(crate) async fn logged(&self, what: &str) -> String {
        let found = || self.log.lock().unwrap().iter().find(|line| line.contains(what)).cloned();
        until(&format!("the log to say {what:?}"), || found().is_some()).await;
        found().unwrap()
    }

    /// Stops it in order: all that it has logged and printed.
    pub(crate) async fn last_words(&mut self) -> Vec<String> {
        self.signal("TERM").await;
        let status = soon("the process to end", self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        // Whoever reads them has let go of them at their end.
        let read = || [&self.log, &self.out].map(Arc::strong_count) == [1, 1];
        until("its streams to end", read).await;
        [self.log(), self.out()].concat()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        soon("the process to end", self.wait()).await
    }

    /// The same for as long as it takes; its log can be read afterwards.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("TERM").await;
        soon("the process to end", self.child.wait()).await.unwrap()
    }
}

/// The lines of a stream, kept as they come.
fn kept(
    mut lines: Lines<BufReader<impl AsyncRead + Unpin + Send + 'static>>,
) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&log);
    // It ends with the process.
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            keeping.lock().unwrap().push(line);
        }
    });
    log
}

/// Status and JSON body of a POST without a body.
pub(crate) async fn post(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request = format!("POST {path} HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    soon("an answer over HTTP", async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    })
    .await
}
