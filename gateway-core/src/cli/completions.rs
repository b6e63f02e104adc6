//! `conexus completions`: what a shell needs to complete this command line.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::Cli;

#[derive(clap::Args)]
pub(super) struct Options {
    /// Whose completions
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn completions(options: &Options) -> io::Result<ExitCode> {
    // It panics where it cannot write, so it writes to memory.
    let mut script = Vec::new();
    generate(options.shell, &mut Cli::command(), "conexus", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
