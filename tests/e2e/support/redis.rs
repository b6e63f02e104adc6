//! Redis servers of a test's own: on free ports, with nothing kept on disk, gone with the test. A cluster
//! of them, and one that a Sentinel watches.
//!
//! Nothing here needs a runtime, and the library's own tests use it, too.

#![allow(dead_code, reason = "each of the test binaries needs another part")]

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a server speaks TLS with: files of PEM.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Whose certificates clients show; they show none without it.
    pub(crate) client_ca: Option<PathBuf>,
}

/// The server that `tests/run` puts there where the system has none: also for those that it does not run.
fn redis_server() -> Command {
    let made = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/redis-server"));
    Command::new(if made.exists() { made } else { Path::new("redis-server") })
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Option<Child>,
    folder: TempDir,
    port: Port,
    /// Of the channel over which a cluster's servers talk.
    bus: Option<Port>,
    config: String,
    is_sentinel: bool,
    has_tls: bool,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further lines of redis.conf.
    pub(crate) fn with(lines: &[&str]) -> Self {
        Self::begin(lines, None)
    }

    /// The same over TLS alone.
    pub(crate) fn with_tls(lines: &[&str], tls: &Tls) -> Self {
        Self::begin(lines, Some(tls))
    }

    fn begin(lines: &[&str], tls: Option<&Tls>) -> Self {
        let config = |port: u16, folder: &Path| {
            let mut config = lines.join("\n");
            config += "\nsave \"\"\nappendonly no\nbind 127.0.0.1\nloglevel notice\n";
            config += &format!("dir {0}\nunixsocket {0}/redis.sock\n", folder.display());
            match tls {
                None => config += &format!("port {port}\n"),
                Some(Tls { certificate, key, client_ca }) => {
                    let (certificate, key) = (certificate.display(), key.display());
                    config += &format!("port 0\ntls-port {port}\ntls-cert-file {certificate}\n");
                    config += &format!("tls-key-file {key}\n");
                    config += &match client_ca {
                        Some(ca) => format!("tls-ca-cert-file {}\n", ca.display()),
                        None => "tls-auth-clients no\n".to_owned(),
                    };
                }
            }
            config
        };
        Self::on_free_port(config, false, tls.is_some())
    }

    fn on_free_port(
        config: impl Fn(u16, &Path) -> String,
        is_sentinel: bool,
        has_tls: bool,
    ) -> Self {
        // Somebody else may take the port first.
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let port = Port::of_our_own();
            let config = config(port.number, folder.path());
            let (child, bus) = (None, None);
            let mut server = Self { child, folder, port, bus, config, is_sentinel, has_tls };
            if server.run().is_ok() {
                return server;
            }
        }
        panic!("redis-server did not start on any of ten ports");
    }

    /// Starts the process; what it said instead of being ready.
    fn run(&mut self) -> Result<(), String> {
        let path = self.folder.path().join("redis.conf");
        fs::write(&path, &self.config).unwrap();
        let mut command = redis_server();
        command.arg(path).args(self.is_sentinel.then_some("--sentinel"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let spawned = command.spawn();
        let mut child = spawned.expect("redis-server: run tests/run, once at least");
        let out = BufReader::new(child.stdout.take().unwrap());
        self.child = Some(child);
        let (sender, lines) = mpsc::channel();
        // Until the end, since a full pipe would hold the server up.
        thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| {
                let _ = sender.send(line);
                Some(())
            })
        });
        let ready = if self.is_sentinel { "+monitor" } else { "eady to accept connections" };
        let mut said = String::new();
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if line.contains(ready) {
                return Ok(());
            }
            said += &line;
            said.push('\n');
        }
        self.kill();
        Err(said)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// As `cluster.redis.url` has it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.has_tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port())
    }

    /// As kill -9 does it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts one that was killed, on the same port. It knows nothing of before.
    pub(crate) fn start_again(&mut self) {
        let began = Instant::now();
        // Another process may have the port for a moment.
        while let Err(said) = self.run() {
            assert!(began.elapsed() < PATIENCE, "it did not start again: {said}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Stops it in the middle of whatever it does; its sockets stay open.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id();
        let kill = format!("kill -{signal} {pid}");
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Has the server do something, as its default user, over a connection for this alone. The answer
    /// is as the protocol has it (RESP2).
    pub(crate) fn command(&self, parts: &[&str]) -> String {
        let path = self.folder.path().join("redis.sock");
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut asked = format!("*{}\r\n", parts.len());
        for part in parts {
            asked += &format!("${}\r\n{part}\r\n", part.len());
        }
        stream.write_all(asked.as_bytes()).unwrap();
        let mut answer = Vec::new();
        read_answer(&mut BufReader::new(stream), &mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The same where anything but an error will do.
    pub(crate) fn must(&self, parts: &[&str]) -> String {
        let answer = self.command(parts);
        assert!(!answer.starts_with('-'), "{parts:?}: {answer}");
        answer
    }

    /// Waits until what it answers has this in it.
    fn until(&self, parts: &[&str], wanted: &str) {
        let began = Instant::now();
        loop {
            let answer = self.command(parts);
            if answer.contains(wanted) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{parts:?} is not {wanted:?} but: {answer}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One answer, with all that is in it.
fn read_answer(from: &mut impl BufRead, answer: &mut Vec<u8>) {
    let begin = answer.len();
    from.read_until(b'\n', answer).unwrap();
    let line = String::from_utf8_lossy(&answer[begin..]).into_owned();
    let length = || line[1..].trim_end().parse::<i64>().unwrap();
    if line.starts_with('$') && length() >= 0 {
        let length = usize::try_from(length() + 2).unwrap();
        let begin = answer.len();
        answer.resize(begin + length, 0);
        from.read_exact(&mut answer[begin..]).unwrap();
    } else if line.starts_with('*') {
        (0..length()).for_each(|_| read_answer(from, answer));
    }
}

/// A port that stays a test's own while its server is down: other tests keep off it. It is below those that
/// the system hands out.
#[derive(Debug)]
struct Port {
    number: u16,
    /// The same port of another address of this machine's is the sign of that.
    _sign: TcpListener,
}

impl Port {
    fn of_our_own() -> Self {
        loop {
            let number = rand::random_range(20_000..32_000);
            if let Ok(sign) = TcpListener::bind(("127.0.0.2", number))
                && TcpListener::bind(("127.0.0.1", number)).is_ok()
            {
                return Self { number, _sign: sign };
            }
        }
    }
}

/// A Redis Cluster of three masters.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    pub(crate) servers: Vec<RedisServer>,
}

/// What the third of all slots are that each has.
const THIRDS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

impl RedisCluster {
    pub(crate) fn start() -> Self {
        let servers: Vec<_> = THIRDS.iter().map(|_| Self::server()).collect();
        for (index, (server, (first, last))) in servers.iter().zip(THIRDS).enumerate() {
            server.must(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            let (first, last) = (first.to_string(), last.to_string());
            server.must(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        for server in &servers[1..] {
            let bus = servers[0].bus.as_ref().expect("it is of a cluster");
            let (port, bus) = (servers[0].port().to_string(), bus.number.to_string());
            server.must(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        for server in &servers {
            server.until(&["CLUSTER", "INFO"], "cluster_state:ok");
            server.until(&["CLUSTER", "INFO"], "cluster_known_nodes:3");
        }
        Self { servers }
    }

    fn server() -> RedisServer {
        let bus = Port::of_our_own();
        let line = format!("cluster-port {}", bus.number);
        let lines = ["cluster-enabled yes", "cluster-node-timeout 2000", &line];
        let mut server = RedisServer::with(&lines);
        server.bus = Some(bus);
        server
    }

    pub(crate) fn url(&self) -> String {
        self.servers[0].url()
    }

    /// Which server has a slot.
    pub(crate) fn with_slot(&self, slot: u16) -> &RedisServer {
        let index = THIRDS.iter().position(|(_, last)| slot <= *last).unwrap();
        &self.servers[index]
    }

    /// Gives a slot with all that is in it to another server.
    pub(crate) fn move_slot(&self, slot: u16, to: usize) {
        let from = self.with_slot(slot);
        let id = |server: &RedisServer| {
            let answer = server.must(&["CLUSTER", "MYID"]);
            answer.lines().nth(1).unwrap().to_owned()
        };
        let (source, target, number) = (id(from), id(&self.servers[to]), slot.to_string());
        self.servers[to].must(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source]);
        from.must(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target]);
        let keys = from.must(&["CLUSTER", "GETKEYSINSLOT", &number, "1000"]);
        let port = self.servers[to].port().to_string();
        for key in keys.lines().filter(|line| !line.starts_with(['*', '$'])) {
            from.must(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        }
        for server in [&self.servers[to], from].into_iter().chain(&self.servers) {
            server.must(&["CLUSTER", "SETSLOT", &number, "NODE", &target]);
        }
    }
}

/// A master, a replica, and the Sentinel that watches them.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    pub(crate) sentinel: RedisServer,
}

impl Watched {
    /// What the master is called.
    pub(crate) const NAME: &'static str = "conexus";

    pub(crate) fn start() -> Self {
        let master = RedisServer::with(&["repl-diskless-sync-delay 0"]);
        let of = format!("replicaof 127.0.0.1 {}", master.port());
        let replica = RedisServer::with(&[&of]);
        replica.until(&["INFO", "replication"], "master_link_status:up");
        let sentinel = Self::watch(&master);
        Self { master, replica, sentinel }
    }

    fn watch(master: &RedisServer) -> RedisServer {
        let (name, watched) = (Self::NAME, master.port());
        let config = |port: u16, folder: &Path| {
            format!(
                "port {port}\nbind 127.0.0.1\ndir {0}\nunixsocket {0}/redis.sock\n\
                 sentinel monitor {name} 127.0.0.1 {watched} 1\n\
                 sentinel down-after-milliseconds {name} 500\n\
                 sentinel failover-timeout {name} 5000\n",
                folder.display()
            )
        };
        let sentinel = RedisServer::on_free_port(config, true, false);
        sentinel.until(&["SENTINEL", "MASTER", name], "num-slaves\r\n$1\r\n1");
        sentinel
    }

    /// Has the replica take over as in an orderly change.
    pub(crate) fn fail_over(&self) {
        self.sentinel.must(&["SENTINEL", "FAILOVER", Self::NAME]);
        self.has_failed_over();
    }

    /// Waits until the replica has taken over.
    pub(crate) fn has_failed_over(&self) {
        let port = self.replica.port().to_string();
        let get = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME];
        self.sentinel.until(&get, &port);
        self.replica.until(&["ROLE"], "master");
    }
}
