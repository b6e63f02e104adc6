//! `rate`: pairs in an open loop, at a steady rate whatever the server does.
//!
//! Latency is from the moment at which a message should have been sent, so that a stall shows in
//! every message that it held up (Gil Tene's "coordinated omission").

use std::sync::Arc;

use crate::load::{
    LoadError,
    bench::{Bench, Measured, attendance},
    pair::{Pace, Pair},
    schedule::Schedule,
};

pub(in crate::load) async fn run(bench: &Bench, per_second: f64) -> Result<Measured, LoadError> {
    let pairs = bench.plan().pairs;
    let schedule = Arc::new(Schedule::new(bench.workers()));
    bench.spawn_each(pairs, |worker, number| {
        let (shared, schedule) = (Arc::clone(&bench.shared), Arc::clone(&schedule));
        async move {
            let board = Arc::clone(&shared.board);
            let pace = || Pace::Schedule(schedule.join(worker));
            match Pair::register(shared, worker, number, pace).await {
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
    schedule.begin(&span, per_second);
    let (present, finished) = attendance();
    for worker in 0..bench.workers() {
        let (schedule, shared) = (Arc::clone(&schedule), Arc::clone(&bench.shared));
        let present = present.clone();
        bench.spawn(worker, async move {
            let _present = present;
            if let Err(error) = schedule.beat(worker).await {
                shared.board.tally(worker).errors.lost(&error.into());
            }
        });
    }
    drop(present);
    Ok(bench.measure_all(span, finished).await)
}
