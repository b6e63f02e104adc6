//! `conexus load`: puts load on a gateway and tells how it fares.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use conexus_protocol::Subprotocol;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    signals::Signals,
    tls_options::{Shown, TlsOptionsError, Trust},
};
use crate::load::{self, LoadError, Mode, Plan, Report, Signing};

/// How long the load is measured unless the user says. `idle` measures memory, and needs none.
const SECONDS: Duration = Duration::from_secs(10);
const WARMUP: Duration = Duration::from_secs(2);

/// The most agents, pairs or messages under way that make sense on one machine.
const MANY: u64 = 1_000_000;

#[derive(clap::Args)]
pub(super) struct Options {
    /// What kind of load
    #[arg(value_enum)]
    mode: Mode,

    /// The gateway, such as ws://127.0.0.1:8000/ws; over TLS with wss://
    url: String,

    /// Another node of its cluster, and again for further ones: agents go to all of them in turn, so
    /// that the two of a pair are on different nodes
    #[arg(long, value_name = "URL")]
    node: Vec<String>,

    /// What is spoken
    #[arg(long, value_enum, default_value = "v1.1", value_name = "PROTOCOL")]
    protocol: Protocol,

    /// route, rate: how many pairs of a sender and a receiver
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = many())]
    pairs: u64,

    /// route, fanin: messages of one sender that are under way at once
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = many())]
    window: u64,

    /// Size of a message: the text of an OFFER, filled up to so many bytes
    #[arg(long, default_value_t = 1500, value_name = "BYTES", value_parser = many())]
    bytes: u64,

    /// rate: messages per second, all pairs together. register, churn: no more registrations per
    /// second than this
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    rate: Option<f64>,

    /// idle, fanin, churn: how many agents, receivers of fanin aside [default: 1000, 50, 100].
    /// register: how many keys, used in turn [default: 10000]
    #[arg(long, value_name = "COUNT", value_parser = many())]
    agents: Option<u64>,

    /// How many connections are being set up at once
    #[arg(long, default_value_t = 32, value_name = "COUNT", value_parser = many())]
    concurrency: u64,

    /// How long the load is measured [default: 10; idle: 0]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,

    /// How long the load runs before that [default: 2; idle: 0]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warmup: Option<Duration>,

    /// The gateway's process on this machine, whose processor time and memory are reported; again for
    /// further ones, which are reported together and each
    #[arg(long)]
    pid: Vec<u32>,

    /// Send messages without a signature. Otherwise each is signed, once, beforehand
    #[arg(long)]
    unsigned: bool,

    /// Come from so many addresses, 127.0.0.1 and following; one has about 28000 ports. For a
    /// gateway on loopback
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=254))]
    sources: Option<u8>,

    /// idle: afterwards every agent receives one message, and memory is read again
    #[arg(long)]
    idle_message: bool,

    /// idle: every agent watches this one, and is told when it comes and goes; takes v1.1
    #[arg(long, value_name = "DID")]
    watch: Option<String>,

    /// idle: memory is read once it has been at rest for so long
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    settle: Duration,

    /// Threads of the generator [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// The URL that v1.1 registrations name, where it is not the one dialed (server.public_urls)
    #[arg(long, value_name = "URL")]
    audience: Option<String>,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    shown: Shown,

    /// Write the result as JSON to a file, or to standard output ("-") in place of the table
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,

    /// Draw the latencies by percentile
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Say nothing until the result is there
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Protocol {
    #[value(name = "v1")]
    V1,
    #[value(name = "v1.1")]
    V1_1,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadCommandError {
    #[error(transparent)]
    Tls(#[from] TlsOptionsError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot print")]
    Print(#[from] io::Error),
}

pub(super) async fn load(options: Options) -> Result<ExitCode, LoadCommandError> {
    let (json, svg) = (options.json.clone(), options.svg.clone());
    let interrupt = CancellationToken::new();
    let signals = Signals::catch().map_err(LoadCommandError::Signals)?;
    let _interrupting = AbortOnDropHandle::new(tokio::spawn({
        let interrupt = interrupt.clone();
        async move {
            signals.stop_requested(CancellationToken::new()).await;
            interrupt.cancel();
        }
    }));
    let report = load::run(options.plan()?, interrupt).await?;
    if let Some(path) = &svg {
        write(path, &load::plot(&report))?;
    }
    print(&report, json.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn plan(self) -> Result<Plan, TlsOptionsError> {
        let measures_time = self.mode != Mode::Idle;
        let or = |default: Duration| if measures_time { default } else { Duration::ZERO };
        // Bounded by `many`, or fit any machine that this runs on.
        let size = |count: u64| count as usize;
        let cores = || thread::available_parallelism().map_or(1, Into::into);
        Ok(Plan {
            tls: self.trust.config(&self.shown)?,
            mode: self.mode,
            url: self.url,
            further: self.node,
            audience: self.audience,
            protocol: match self.protocol {
                Protocol::V1 => Subprotocol::V1,
                Protocol::V1_1 => Subprotocol::V1_1,
            },
            pairs: size(self.pairs),
            window: size(self.window),
            bytes: size(self.bytes),
            signing: if self.unsigned { Signing::Unsigned } else { Signing::Signed },
            rate: self.rate,
            agents: self.agents.map(size),
            concurrency: size(self.concurrency),
            seconds: self.seconds.unwrap_or(or(SECONDS)),
            warmup: self.warmup.unwrap_or(or(WARMUP)),
            settle: self.settle,
            idle_message: self.idle_message,
            watch: self.watch.clone(),
            pids: self.pid,
            sources: self.sources,
            threads: self.threads.map_or_else(cores, usize::from),
            quiet: self.quiet,
        })
    }
}

/// The table to standard output, and the JSON where it is wanted.
fn print(report: &Report, json: Option<&Path>) -> Result<(), LoadCommandError> {
    let text = || serde_json::to_string_pretty(report).map_err(io::Error::from);
    let mut out = io::stdout().lock();
    match json {
        Some(path) if path == Path::new("-") => writeln!(out, "{}", text()?)?,
        Some(path) => {
            write(path, &(text()? + "\n"))?;
            write!(out, "{report}")?;
        }
        None => write!(out, "{report}")?,
    }
    Ok(out.flush()?)
}

fn write(path: &Path, content: &str) -> Result<(), LoadCommandError> {
    fs::write(path, content)
        .map_err(|source| LoadCommandError::Write { path: path.to_owned(), source })
}

fn many() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=MANY)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= Duration::from_secs(24 * 3600))
        .ok_or_else(|| "not between 0 and a day".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e7 => Ok(rate),
        _ => Err("not a rate between 0 and 10000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(line: &str) -> Result<Plan, clap::Error> {
        Line::try_parse_from(format!("load {line}").split(' '))
            .map(|line| line.options.plan().unwrap())
    }

    #[test]
    fn what_is_not_said_suits_the_mode() {
        let route = plan("route ws://h/ws").unwrap();
        assert_eq!((route.seconds, route.warmup), (SECONDS, WARMUP));
        assert_eq!((route.protocol, route.signing), (Subprotocol::V1_1, Signing::Signed));
        assert_eq!((route.pairs, route.window, route.bytes), (50, 1, 1500));
        let idle = plan("idle ws://h/ws --protocol v1 --settle 0.5 --unsigned").unwrap();
        assert_eq!((idle.seconds, idle.warmup), (Duration::ZERO, Duration::ZERO));
        assert_eq!((idle.protocol, idle.signing), (Subprotocol::V1, Signing::Unsigned));
        assert_eq!(idle.settle, Duration::from_millis(500));
        let nodes =
            plan("rate ws://a/ws --node ws://b/ws --node ws://c/ws --pid 1 --pid 2").unwrap();
        assert_eq!((&*nodes.url, &*nodes.further.join(" ")), ("ws://a/ws", "ws://b/ws ws://c/ws"));
        assert_eq!(nodes.pids, [1, 2]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "route",
            "flood ws://h/ws",
            "route ws://h/ws --protocol v2",
            "route ws://h/ws --pairs 0",
            "route ws://h/ws --seconds -1",
            "route ws://h/ws --seconds soon",
            "rate ws://h/ws --rate 0",
            "rate ws://h/ws --rate NaN",
            "idle ws://h/ws --sources 255",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
