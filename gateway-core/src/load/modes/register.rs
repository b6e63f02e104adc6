//! `register`: agents that connect, upgrade and register, over and over.
//!
//! A connection is reset as soon as its agent is registered: no farewell is on the bill, and no port
//! waits for its time. Keys are made beforehand; the one signature per registration that the
//! generator cannot make beforehand is reported.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use conexus_protocol::Identity;
use tokio::time::sleep;

use crate::load::{
    LoadError,
    bench::{Bench, Measured, Shared},
    board::Phase,
};

/// After a failure an agent does not try again at once.
const BACK_OFF: Duration = Duration::from_millis(100);

pub(in crate::load) async fn run(bench: &Bench) -> Result<Measured, LoadError> {
    let keys: Arc<[Identity]> = (0..bench.plan().agents()).map(|_| Identity::generate()).collect();
    let turn = Arc::new(AtomicUsize::new(0));
    bench.spawn_each(bench.plan().concurrency, |worker, _| {
        let (shared, keys, turn) =
            (Arc::clone(&bench.shared), Arc::clone(&keys), Arc::clone(&turn));
        async move {
            shared.board.started().await;
            while shared.board.is_loaded() {
                let turn = turn.fetch_add(1, Relaxed);
                if !shared.at_its_turn(turn).await {
                    break;
                }
                if !once(&shared, worker, turn, &keys[turn % keys.len()]).await {
                    sleep(BACK_OFF).await;
                }
            }
        }
    });
    let span = bench.start();
    Ok(bench.measure(span).await)
}

/// Whether the agent got in.
async fn once(shared: &Shared, worker: usize, number: usize, identity: &Identity) -> bool {
    let begun = Instant::now();
    // What it returns ends with this function, and the connection with it.
    let registered = shared.register(number, identity).await;
    let took = begun.elapsed();
    let mut tally = shared.board.tally(worker);
    match &registered {
        Ok(agent) => {
            if shared.board.phase() == Phase::Measuring {
                tally.messages += 1;
                tally.registered(agent.took);
                tally.latency.record(took);
            }
        }
        Err(error) => tally.errors.setup(error),
    }
    registered.is_ok()
}
