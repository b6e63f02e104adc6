//! What it costs the data path that decisions are recorded.
//!
//! A thread of its own writes them. A benchmark that never pauses would fill its queue and measure
//! how fast decisions are dropped; so they come in bursts that fit the queue, with time to write.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::policies::{Judging, gateway_with};

const BURST: u32 = 4000;
const BURSTS: usize = 15;
const PAUSE: Duration = Duration::from_millis(400);

pub(crate) fn report() {
    println!("\nrecording: one call while decisions are recorded, median of {BURSTS} bursts");
    for source in ["plugin:no_op", "script:no_op", "script:three_conditions", "script:increment"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let mut judging = Judging::new(move || {
            Arc::new(gateway_with(source, |settings| {
                settings.telemetry.decision_log = Some(path.clone());
            }))
        });
        let mut bursts: Vec<_> = (0..BURSTS)
            .map(|_| {
                let started = Instant::now();
                for _ in 0..BURST {
                    judging.judge();
                }
                let took = started.elapsed() / BURST;
                thread::sleep(PAUSE);
                took
            })
            .collect();
        bursts.sort_unstable();
        let dropped = judging.engine.status().decisions_dropped;
        println!(
            "  {source:24} {:?}, fastest {:?} ({dropped} not recorded)",
            bursts[BURSTS / 2],
            bursts[0]
        );
    }
}
