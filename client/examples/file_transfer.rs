//! Two agents hand a file over, from one to the other: the gateway introduces them and sees none of it.
//!
//! ```text
//! cargo run -p conexus-client --features p2p --example file_transfer -- receive [FOLDER]
//! cargo run -p conexus-client --features p2p --example file_transfer -- send DID FILE
//! ```
//!
//! `receive` prints its DID, and puts what it is sent into the folder (this one, if none is named), never over a file
//! that is there. `--once` ends it after the first file. The gateway is that of `CONEXUS_URL`.
//!
//! A channel for each file: first a text, `{"name", "bytes"}`; then the bytes; then a text, `{"sha256"}`. The
//! receiver answers `{"error"}`, which is null if all of it is written and the sums agree.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use conexus_client::{
    AcceptOptions, Channel, ChannelMessage, ChannelOptions, Client, Identity, Peer, PeerOptions,
    ReconnectPolicy,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

const DEFAULT_URL: &str = "ws://127.0.0.1:8000/ws";
const LABEL: &str = "file";
/// So many bytes a message: large enough to be quick, small enough to show how it goes.
const CHUNK: usize = 64 * 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt::init();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let once = arguments.iter().position(|argument| argument == "--once");
    let once = once.map(|at| arguments.remove(at)).is_some();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["receive"] => receive(Path::new("."), once).await,
        ["receive", folder] => receive(Path::new(folder), once).await,
        ["send", did, file] => send(did, Path::new(file)).await,
        _ => bail!("usage: receive [FOLDER] [--once] | send DID FILE"),
    }
}

/// An agent with a new key, connected.
async fn connect() -> anyhow::Result<Client> {
    let url = std::env::var("CONEXUS_URL").unwrap_or_else(|_| DEFAULT_URL.into());
    let client = Client::builder(&url, Identity::generate())
        .reconnect(ReconnectPolicy { max_attempts: 0, ..ReconnectPolicy::default() })
        .connect()
        .await
        .with_context(|| format!("no connection to {url}"))?;
    client.on_error(|error| eprintln!("{error}"));
    Ok(client)
}

// ---- Sending ------------------------------------------------------------------------------------------

async fn send(did: &str, path: &Path) -> anyhow::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context("a file has a name")?;
    let file = File::open(path).await.with_context(|| format!("{}", path.display()))?;
    let bytes = file.metadata().await?.len();

    let client = connect().await?;
    let peer = client.connect_peer(did, PeerOptions::default()).await?;
    if let Some(pair) = peer.stats().await.pair {
        eprintln!("connected: {} to {}", pair.local.as_str(), pair.remote.as_str());
    }
    let channel = peer.open_channel(LABEL, ChannelOptions::default()).await?;
    let sent = send_content(&channel, file, name, bytes).await;
    // Whoever does not take it says why and closes the channel, in the middle of it as well.
    let verdict = text(&channel).await;
    if let Ok(Some(error)) = verdict.as_ref().map(|verdict| verdict["error"].as_str()) {
        bail!("the other side did not take it: {error}");
    }
    sent?;
    verdict?;
    println!("{name}: {bytes} bytes handed over");
    peer.close().await;
    client.close().await;
    Ok(())
}

async fn send_content(
    channel: &Channel,
    mut file: File,
    name: &str,
    bytes: u64,
) -> anyhow::Result<()> {
    channel.send(json!({ "name": name, "bytes": bytes }).to_string()).await?;
    let (mut sum, mut progress) = (Sha256::new(), Progress::of(name, bytes));
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        if chunk.is_empty() {
            break;
        }
        sum.update(&chunk);
        progress.add(chunk.len());
        // Waits while more than 1 MiB is unsent, so the file is read no faster than it goes.
        channel.send(chunk).await?;
    }
    channel.send(json!({ "sha256": hex(&sum.finalize()) }).to_string()).await?;
    progress.end();
    Ok(())
}

// ---- Receiving ----------------------------------------------------------------------------------------

