//! `conexus listen`: an agent that prints what it is sent.

use std::{io::Write as _, process::ExitCode};

use conexus_client::{
    ConnectionState,
    protocol::{Answer, Payload},
};

use super::{
    agent::{self, AgentError},
    signals::Interrupt,
};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    agent: agent::Options,

    /// Answer each OFFER with an ANSWER of this SDP
    #[arg(long, value_name = "SDP")]
    answer: Option<String>,

    /// End after this many messages
    #[arg(long)]
    count: Option<u64>,
}

pub(super) async fn listen(options: &Options) -> Result<ExitCode, AgentError> {
    let mut client = options.agent.client()?;
    let mut messages = client.messages();
    let mut states = client.states();
    options.agent.connect(&mut client).await?;
    let mut interrupt = Interrupt::catch().map_err(AgentError::Signals)?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", client.did())?;
        out.flush()?;
    }
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else { return Err(AgentError::Lost) };
                options.agent.print(&message)?;
                if let (Payload::Offer(_), Some(sdp)) = (&message.payload, &options.answer) {
                    let answer = Answer { sdp: sdp.clone() };
                    client.reply(&message, answer).await.map_err(AgentError::Send)?;
                }
                left -= 1;
            }
            given_up = states.wait_for(|state| *state == ConnectionState::Error) => {
                drop(given_up);
                return Err(AgentError::Lost);
            }
            () = interrupt.came() => break,
        }
    }
    client.close().await;
    Ok(ExitCode::SUCCESS)
}
