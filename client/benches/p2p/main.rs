//! What channels to peers cost, beside the bare crate `webrtc` ([`raw`]) in the same run.
//!
//! `cargo bench -p conexus-client --features p2p --bench p2p`. Both ends are in this process, on loopback, and
//! signaled by hand, so that neither a gateway nor a network is measured.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

mod ours;
mod raw;

use divan::{Bencher, counter::BytesCount};
use tokio::runtime::{Builder, Runtime};

const MIB: usize = 1024 * 1024;
/// What is sent to measure throughput, in messages of [`PIECE`].
const TRANSFER: usize = 32 * MIB;
const PIECE: usize = 32 * 1024 - 1;

fn main() {
    divan::main();
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// From nothing to a channel that is open at both ends.
#[divan::bench(args = ["raw", "ours"], sample_count = 20, sample_size = 1)]
fn open(bencher: Bencher<'_, '_>, stack: &str) {
    let runtime = runtime();
    bencher.bench_local(|| {
        runtime.block_on(async {
            match stack {
                "raw" => raw::Pair::connect().await.close().await,
                _ => ours::Pair::connect().await.close().await,
            }
        });
    });
}

/// A message of 100 bytes, and the same back.
#[divan::bench(args = ["raw", "ours"], sample_count = 1000, sample_size = 1)]
fn echo(bencher: Bencher<'_, '_>, stack: &str) {
    let runtime = runtime();
    match stack {
        "raw" => {
            let pair = runtime.block_on(raw::Pair::connect());
            let echoing = runtime.spawn(raw::echo(pair.to.clone()));
            bencher.bench_local(|| runtime.block_on(raw::ask(&pair.from, 100)));
            echoing.abort();
            runtime.block_on(pair.close());
        }
        _ => {
            let pair = runtime.block_on(ours::Pair::connect());
            let echoing = runtime.spawn(ours::echo(pair.to.clone()));
            bencher.bench_local(|| runtime.block_on(ours::ask(&pair.from, 100)));
            echoing.abort();
            runtime.block_on(pair.close());
        }
    }
}

/// Many bytes one way, until the last has arrived.
#[divan::bench(args = ["raw", "ours"], sample_count = 10, sample_size = 1)]
fn transfer(bencher: Bencher<'_, '_>, stack: &str) {
    let runtime = runtime();
    let bencher = bencher.counter(BytesCount::new(TRANSFER));
    match stack {
        "raw" => {
            let pair = runtime.block_on(raw::Pair::connect());
            bencher.bench_local(|| runtime.block_on(raw::transfer(&pair, TRANSFER, PIECE)));
            runtime.block_on(pair.close());
        }
        _ => {
            let pair = runtime.block_on(ours::Pair::connect());
            bencher.bench_local(|| runtime.block_on(ours::transfer(&pair, TRANSFER, PIECE)));
            runtime.block_on(pair.close());
        }
    }
}
