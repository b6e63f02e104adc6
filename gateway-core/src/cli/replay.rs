//! `conexus replay`: recorded decisions, judged by another policy before it is deployed.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{agent::with_causes, terminal::harmless};
use crate::{
    config::{self, Settings, Sources},
    hooks::{self, ReplayError, Report},
};

#[derive(clap::Args)]
pub(super) struct Options {
    /// A decision log, as telemetry.decision_log names one
    log: PathBuf,

    /// Exit with status 1 if anything would be decided otherwise or could not be read
    #[arg(long)]
    expect_same: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print at most so many changed decisions
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    show: usize,
}

/// Why nothing could be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayCommandError {
    #[error("{} cannot be read", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the policy is faulty:\n{0}")]
    Policy(String),
    #[error("{}", path.display())]
    Replay { path: PathBuf, source: ReplayError },
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// Exit status 2 where nothing could be judged, so that 1 says that something differs.
pub(super) fn replay(options: &Options, sources: &Sources) -> Result<ExitCode, ReplayCommandError> {
    let settings = match config::load(sources) {
        Ok(loaded) => loaded.settings,
        Err(errors) => {
            writeln!(io::stderr(), "{errors}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let report = match judge(&options.log, &settings) {
        Ok(report) => report,
        Err(error) => {
            writeln!(io::stderr(), "error: {}", with_causes(&error))?;
            return Ok(ExitCode::from(2));
        }
    };
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{:#}", serde_json::json!(report))?;
    } else {
        out.write_all(pretty(&report, options.show).as_bytes())?;
    }
    let differs = options.expect_same && (report.changed > 0 || !report.unreadable.is_empty());
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn judge(path: &Path, settings: &Settings) -> Result<Report, ReplayCommandError> {
    let path = path.to_owned();
    let log = File::open(&path)
        .map_err(|source| ReplayCommandError::Open { path: path.clone(), source })?;
    hooks::replay(BufReader::new(log), settings).map_err(|error| match error {
        ReplayError::Policy(error) => ReplayCommandError::Policy(error.to_string()),
        source => ReplayCommandError::Replay { path, source },
    })
}

fn pretty(report: &Report, show: usize) -> String {
    let mut text = String::new();
    for change in report.changes.iter().take(show) {
        let at = conexus_protocol::Timestamp::from_unix_millis(change.time_ms);
        let agent = change.agent.as_deref().unwrap_or("-");
        text += &format!("line {}: {at} {} {}", change.line, change.point, harmless(agent));
        if let Some(id) = &change.message {
            text += &format!(" message {}", harmless(id));
        }
        text += &format!("\n  {} -> {}\n", harmless(&change.was), harmless(&change.would_be));
        for (hook, was, is) in &change.hooks {
            text += &format!("  {hook}: {} -> {}\n", harmless(was), harmless(is));
        }
    }
    if report.changes.len() > show {
        text += &format!("and {} more\n", report.changes.len() - show);
    }
    text += &format!("{} of {} decisions would change\n", report.changed, report.decisions);
    for (hook, changes) in &report.by_hook {
        for (change, count) in changes {
            text += &format!("  {hook}: {change}: {count}\n");
        }
    }
    for line in &report.unreadable {
        text += &format!("  line {line} is no record of a decision and was left out\n");
    }
    for (hook, count) in &report.not_replayable {
        text += &format!("  {hook}: {count} steps cannot be repeated and were taken as recorded\n");
    }
    text
}
