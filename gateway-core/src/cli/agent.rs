//! The little agent that `send`, `listen`, `watch` and `ice` are: an identity, a gateway, messages on
//! a terminal.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use conexus_client::{
    Client, ConnectError, HttpError, Identity, Message, Metadata, ReconnectPolicy, SendError,
    protocol::{Malformed, MessageType, Subprotocol},
};

use super::{
    keyfile::{self, KeyFileError},
    terminal::harmless,
    tls_options::{self, Shown, TlsOptionsError, Trust},
};

/// Read when `--credentials` is not given, which other users of the machine could see.
const CREDENTIALS_VARIABLE: &str = "CONEXUS_CREDENTIALS";

/// How an agent appears at a gateway.
#[derive(clap::Args)]
#[group(id = "agent")]
pub(super) struct Options {
    /// The gateway
    #[arg(long, default_value = "ws://127.0.0.1:8000/ws")]
    url: String,

    /// Private key, as `conexus keygen` writes it; made if missing. Without it, a key for this once
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// The name that it publishes
    #[arg(long)]
    name: Option<String>,

    /// A capability that it publishes; may be repeated
    #[arg(long = "capability", value_name = "NAME")]
    capabilities: Vec<String>,

    /// An attribute that it publishes; may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,

    /// What it presents to the gateway's policy alone; better given in the variable
    /// CONEXUS_CREDENTIALS. Sent over TLS or loopback only
    #[arg(long, value_name = "TEXT")]
    credentials: Option<String>,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    shown: Shown,

    /// Do not check the signatures of other agents
    #[arg(long)]
    no_verify: bool,

    /// Print messages as they came, one a line
    #[arg(long)]
    pub(super) json: bool,
}

/// Why the agent did not get through.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Tls(#[from] TlsOptionsError),
    #[error("the gateway at {url} did not take us")]
    Connect { url: String, source: ConnectError },
    #[error("the gateway cannot be asked for that")]
    Watch(#[source] SendError),
    #[error("the message was not sent")]
    Send(#[source] SendError),
    #[error("{0} is no type of message")]
    Type(String),
    #[error("--payload is no payload of {kind}")]
    Payload { kind: MessageType, source: Malformed },
    #[error("the gateway does not tell its ICE servers")]
    Http(#[source] HttpError),
    #[error("the connection is lost for good")]
    Lost,
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

impl Options {
    /// A client that is not connected yet. Its errors go to standard error.
    pub(super) fn client(&self) -> Result<Client, AgentError> {
        let identity = match &self.key {
            Some(path) => keyfile::open(path)?,
            None => Identity::generate(),
        };
        let mut builder = Client::builder(&self.url, identity)
            .verify_incoming(!self.no_verify)
            .metadata(Metadata {
                name: self.name.clone(),
                capabilities: self.capabilities.clone(),
                attributes: self.attributes.iter().cloned().collect(),
            })
            .reconnect(ReconnectPolicy { max_attempts: 0, ..ReconnectPolicy::default() });
        let given = self.credentials.clone();
        let credentials = given.or_else(|| std::env::var(CREDENTIALS_VARIABLE).ok());
        let publishes =
            self.name.is_some() || !self.capabilities.is_empty() || !self.attributes.is_empty();
        if publishes || credentials.is_some() {
            // The older one carries neither, and the gateway would be asked without them.
            builder = builder.min_protocol(Subprotocol::V1_1);
        }
        if let Some(text) = credentials {
            builder = builder.credentials(text);
        }
        if let Some(path) = &self.trust.ca {
            builder = builder.root_certificate_pem(tls_options::read("--ca", path)?);
        }
        if let (Some(chain), Some(key)) = (&self.shown.client_cert, &self.shown.client_key) {
            let chain = tls_options::read("--client-cert", chain)?;
            builder = builder.client_certificate(chain, tls_options::read("--client-key", key)?);
        }
        let client = builder.build().map_err(|source| self.connect_error(source))?;
        client.on_error(|error| {
            eprintln!("{}", harmless(&with_causes(error)));
        });
        Ok(client)
    }

    pub(super) async fn connect(&self, client: &mut Client) -> Result<(), AgentError> {
        client.connect().await.map_err(|source| self.connect_error(source))
    }

    fn connect_error(&self, source: ConnectError) -> AgentError {
        AgentError::Connect { url: self.url.clone(), source }
    }

    /// Prints a message: as it came, or type, sender and payload.
    pub(super) fn print(&self, message: &Message) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", message.text)?;
        } else {
            let payload = serde_json::to_string(&message.payload)?;
            let line = format!("{} from {}: {payload}", message.kind(), message.from);
            writeln!(out, "{}", harmless(&line))?;
        }
        out.flush()
    }
}

fn attribute(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("no \"=\"; expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// An error and what led to it, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
