//! How much more two threads judge than one.
//!
//! Two cores of one machine do not give twice of anything: siblings share execution units, and
//! clocks sink when both are busy. So the gain is put in proportion to that of loops that share
//! nothing at all, in turns within the same run.

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use conexus_gateway::{hooks::Engine, script::STACK_BYTES};

use super::policies::{Judging, gateway};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(250);

/// What one thread does over and over.
type Work = Box<dyn FnMut() + Send>;

pub(crate) fn report() {
    println!("\nscaling: throughput of two threads over that of one, {ROUNDS} rounds");
    let control = || -> Vec<Work> { vec![parsing(), parsing()] };
    for source in ["script:no_op", "script:three_conditions", "script:increment", "plugin:no_op"] {
        let apart = || vec![judging(source, &new(source)), judging(source, &new(source))];
        let (mut own, mut loops) = (apart(), control());
        let mut gains: [Vec<f64>; 3] = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            // A new one each round: a gateway that was taken for slow would be replaced by two.
            let engine = new(source);
            let mut gateways = vec![judging(source, &engine), judging(source, &engine)];
            for (gains, work) in gains.iter_mut().zip([&mut gateways, &mut own, &mut loops]) {
                let (one, two) = (throughput(&mut work[..1]), throughput(work));
                gains.push(two / one);
            }
        }
        let [shared, apart, control] = gains.map(median);
        println!(
            "  {source:24} one gateway {shared:.2}, a gateway each {apart:.2}, control loop \
             {control:.2}; one gateway / control loop {:.2}",
            shared / control
        );
    }
}

/// The control loop: it allocates, branches and reads memory as an interpreter does, and shares
/// nothing with anybody.
fn parsing() -> Work {
    let text =
        r#"{"type":"OFFER","to":"did:key:z2","labels":{"region":"eu"},"n":[1,2,3]}"#.to_owned();
    Box::new(move || {
        black_box(serde_json::from_str::<serde_json::Value>(black_box(&text)).unwrap());
    })
}

fn new(source: &str) -> Arc<Engine> {
    Arc::new(gateway(source))
}

/// Judging messages of a sender of one's own, first of all in this gateway.
fn judging(source: &str, engine: &Arc<Engine>) -> Work {
    let (source, first) = (source.to_owned(), Mutex::new(Some(Arc::clone(engine))));
    let mut judging = Judging::new(move || {
        let first = first.lock().unwrap().take();
        first.unwrap_or_else(|| new(&source))
    });
    Box::new(move || judging.judge())
}

/// Calls per second of all threads together.
fn throughput(work: &mut [Work]) -> f64 {
    let (together, over) = (Barrier::new(work.len() + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        let (together, over) = (&together, &over);
        let threads: Vec<_> = work
            .iter_mut()
            .map(|work| {
                let stack = thread::Builder::new().stack_size(STACK_BYTES);
                let run = move || {
                    together.wait();
                    let (started, mut calls) = (Instant::now(), 0_u32);
                    while !over.load(Relaxed) {
                        for _ in 0..64 {
                            work();
                        }
                        calls += 64;
                    }
                    f64::from(calls) / started.elapsed().as_secs_f64()
                };
                stack.spawn_scoped(scope, run).unwrap()
            })
            .collect();
        together.wait();
        thread::sleep(ROUND);
        over.store(true, Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
