//! `conexus send`: one message, and what comes back.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use conexus_client::{
    SendError,
    protocol::{Answer, ErrorCode, IceCandidate, MessageType, Offer, Payload, Rules},
};

use super::agent::{self, AgentError};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    agent: agent::Options,

    /// The DID of the agent that it is for
    to: String,

    /// The message's type
    #[arg(long = "type", default_value = "OFFER", value_name = "TYPE")]
    kind: String,

    /// The SDP of an OFFER or ANSWER, or the candidate of an ICE_CANDIDATE
    #[arg(default_value = "v=0", conflicts_with = "payload")]
    text: String,

    /// The whole payload, for the other types
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,

    /// How long to wait for an answer; 0 does not wait, so that a refusal goes unseen
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

impl Options {
    fn payload(&self) -> Result<Payload, AgentError> {
        let kind = MessageType::parse(&self.kind.to_uppercase())
            .ok_or_else(|| AgentError::Type(self.kind.clone()))?;
        let text = self.text.clone();
        match (&self.payload, kind) {
            (None, MessageType::Offer) => Ok(Offer { sdp: text }.into()),
            (None, MessageType::Answer) => Ok(Answer { sdp: text }.into()),
            (None, MessageType::IceCandidate) => {
                Ok(IceCandidate { candidate: text, ..IceCandidate::default() }.into())
            }
            (json, kind) => Payload::parse(kind, json.as_deref().unwrap_or("{}"), Rules::V1_1)
                .map_err(|source| AgentError::Payload { kind, source }),
        }
    }
}

/// Exit status 1 when the message was refused or not answered in time.
pub(super) async fn send(options: &Options) -> Result<ExitCode, AgentError> {
    let payload = options.payload()?;
    let mut client = options.agent.client()?;
    options.agent.connect(&mut client).await?;
    let outcome = if options.wait == 0 {
        client.send(&options.to, payload).await.map(|_| None)
    } else {
        let patience = Duration::from_secs(options.wait);
        client.send_confirmed(&options.to, payload, patience).await.map(Some)
    };
    let status = match outcome {
        Ok(answer) => {
            if let Some(answer) = answer {
                options.agent.print(&answer)?;
            }
            ExitCode::SUCCESS
        }
        Err(SendError::Refused(refusal)) => {
            let reason = refusal.reason.map_or(ErrorCode::as_str(refusal.code), |r| r.as_str());
            say(&format!("refused: {refusal} ({reason})"))?;
            ExitCode::FAILURE
        }
        Err(SendError::Timeout(patience)) => {
            say(&format!("sent, but not answered within {patience:?}"))?;
            ExitCode::FAILURE
        }
        Err(error) => return Err(AgentError::Send(error)),
    };
    client.close().await;
    Ok(status)
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{}", super::terminal::harmless(text))
}
