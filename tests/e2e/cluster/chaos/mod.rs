//! Everything fails, at random and repeatably, while agents come, go, move and talk: what must never
//! happen does not, and once the faults are over all is well again.
//!
//! `CHAOS_SECONDS` and `CHAOS_SEED` (as printed) make it longer, or the same again; the schedule is the
//! seed's, what falls together is the machine's. `CHAOS_LOGS` names a folder for the nodes' logs:
//! `CHAOS_SECONDS=600 CHAOS_SEED=7 tests/run cluster::chaos --no-capture`.
//!
//! The tour: [`life`] is what an agent does, [`director`] has things fail and waits until they work
//! again, [`book`] knows what became of every message and what must not happen.

mod book;
mod director;
mod figures;
mod life;
mod session;

use std::{
    env, fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use conexus_protocol::Identity;
use tokio::{sync::watch, task::JoinSet};

use self::{book::Book, director::Director};
use super::nodes::{Cluster, Setup};

/// Short, so that a run sees many of them end.
const LEASE: Duration = Duration::from_millis(1500);

/// How long messages wait for who is away.
const HOLD: Duration = Duration::from_secs(1);

const NODES: usize = 3;
const AGENTS: usize = 24;

/// What everybody is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Come, go, move and talk.
    Wild,
    /// Stay where they are and talk; whose connection ends stays away.
    Still,
    /// Stay and talk; whose connection ends comes back at once.
    Calm,
    /// Stay, come back, and say no more.
    Silent,
}

/// What agents and director share.
struct Stage {
    seed: u64,
    agents: Vec<Identity>,
    book: Book,
    mood: watch::Sender<Mood>,
    /// Where nodes listen, those that run.
    addresses: Mutex<[Option<SocketAddr>; NODES]>,
}

impl Stage {
    /// A node that runs, as far as one knows.
    fn addresses(&self) -> Vec<(usize, SocketAddr)> {
        let addresses = self.addresses.lock().unwrap();
        let running = |(node, addr): (usize, &Option<SocketAddr>)| Some((node, (*addr)?));
        addresses.iter().enumerate().filter_map(running).collect()
    }
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_there_is_one_owner_and_every_message_is_accounted_for() {
    // A run without one is always the same.
    let seed = setting("CHAOS_SEED").unwrap_or(7);
    let length = Duration::from_secs(setting("CHAOS_SECONDS").unwrap_or(25));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={}", length.as_secs());
    let setup = Setup { lease: LEASE, ..Setup::default() }
        .with(format!("mailbox.hold={}ms", HOLD.as_millis()))
        .with("limits.outbox_messages=4096")
        .with(match env::var("CHAOS_LOGS") {
            Ok(_) => "log.level=info,conexus_gateway::cluster=debug",
            Err(_) => "log.level=warn,conexus_gateway::admin=info,conexus_gateway::cli=info",
        });
    let cluster = Cluster::with(NODES, setup).await;
    let stage = Arc::new(Stage {
        seed,
        agents: (0..AGENTS).map(|_| Identity::generate()).collect(),
        book: Book::new(AGENTS),
        mood: watch::Sender::new(Mood::Calm),
        addresses: Mutex::default(),
    });
    let mut director = Director::new(cluster, Arc::clone(&stage));
    let mut lives = JoinSet::new();
    for me in 0..AGENTS {
        lives.spawn(life::live(Arc::clone(&stage), me));
    }
    let end = Instant::now() + length;
    director.begin().await;
    while Instant::now() < end && stage.book.is_faultless() {
        director.round().await;
    }
    director.end().await;
    lives.shutdown().await;

    let figures = stage.book.settle();
    println!("{}{figures}", director.figures());
    if let Ok(folder) = env::var("CHAOS_LOGS") {
        keep_logs(Path::new(&folder), &director, &figures.violations);
    }
    assert!(figures.violations.is_empty(), "seed {seed}: {:#?}", figures.violations);
}

fn keep_logs(folder: &Path, director: &Director, violations: &[String]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("violations"), violations.join("\n")).unwrap();
    fs::write(folder.join("faults"), director.history().join("\n")).unwrap();
    let agents: Vec<_> = director.agents().iter().map(Identity::did).collect();
    fs::write(folder.join("agents"), agents.join("\n")).unwrap();
    for node in director.nodes() {
        fs::write(folder.join(&node.name), node.log().join("\n")).unwrap();
    }
}
