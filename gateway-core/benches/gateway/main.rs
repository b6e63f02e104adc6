//! What the gateway costs beside a relay that does nothing but relay, as ratios of one run.
//!
//! `tests/bench` runs it; `--help` says how, and `docs/performance.md` what the figures mean. The
//! tour: [`cases`] say what is measured and what is good enough, [`trial`] has the sides take
//! turns, [`server`] starts them, [`load`] has the load generator (`conexus load`) put them to
//! work, [`row`] is a line of the table that [`report`] prints. [`relay`] is the reference.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to say")]

mod cases;
mod http;
mod load;
mod options;
#[path = "../../../tests/e2e/support/redis.rs"]
mod redis;
mod relay;
mod report;
mod row;
mod server;
mod spread;
mod trial;

use clap::Parser as _;

use self::{
    options::{Command, Options},
    report::Report,
    trial::Bench,
};

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let options = Options::parse();
    if let Some(Command::Relay { mode }) = options.command {
        relay::run(mode).unwrap();
        return;
    }
    let before = options.compare.as_deref().map(Report::read);
    let bench = Bench::new(&options);
    let mut report = Report::new(&bench);
    for case in cases::ALL.iter().filter(|case| bench.wants(case)) {
        report.rows.extend((case.measure)(&bench).into_iter().filter(|row| bench.shows(row)));
    }
    report.print(before.as_ref());
    if let Some(path) = &options.json {
        report.write(path);
    }
}
