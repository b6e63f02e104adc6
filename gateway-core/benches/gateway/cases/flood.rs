//! What a registration feels of somebody else's flood of connections.
//!
//! Both sides are the same gateway, so the reference is the quiet one. The flood comes from an address
//! of its own (127.0.0.2, which on Linux is there): each attempt connects, asks for a WebSocket and
//! goes as soon as it is answered, whatever the answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    sync::{Semaphore, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use super::super::{
    load::{Load, Report},
    row::{Figures, Kind, Row, Target},
    server::{Config, Server},
    trial::Bench,
};

/// 20,000 a minute.
const ATTEMPTS_PER_SECOND: u32 = 333;
/// Registrations of those who are not to notice.
const REGISTRATIONS_PER_SECOND: u32 = 100;
/// More than they need, and less than the flood would like.
const LIMITS: &str =
    "[limits]\nconnects_per_second_per_address = 120\nconnections_per_address = 100\n";

const REQUEST: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: ioap.v1.1\r\n\r\n";

/// Attempts that are under way at once, at most.
const AT_ONCE: usize = 512;
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    [("no limits", ""), ("limits by address", LIMITS)]
        .map(|(name, file)| row(bench, name, file))
        .into()
}

fn row(bench: &Bench, limits: &str, file: &str) -> Row {
    let name = format!("p99 of a registration in a flood, {limits}");
    let load = Load::new("register")
        .with("protocol", "v1.1")
        .with("concurrency", 8)
        .with("rate", REGISTRATIONS_PER_SECOND);
    let (warmup, seconds) = bench.profile.seconds();
    let load = load.with("warmup", warmup).with("seconds", seconds * 2.0);
    let config = Config { file: file.to_owned(), ..Config::default() };
    let subject = &bench.gateways(&config)[0];
    let (mut figures, mut attempts, mut answered) = (Figures::default(), 0, 0);
    let p99 = |report: &Report| report.latency().p99 / 1000.0;
    for round in 1..=bench.profile.rounds() {
        eprintln!("{name}: round {round} of {}", bench.profile.rounds());
        let server = Server::start(subject);
        figures.reference.push(p99(&load.run(&server)));
        let flood = Flood::begin(server.address);
        figures.gateway.push(p99(&load.run(&server)));
        let (made, upgraded) = flood.end();
        attempts += made;
        answered += upgraded;
    }
    Row::new(16, &name, "ms", Kind::Ratio, &figures)
        .target(Target::at_most(2.0))
        .note(format!("{answered} of {attempts} attempts were let in"))
}

/// Attempts to connect, until it is ended.
struct Flood {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    attempts: AtomicU64,
    upgraded: AtomicU64,
}

impl Flood {
    fn begin(target: SocketAddr) -> Self {
        let (stop, stopped) = oneshot::channel();
        let counts = Arc::<Counts>::default();
        let counting = Arc::clone(&counts);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = stopped => {}, () = pour(target, &counting) => {} }
            });
        });
        Self { stop, thread, counts }
    }

    /// How many attempts were made, and how many had their upgrade.
    fn end(self) -> (u64, u64) {
        // It may have ended by itself, by a panic that the next line brings up.
        let _ = self.stop.send(());
        self.thread.join().unwrap();
        (self.counts.attempts.load(Relaxed), self.counts.upgraded.load(Relaxed))
    }
}

async fn pour(target: SocketAddr, counts: &Arc<Counts>) {
    let mut ticks = interval(Duration::from_secs(1) / ATTEMPTS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        ticks.tick().await;
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let counts = Arc::clone(counts);
        tokio::spawn(async move {
            let _place = place;
            counts.attempts.fetch_add(1, Relaxed);
            // Being cut off is an answer, too.
            if let Ok(Ok(true)) = timeout(PATIENCE, attempt(target)).await {
                counts.upgraded.fetch_add(1, Relaxed);
            }
        });
    }
}

/// Whether it was upgraded.
async fn attempt(target: SocketAddr) -> std::io::Result<bool> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
    let mut stream = socket.connect(target).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(answer.ends_with(b"101"))
}
