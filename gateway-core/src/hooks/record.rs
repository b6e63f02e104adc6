//! The decision log: what was asked, what each hook said, what came of it.
//!
//! A line of JSON per decision, appended by a thread of its own; the data path only hands it over,
//! and never waits: what does not fit the queue is dropped and counted. Headers that may carry
//! secrets, queries and credentials are left out.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use conexus_plugin_api::{
    Answer,
    host::{Connect, Event},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::tape::Read;
use crate::{
    config::{Mode, TelemetrySettings},
    telemetry::trace::TraceId,
};

/// What stands in place of a value that is left out.
pub(crate) const REDACTED: &str = "<redacted>";

/// Headers whose values say nothing secret. All others are left out; so is the list of subprotocols,
/// since browsers have no other place for a token.
pub(crate) const PUBLIC_HEADERS: [&str; 6] =
    ["connection", "host", "origin", "sec-websocket-version", "upgrade", "user-agent"];

/// Decisions that may wait to be written.
const QUEUE: usize = 2048;
/// A quiet file is flushed after this.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// One decision, or one event that observers were told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DecisionRecord {
    /// Unix milliseconds.
    pub(crate) time_ms: i64,
    pub(crate) generation: u64,
    /// The trace of the message that it was about; older logs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<TraceId>,
    pub(crate) event: Event,
    pub(crate) steps: Vec<StepRecord>,
    /// What it came to, in words.
    pub(crate) ruling: String,
}

/// One hook's part in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    pub(crate) hook: String,
    pub(crate) mode: Mode,
    /// What it answered, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<Answer>,
    /// How it failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<FaultRecord>,
    pub(crate) micros: u64,
    /// What it read from the gateway, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reads: Vec<Read>,
    /// Whether the same hook would say the same again, given the event and the reads.
    pub(crate) replayable: bool,
}

impl StepRecord {
    /// Of a hook in shadow mode whose answer was not waited for.
    pub(crate) fn aside(entry: &super::chain::Entry) -> Self {
        Self {
            hook: entry.instance.name.to_string(),
            mode: entry.mode,
            answer: None,
            fault: None,
            micros: 0,
            reads: Vec::new(),
            replayable: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultRecord {
    pub(crate) kind: String,
    pub(crate) message: String,
}

/// The same event without what is nobody's business.
pub(crate) fn redacted(event: &Event) -> Event {
    let Event::Connect(connect) = event else { return event.clone() };
    let public = |name: &str| PUBLIC_HEADERS.contains(&name);
    let headers = connect.headers.iter().map(|(name, value)| {
        (name.clone(), if public(name) { value.clone() } else { REDACTED.to_owned() })
    });
    Event::Connect(Arc::new(Connect {
        headers: headers.collect(),
        query: if connect.query.is_empty() { String::new() } else { REDACTED.to_owned() },
        ..Connect::clone(connect)
    }))
}

/// See the [module](self).
pub(crate) struct Recorder {
    queue: SyncSender<DecisionRecord>,
    dropped: Arc<AtomicU64>,
    writer: Option<thread::JoinHandle<()>>,
}

impl Recorder {
    /// Opens the file that the settings name, if they do.
    pub(crate) fn open(settings: &TelemetrySettings) -> io::Result<Option<Self>> {
        let Some(path) = &settings.decision_log else { return Ok(None) };
        let file = LogFile::open(path, settings.decision_log_bytes as u64)?;
        let (queue, records) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = thread::Builder::new()
            .name("conexus-decisions".into())
            .spawn(move || write(file, &records))?;
        Ok(Some(Self { queue, dropped, writer: Some(writer) }))
    }

    pub(crate) fn record(&self, record: DecisionRecord) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(record)
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Decisions that were not recorded, for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The writer ends with the queue.
        let (closed, _) = sync_channel(1);
        self.queue = closed;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(mut file: LogFile, records: &Receiver<DecisionRecord>) {
    let mut broken = false;
    loop {
        let done = match records.recv_timeout(FLUSH_AFTER) {
            Ok(record) => file.append(&record),
            Err(RecvTimeoutError::Timeout) => file.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = file.flush();
                return;
            }
        };
        match done {
            Err(error) if !broken => {
                broken = true;
                warn!(file = %file.path.display(), %error, "decisions are not recorded");
            }
            Err(_) => {}
            Ok(()) => broken = false,
        }
    }
}

struct LogFile {
    path: PathBuf,
    max_bytes: u64,
    bytes: u64,
    dirty: bool,
    out: BufWriter<File>,
}

impl LogFile {
    fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut file = append_to(path)?;
        let bytes = file.metadata()?.len();
        // The last line may have been cut short, by a crash or a full disk.
        if bytes > 0 {
            file.write_all(b"\n")?;
        }
        let (path, out) = (path.to_owned(), BufWriter::new(file));
        Ok(Self { path, max_bytes, bytes, dirty: false, out })
    }

    fn append(&mut self, record: &DecisionRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.out.write_all(&line)?;
        self.bytes += line.len() as u64;
        self.dirty = true;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.flush()?;
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&self.path, older)?;
        self.out = BufWriter::new(append_to(&self.path)?);
        self.bytes = 0;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.dirty) {
            self.out.flush()?;
        }
        Ok(())
    }
}

/// For its owner's eyes: it tells who talks to whom.
fn append_to(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: i64) -> DecisionRecord {
        DecisionRecord {
            time_ms: n,
            generation: 1,
            trace: None,
            event: Event::Tick,
            steps: Vec::new(),
            ruling: "pass".into(),
        }
    }

    #[test]
    fn records_are_lines_of_json_and_full_files_are_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let settings = TelemetrySettings {
            decision_log: Some(path.clone()),
            decision_log_bytes: 200,
            ..TelemetrySettings::default()
        };
        let recorder = Recorder::open(&settings).unwrap().unwrap();
        for n in 0..4 {
            recorder.record(record(n));
        }
        drop(recorder);
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            let lines =
                text.lines().map(|line| serde_json::from_str::<DecisionRecord>(line).unwrap());
            lines.map(|record| record.time_ms).collect::<Vec<_>>()
        };
        let older = read(&folder.path().join("decisions.jsonl.1"));
        let newer = read(&path);
        assert!(!newer.is_empty() && !older.is_empty());
        assert_eq!(newer.last(), Some(&3));
    }

    #[test]
    fn headers_that_may_carry_secrets_and_queries_are_left_out() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let event = Event::Connect(Arc::new(Connect {
            address: ([127, 0, 0, 1], 1).into(),
            path: "/ws".into(),
            query: "token=sesame".into(),
            headers: vec![pair("authorization", "Bearer sesame"), pair("host", "a.example")],
            connection: None,
        }));
        let json = serde_json::to_string(&redacted(&event)).unwrap();
        assert!(!json.contains("sesame") && json.contains("a.example"), "{json}");
    }
}
