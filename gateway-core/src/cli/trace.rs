//! `conexus trace`: one agent, followed live; and recordings of that, drawn as a sequence diagram.
//!
//! `follow` reads the stream of events and writes lines, `event` knows what is in them, `diagram`
//! draws them. There is no payload in any of it: the gateway does not tell them.

mod diagram;
mod event;
mod follow;
mod stream;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use conexus_protocol::AgentKey;
use url::Url;

use self::event::Event;
use super::{
    control::{self, ControlError},
    tls_options::{TlsOptionsError, Trust},
};
use crate::config::Sources;

#[derive(clap::Args)]
pub(super) struct Options {
    /// The agent to follow
    #[arg(value_name = "DID", required_unless_present = "diagram", conflicts_with = "diagram",
        value_parser = agent)]
    agent: Option<Agent>,

    /// Only what passes between it and this agent
    #[arg(long, value_name = "DID", requires = "agent", value_parser = agent)]
    with: Option<Agent>,

    /// Also append the events to this file, which --diagram reads
    #[arg(long, value_name = "FILE", requires = "agent")]
    record: Option<PathBuf>,

    /// Print the events as lines of JSON
    #[arg(long, requires = "agent")]
    json: bool,

    /// The gateway's admin listener; without it, the address in the configuration
    #[arg(long, value_name = "URL", value_parser = control::admin_url)]
    admin: Option<Url>,

    /// A file with the token that the admin listener asks for; without it, the environment variable
    /// CONEXUS_ADMIN_TOKEN if it is set
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    trust: Trust,

    /// Draw a recording as a sequence diagram, instead of following anybody
    #[arg(long, value_name = "FILE")]
    diagram: Option<PathBuf>,

    /// Draw only what passed between these two
    #[arg(long, value_names = ["DID", "DID"], num_args = 2, requires = "diagram",
        value_parser = agent)]
    between: Vec<Agent>,

    /// How many characters wide the diagram may be; without it, COLUMNS of the environment, or 100
    #[arg(long, value_name = "CHARACTERS", value_parser = clap::value_parser!(u16).range(40..=i64::from(MAX_WIDTH)))]
    width: Option<u16>,
}

/// How wide a diagram may be, in characters.
const USUAL_WIDTH: u16 = 100;
const MAX_WIDTH: u16 = 1000;

/// An agent as it was named on the command line.
#[derive(Clone, Debug)]
struct Agent {
    did: String,
    key: AgentKey,
}

fn agent(did: &str) -> Result<Agent, String> {
    let key = AgentKey::parse_did(did).map_err(|error| error.to_string())?;
    Ok(Agent { did: did.to_owned(), key })
}

/// Why nothing could be followed or drawn.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The admin listener could not be asked, or refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Whom to trust is not clear.
    #[error(transparent)]
    Tls(#[from] TlsOptionsError),
    /// The admin listener took the request, and nothing came of it.
    #[error("the admin listener does not answer")]
    Silent,
    /// The recording cannot be read or written.
    #[error("{path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing in the recording that could be drawn.
    #[error("{0} has no event that could be drawn")]
    Empty(PathBuf),
    /// What the stream sent was no event.
    #[error("the stream of events is none: {0}")]
    Stream(&'static str),
    /// Ctrl-C could not be waited for.
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    /// Printing failed.
    #[error("cannot print")]
    Print(#[from] io::Error),
}

pub(super) async fn trace(options: &Options, sources: &Sources) -> Result<ExitCode, TraceError> {
    match (&options.agent, &options.diagram) {
        (Some(agent), _) => follow::follow(agent, options, sources).await,
        (None, Some(path)) => draw(path, options),
        (None, None) => Ok(ExitCode::FAILURE),
    }
}

fn draw(path: &Path, options: &Options) -> Result<ExitCode, TraceError> {
    let fault = |source| TraceError::File { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(fault)?);
    let (mut events, mut unreadable) = (Vec::new(), 0);
    for line in file.lines() {
        let line = line.map_err(fault)?;
        match serde_json::from_str::<Event>(&line) {
            Ok(event) => events.push(event),
            Err(_) if line.trim().is_empty() => {}
            Err(_) => unreadable += 1,
        }
    }
    if let [one, other] = &options.between[..] {
        events.retain(|event| event.is_between(one.key, other.key));
    }
    if unreadable > 0 {
        writeln!(io::stderr(), "{unreadable} lines are no events, and left out")?;
    }
    if events.is_empty() {
        return Err(TraceError::Empty(path.to_owned()));
    }
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let width = options.width.or_else(columns).unwrap_or(USUAL_WIDTH).min(MAX_WIDTH);
    let diagram = diagram::draw(&events, usize::from(width));
    io::stdout().lock().write_all(diagram.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
