//! The `conexus` binary. See [`conexus_gateway::cli`] for its commands.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use conexus_gateway::{cli::Cli, script::STACK_BYTES};

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A thread that a plugin does not give back is not waited for at the end.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Scripts run on these threads, and are to find the room that they may need.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.enable_all().thread_stack_size(STACK_BYTES).build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    let code = runtime.block_on(cli.execute()).unwrap_or_else(failed);
    runtime.shutdown_timeout(LAST_PATIENCE);
    code
}

fn failed(error: impl Into<anyhow::Error>) -> ExitCode {
    // With all its causes on one line, and no backtrace: it is for an operator.
    eprintln!("error: {:#}", error.into());
    ExitCode::FAILURE
}