async fn receive(folder: &Path, once: bool) -> anyhow::Result<()> {
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let client = connect().await?;
    let mut peers = client.accept_peers(AcceptOptions::new());
    println!("{}", client.did());
    let (done, mut first) = tokio::sync::mpsc::channel(1);
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            peer = peers.recv() => {
                let peer = peer.context("the client has ended")?;
                let (folder, done) = (folder.to_owned(), done.clone());
                tokio::spawn(async move { take_all(peer, &folder, done).await });
            }
            _ = first.recv(), if once => break,
            interrupted = &mut interrupted => {
                interrupted?;
                break;
            }
        }
    }
    client.close().await;
    Ok(())
}

/// One file after the other, as long as the peer is there.
async fn take_all(peer: Peer, folder: &Path, done: tokio::sync::mpsc::Sender<()>) {
    let mut channels = peer.channels();
    while let Some(channel) = channels.recv().await {
        let outcome = take(&channel, folder).await;
        let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        match &outcome {
            Ok(path) => println!("{} from {}", path.display(), peer.did()),
            Err(error) => eprintln!("not taken from {}: {error:#}", peer.did()),
        }
        // Whoever is gone does not need to know.
        let _ = channel.send(json!({ "error": error }).to_string()).await;
        channel.close().await;
        let _ = done.try_send(());
    }
}

/// Where the file is, once it is whole.
async fn take(channel: &Channel, folder: &Path) -> anyhow::Result<PathBuf> {
    ensure!(channel.label() == LABEL, "a channel {:?}", channel.label());
    let head = text(channel).await?;
    let name = head["name"].as_str().and_then(plain_name).context("that is no file's name")?;
    let bytes = head["bytes"].as_u64().context("bytes: missing")?;
    let path = folder.join(name);
    // Fails where there is one.
    let file = OpenOptions::new().write(true).create_new(true).open(&path).await;
    let file = file.with_context(|| format!("{name} cannot be written"))?;
    let written = write(channel, file, name, bytes).await;
    if written.is_err() {
        // Half a file is none.
        fs::remove_file(&path).await.with_context(|| format!("{name} is half there"))?;
    }
    written.map(|()| path)
}

async fn write(channel: &Channel, mut file: File, name: &str, bytes: u64) -> anyhow::Result<()> {
    let (mut sum, mut progress) = (Sha256::new(), Progress::of(name, bytes));
    let told = loop {
        match channel.recv().await.context("the channel has ended")?? {
            ChannelMessage::Binary(chunk) => {
                ensure!(progress.done + chunk.len() as u64 <= bytes, "longer than it should be");
                sum.update(&chunk);
                file.write_all(&chunk).await?;
                progress.add(chunk.len());
            }
            ChannelMessage::Text(text) => break serde_json::from_str::<Value>(&text)?,
        }
    };
    file.sync_all().await?;
    progress.end();
    ensure!(progress.done == bytes, "{} bytes of {bytes}", progress.done);
    ensure!(told["sha256"] == hex(&sum.finalize()), "the sums disagree");
    Ok(())
}

/// A name without a way to anywhere.
fn plain_name(name: &str) -> Option<&str> {
    let is_plain = Path::new(name).file_name().is_some_and(|plain| plain == name);
    (is_plain && !name.contains(['/', '\\'])).then_some(name)
}

/// The next message, which is to be JSON.
async fn text(channel: &Channel) -> anyhow::Result<Value> {
    let message = channel.recv().await.context("the channel has ended")??;
    let text = message.as_text().context("bytes where a text was due")?;
    Ok(serde_json::from_str(text)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// ---- Progress -----------------------------------------------------------------------------------------

/// How far a file is, on standard error where somebody reads that.
struct Progress {
    name: String,
    bytes: u64,
    done: u64,
    began: Instant,
    shown: Option<Instant>,
}

impl Progress {
    fn of(name: &str, bytes: u64) -> Self {
        Self { name: name.to_owned(), bytes, done: 0, began: Instant::now(), shown: None }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_millis(100)) {
            self.shown = Some(Instant::now());
            self.show("\r");
        }
    }

    fn end(&self) {
        self.show("\n");
    }

    fn show(&self, end: &str) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let share = (self.done * 100).checked_div(self.bytes).unwrap_or(100);
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds / 1e6;
        eprint!("{}: {share:3} % of {} bytes, {rate:.1} MB/s  {end}", self.name, self.bytes);
        let _ = std::io::stderr().flush();
    }
}
