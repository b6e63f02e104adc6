//! What the gateway is measured against: a relay that does nothing but relay.
//!
//! `gateway relay plain` runs it.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

mod relay;

use clap::Parser;

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
enum Command {
    /// Be the relay.
    Relay { mode: relay::Mode },
}

fn main() {
    // Cargo passes this to every benchmark.
    let arguments: Vec<_> = std::env::args().filter(|argument| argument != "--bench").collect();
    if arguments.len() > 1 {
        let Command::Relay { mode } = Command::parse_from(arguments);
        relay::run(mode).unwrap();
    }
}
