//! The load generator: what `conexus load` does, for operators who size a deployment.
//!
//! It must never be what is measured. So each worker thread has a runtime, connections and counts of
//! its own; a message is a frame that was masked and signed once; and what arrives is skimmed, not
//! parsed. From a [`Plan`], a mode sets its agents up and says what they do (`modes`), a
//! [`Bench`] says when and measures, and a [`Report`] is what comes of it.
//!
//! It knows a gateway only as an agent does: nothing here is shared with the server's side.

mod bench;
mod board;
mod flight;
mod frame;
mod message;
mod modes;
mod opening;
mod outlet;
mod pair;
mod plan;
mod plot;
mod process;
mod register;
mod report;
mod schedule;
mod skim;
mod stream;
mod tally;
mod target;
mod timer;
mod wire;
mod workers;

use std::io;

use tokio_util::sync::CancellationToken;

use self::{bench::Bench, process::NoProcess, register::SetupError, target::TargetError};
pub(crate) use self::{
    message::Signing,
    plan::{Mode, Plan},
    plot::plot,
    report::Report,
};

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    NoProcess(#[from] NoProcess),
    #[error("the limit of open files cannot be read")]
    Limit { source: io::Error },
    #[error(
        "{needed} open files are needed and {allowed} allowed; raise the limit (ulimit -n), or ask \
         for fewer agents"
    )]
    OpenFiles { needed: u64, allowed: u64 },
    #[error("no threads")]
    Threads(#[source] io::Error),
    #[error("an agent tried the gateway first and did not get in")]
    Trial(#[source] SetupError),
    #[error("nobody could be set up: {why}")]
    Nobody { why: String },
    #[error("rate needs --rate: messages per second, all pairs together")]
    NoRate,
}

/// Runs a plan to its end, or to where it is interrupted.
pub(crate) async fn run(plan: Plan, interrupt: CancellationToken) -> Result<Report, LoadError> {
    if plan.mode == Mode::Rate && plan.rate.is_none() {
        return Err(LoadError::NoRate);
    }
    let bench = Bench::prepare(plan, interrupt).await?;
    let measured = match bench.plan().mode {
        Mode::Register => modes::register::run(&bench).await,
        Mode::Route => modes::route::run(&bench).await,
        Mode::Rate => {
            let per_second = bench.plan().rate.ok_or(LoadError::NoRate)?;
            modes::rate::run(&bench, per_second).await
        }
        Mode::Idle => modes::idle::run(&bench).await,
        Mode::Fanin => modes::fanin::run(&bench).await,
        Mode::Churn => modes::churn::run(&bench).await,
    }?;
    bench.end_tasks().await;
    Ok(Report::new(&bench, &measured))
}
