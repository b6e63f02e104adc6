//! `conexus watch`: an agent that prints when others come and go.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    process::ExitCode,
};

use conexus_client::{
    ConnectionState, WatchError, WatchFault,
    protocol::{AgentKey, ErrorCode, Presence},
};
use serde_json::json;

use super::{
    agent::{self, AgentError, with_causes},
    signals::Interrupt,
    terminal::harmless,
};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    agent: agent::Options,

    /// The DIDs of the agents to follow
    #[arg(required = true, value_name = "DID")]
    dids: Vec<String>,

    /// End after this many lines
    #[arg(long)]
    count: Option<u64>,
}

pub(super) async fn watch(options: &Options) -> Result<ExitCode, AgentError> {
    let mut client = options.agent.client()?;
    let mut states = client.states();
    options.agent.connect(&mut client).await?;
    let mut interrupt = Interrupt::catch().map_err(AgentError::Signals)?;
    let mut watch = client.watch(&options.dids).map_err(AgentError::Watch)?;
    // One may be given twice, or in both spellings.
    let dids = options.dids.iter().filter_map(|did| AgentKey::parse_did(did).ok());
    let agents = dids.collect::<HashSet<_>>().len();
    let mut left = options.count.unwrap_or(u64::MAX);
    let mut refused = 0;
    let mut status = ExitCode::SUCCESS;
    while left > 0 {
        tokio::select! {
            word = watch.recv() => match word {
                None => return Err(AgentError::Lost),
                Some(Ok(presence)) => {
                    print(&presence, options.agent.json)?;
                    left -= 1;
                }
                Some(Err(error)) => {
                    say(&error)?;
                    refused += 1;
                    if refused == agents {
                        status = ExitCode::FAILURE;
                        break;
                    }
                }
            },
            given_up = states.wait_for(|state| *state == ConnectionState::Error) => {
                drop(given_up);
                return Err(AgentError::Lost);
            }
            () = interrupt.came() => break,
        }
    }
    client.close().await;
    Ok(status)
}

fn print(presence: &Presence, as_json: bool) -> io::Result<()> {
    let Presence { did, state, reason, since } = presence;
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json!(presence))?;
    } else {
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        writeln!(out, "{}", harmless(&format!("{since} {did} {state}{reason}")))?;
    }
    out.flush()
}

fn say(error: &WatchError) -> io::Result<()> {
    let mut text = with_causes(error);
    if let WatchFault::Refused(refusal) = &error.reason {
        let reason = refusal.reason.map_or(ErrorCode::as_str(refusal.code), |it| it.as_str());
        text = format!("{text} ({reason})");
    }
    writeln!(io::stderr(), "{}", harmless(&text))
}
