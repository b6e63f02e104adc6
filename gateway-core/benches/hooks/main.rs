//! What hooks cost, measured through the engine as the gateway uses it: counters, histograms,
//! breakers and budgets are on, and the allocator is the binary's.
//!
//! `cargo bench -p conexus-gateway --bench hooks` prints the table of [`cost`], then the reports of
//! [`recording`], [`scaling`] and [`lateness`], which are no cost of a single call. A name behind
//! `--` narrows it down. What the figures mean is written in `docs/hook-performance.md`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

mod cost;
mod lateness;
mod policies;
mod recording;
mod scaling;

use conexus_gateway::script::STACK_BYTES;

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // As the threads of the gateway are: on others each call of a script gets a stack of its own.
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    if thread.join().is_err() {
        std::process::exit(1);
    }
}

fn run() {
    divan::main();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // Without it this is a test run, which only looks whether it works.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let reports: [(&str, fn()); 3] = [
        ("recording", recording::report),
        ("scaling", scaling::report),
        ("lateness", lateness::report),
    ];
    for (name, report) in reports {
        if names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str())) {
            report();
        }
    }
}
