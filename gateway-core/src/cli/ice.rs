//! `conexus ice`: what a gateway tells an agent of STUN and TURN servers.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{
    agent::{self, AgentError},
    terminal::harmless,
};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    agent: agent::Options,
}

pub(super) async fn ice(options: &Options) -> Result<ExitCode, AgentError> {
    let mut client = options.agent.client()?;
    options.agent.connect(&mut client).await?;
    let servers = client.refresh_ice_servers().await.map_err(AgentError::Http)?;
    let mut out = io::stdout().lock();
    if options.agent.json {
        writeln!(out, "{}", serde_json::to_string(&servers).map_err(io::Error::from)?)?;
    } else {
        for server in &servers {
            writeln!(out, "{}", harmless(&server.urls.join(" ")))?;
            for (name, value) in
                [("username", &server.username), ("credential", &server.credential)]
            {
                if let Some(value) = value {
                    writeln!(out, "  {name}: {}", harmless(value))?;
                }
            }
        }
        if servers.is_empty() {
            eprintln!("the gateway knows no STUN or TURN server (ice.servers)");
        }
    }
    out.flush()?;
    drop(out);
    client.close().await;
    Ok(ExitCode::SUCCESS)
}
