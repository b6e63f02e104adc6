//! The `conexus` binary. See [`conexus_gateway::cli`] for its commands.

use std::process::ExitCode;

use clap::Parser;
use conexus_gateway::cli::Cli;

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().execute().await.unwrap_or_else(|error| {
        // With all its causes on one line, and no backtrace: it is for an operator.
        eprintln!("error: {:#}", anyhow::Error::from(error));
        ExitCode::FAILURE
    })
}
