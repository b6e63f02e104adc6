//! `route`: pairs in a closed loop, at most a window of messages under way in each.
//!
//! Throughput is what arrives; latency is from the write to the arrival. A slow server is sent less:
//! how it fares at a given rate is `rate`'s question.

use std::sync::Arc;

use crate::load::{
    LoadError,
    bench::{Bench, Measured},
    pair::{Pace, Pair},
};

pub(in crate::load) async fn run(bench: &Bench) -> Result<Measured, LoadError> {
    let window = bench.plan().window;
    let pairs = bench.plan().pairs;
    bench.spawn_each(pairs, |worker, number| {
        let shared = Arc::clone(&bench.shared);
        async move {
            let board = Arc::clone(&shared.board);
            match Pair::register(shared, worker, number, || Pace::Window(window)).await {
                Ok(pair) => {
                    board.ready();
                    pair.run().await;
                }
                Err(error) => board.failed(worker, &error),
            }
        }
    });
    bench.set_up("pairs", pairs).await?;
    let span = bench.start();
    Ok(bench.measure(span).await)
}
