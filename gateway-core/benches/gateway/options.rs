//! What the benchmark is asked to do.

use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand};

use super::relay::Mode;

/// Measures the gateway beside a bare relay, in turns, and prints the ratios.
#[derive(Debug, Parser)]
#[command(bin_name = "tests/bench", group = ArgGroup::new("profile"))]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The essential cases in under two minutes (the default).
    #[arg(long, group = "profile")]
    quick: bool,

    /// All cases, as in the table of docs/performance.md: some twenty minutes.
    #[arg(long, group = "profile")]
    full: bool,

    /// All cases in a few seconds, to see that they run; their figures mean nothing.
    #[arg(long, group = "profile")]
    smoke: bool,

    /// Only these cases, whatever the profile.
    #[arg(long = "case", value_name = "N", value_delimiter = ',')]
    pub(crate) cases: Vec<u8>,

    /// The gateway's binary, in place of the one built with the benchmark.
    #[arg(long, value_name = "PATH")]
    pub(crate) gateway: Option<PathBuf>,

    /// A second gateway, such as that of another commit, which takes its turns as well.
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Option<PathBuf>,

    /// Writes the result there.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Shows each result in proportion to that of an earlier run, as --json wrote it.
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,

    /// What `cargo bench` passes. Without it this is a test run.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the benchmark's own processes are told.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be the relay.
    #[command(hide = true)]
    Relay { mode: Mode },
}

/// How much effort is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Smoke,
    Quick,
    Full,
}

impl Options {
    pub(crate) fn profile(&self) -> Profile {
        match self {
            Self { full: true, .. } => Profile::Full,
            Self { smoke: true, .. } => Profile::Smoke,
            Self { quick: true, .. } | Self { bench: true, .. } => Profile::Quick,
            _ => Profile::Smoke,
        }
    }
}

impl Profile {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    /// How many turns each side has.
    pub(crate) const fn rounds(self) -> usize {
        match self {
            Self::Smoke => 1,
            Self::Quick => 3,
            Self::Full => 5,
        }
    }

    /// How long a load runs before it is measured, and how long it is measured, in seconds.
    pub(crate) const fn seconds(self) -> (f64, f64) {
        match self {
            Self::Smoke => (0.1, 0.2),
            Self::Quick => (0.5, 2.0),
            Self::Full => (1.0, 5.0),
        }
    }

    /// Numbers of pairs or agents, which only a smoke test makes smaller.
    pub(crate) fn scaled(self, number: usize) -> usize {
        match self {
            Self::Smoke => (number / 500).clamp(2, 20),
            Self::Quick | Self::Full => number,
        }
    }

    /// The first of these in a quick run, all of them in a full one.
    pub(crate) fn of<T: Copy>(self, all: &[T]) -> &[T] {
        match self {
            Self::Smoke | Self::Quick => &all[..1],
            Self::Full => all,
        }
    }
}
