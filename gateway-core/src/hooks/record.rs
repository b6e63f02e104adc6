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
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use conexus_plugin_api::{
    Answer,
    host::{Connect, Event},
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

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
    /// Which node of a cluster decided; older logs, and what was decided before the gateway had a name,
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Arc<str>>,
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
    node: OnceLock<Arc<str>>,
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
        let lost = Arc::clone(&dropped);
        let writer = thread::Builder::new()
            .name("conexus-decisions".into())
            .spawn(move || write(file, &records, &lost))?;
        Ok(Some(Self { queue, node: OnceLock::new(), dropped, writer: Some(writer) }))
    }

    /// Whose decisions these are, from now on.
    pub(crate) fn name(&self, node: Option<Arc<str>>) {
        if let Some(node) = node {
            let _ = self.node.set(node);
        }
    }

    pub(crate) fn record(&self, mut record: DecisionRecord) {
        record.node = self.node.get().cloned();
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(record)
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Decisions that were not recorded, for want of room: in the queue, or on the disk.
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

fn write(mut file: LogFile, records: &Receiver<DecisionRecord>, dropped: &AtomicU64) {
    let mut outage = Outage::default();
    loop {
        let before = dropped.load(Relaxed);
        let done = match records.recv_timeout(FLUSH_AFTER) {
            Ok(record) => file.append(&record).inspect_err(|_| {
                dropped.fetch_add(1, Relaxed);
            }),
            Err(RecvTimeoutError::Timeout) => file.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(error) = file.flush() {
                    dropped.fetch_add(file.unwritten(), Relaxed);
                    let file = file.path.display();
                    warn!(%file, %error, "the last decisions are not recorded");
                }
                return;
            }
        };
        dropped.fetch_add(std::mem::take(&mut file.lost), Relaxed);
        outage.follow(&file, done, [before, dropped.load(Relaxed)]);
    }
}

/// While the file takes nothing, as when the disk is full: said when it begins and when it is over,
/// however often it is tried.
#[derive(Default)]
struct Outage(Option<Failing>);

struct Failing {
    failed: Instant,
    /// What the file had taken by then.
    taken: u64,
    /// What had not been recorded before.
    dropped: u64,
}

impl Outage {
    /// It is over when something was written and nothing has failed for this long.
    const QUIET: Duration = Duration::from_secs(1);

    /// `dropped`: before it was tried, and after that.
    fn follow(&mut self, file: &LogFile, done: io::Result<()>, dropped: [u64; 2]) {
        let (path, taken, now) = (file.path.display(), file.taken(), Instant::now());
        match (done, &mut self.0) {
            (Err(error), None) => {
                self.0 = Some(Failing { failed: now, taken, dropped: dropped[0] });
                warn!(file = %path, %error, "decisions are not recorded");
            }
            (Err(_), Some(failing)) => (failing.failed, failing.taken) = (now, taken),
            (Ok(()), Some(failing)) => {
                if taken > failing.taken && now - failing.failed >= Self::QUIET {
                    let lost = dropped[1] - failing.dropped;
                    info!(file = %path, lost, "decisions are recorded again");
                    self.0 = None;
                }
            }
            (Ok(()), None) => {}
        }
    }
}

/// Where lines go; it knows what was taken of them.
struct Sink {
    out: Box<dyn io::Write + Send>,
    taken: u64,
    /// The last byte that was taken ended no line.
    within_a_line: bool,
}

impl Sink {
    fn new(out: Box<dyn io::Write + Send>, taken: u64) -> Self {
        Self { out, taken, within_a_line: false }
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.taken += count as u64;
        if let Some(last) = bytes[..count].last() {
            self.within_a_line = *last != b'\n';
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct LogFile {
    path: PathBuf,
    max_bytes: u64,
    bytes: u64,
    dirty: bool,
    /// The last line may have been cut short, by a crash or a full disk.
    cut: bool,
    /// Records that were given up and not counted yet.
    lost: u64,
    out: BufWriter<Sink>,
}

impl LogFile {
    fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self::over(path, max_bytes, bytes, Box::new(file)))
    }

    fn over(path: &Path, max_bytes: u64, bytes: u64, out: Box<dyn io::Write + Send>) -> Self {
        let out = BufWriter::new(Sink::new(out, 0));
        Self { path: path.to_owned(), max_bytes, bytes, dirty: false, cut: bytes > 0, lost: 0, out }
    }

    fn taken(&self) -> u64 {
        self.out.get_ref().taken
    }

    /// Records that are in the buffer yet.
    fn unwritten(&self) -> u64 {
        lines(self.out.buffer())
    }

    fn append(&mut self, record: &DecisionRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        if self.cut {
            self.out.write_all(b"\n")?;
            self.cut = false;
        }
        // A line that does not fit the buffer goes past it, and may be taken in part.
        let may_be_cut = line.len() >= self.out.capacity();
        self.out.write_all(&line).inspect_err(|_| self.cut = may_be_cut)?;
        self.bytes += line.len() as u64;
        self.dirty = true;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        let older = PathBuf::from(older);
        match self.flush() {
            // The place of the older file is what makes room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && older.exists() => {}
            flushed => flushed?,
        }
        match std::fs::rename(&self.path, older) {
            // Put aside the last time, when no new one could be opened; or by somebody else.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        let sink = Sink::new(Box::new(append_to(&self.path)?), self.taken());
        let (full, unwritten) = std::mem::replace(&mut self.out, BufWriter::new(sink)).into_parts();
        let mut unwritten = unwritten.unwrap_or_default();
        if full.within_a_line
            && let Some(end) = unwritten.iter().position(|byte| *byte == b'\n')
        {
            // Its beginning is in the older file.
            unwritten.drain(..=end);
            self.lost += 1;
        }
        (self.bytes, self.cut) = (unwritten.len() as u64, false);
        self.dirty = !unwritten.is_empty();
        self.out.write_all(&unwritten)
    }

    /// What could not be written stays to be written.
    fn flush(&mut self) -> io::Result<()> {
        if self.dirty {
            self.out.flush()?;
            self.dirty = false;
        }
        Ok(())
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
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
            node: None,
            trace: None,
            event: Event::Tick,
            steps: Vec::new(),
            ruling: "pass".into(),
        }
    }

    #[test]
    fn a_record_names_its_node_and_one_without_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let settings =
            TelemetrySettings { decision_log: Some(path.clone()), ..TelemetrySettings::default() };
        let recorder = Recorder::open(&settings).unwrap().unwrap();
        recorder.record(record(1));
        recorder.name(Some("node-a".into()));
        recorder.record(record(2));
        drop(recorder);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.lines().next().unwrap().contains("node"), "{text}");
        let nodes = text.lines().map(|line| serde_json::from_str::<DecisionRecord>(line).unwrap());
        let nodes: Vec<_> = nodes.map(|record| record.node.as_deref().map(str::to_owned)).collect();
        assert_eq!(nodes, [None, Some("node-a".to_owned())]);
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

    /// Takes so many bytes and no more, until it is given more room.
    #[derive(Clone, Default)]
    struct Disk(Arc<parking_lot::Mutex<(Vec<u8>, usize)>>);

    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (taken, room) = &mut *self.0.lock();
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(*room);
            *room -= count;
            taken.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_whole_records_and_what_comes_after_it_is_whole() {
        // Small lines go through the buffer, large ones past it.
        for large in [false, true] {
            let ruling = if large { "x".repeat(20_000) } else { String::new() };
            let record = |n| DecisionRecord { ruling: ruling.clone(), ..record(n) };
            let disk = Disk::default();
            disk.0.lock().1 = 50_001;
            let mut file =
                LogFile::over(Path::new("decisions"), u64::MAX, 0, Box::new(disk.clone()));
            let mut lost = 0;
            for n in 0..1000 {
                lost += u32::from(file.append(&record(n)).is_err());
            }
            assert!(lost > 0 && file.flush().is_err() && file.flush().is_err(), "it is still full");
            disk.0.lock().1 = usize::MAX;
            file.append(&record(1000)).unwrap();
            file.flush().unwrap();
            let text = String::from_utf8(disk.0.lock().0.clone()).unwrap();
            let whole: Vec<_> = text
                .lines()
                .filter_map(|line| serde_json::from_str::<DecisionRecord>(line).ok())
                .map(|record| record.time_ms)
                .collect();
            assert_eq!(whole.len(), 1001 - lost as usize);
            assert_eq!(whole.last(), Some(&1000));
            assert!(whole.is_sorted());
        }
    }

    #[test]
    fn a_file_on_a_full_disk_is_put_aside_where_an_older_one_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let older = folder.path().join("decisions.jsonl.1");
        std::fs::write(&path, "").unwrap();
        let disk = Disk::default();
        // The first record and half of the next one.
        let length = serde_json::to_vec(&record(0)).unwrap().len() + 1;
        disk.0.lock().1 = length * 3 / 2;
        let most = length as u64 * 3;
        let mut file = LogFile::over(&path, most, 0, Box::new(disk.clone()));
        for n in 0..3 {
            file.append(&record(n)).unwrap();
        }
        assert!(file.flush().is_err());
        assert!(file.append(&record(3)).is_err(), "there is no older one");
        assert_eq!(file.unwritten(), 2, "a part and a whole one");
        std::fs::write(&older, "x").unwrap();
        file.append(&record(4)).unwrap();
        file.flush().unwrap();
        assert_eq!(file.lost, 1, "the one that was cut");
        let text = std::fs::read_to_string(&path).unwrap();
        let times: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<DecisionRecord>(line).unwrap().time_ms)
            .collect();
        assert_eq!(times, [2, 4]);
    }

    #[test]
    fn a_file_that_could_not_be_opened_anew_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let mut file = LogFile::open(&path, 1).unwrap();
        file.append(&record(0)).unwrap();
        file.flush().unwrap();
        // As far as it comes while no file descriptor is left.
        std::fs::rename(&path, folder.path().join("decisions.jsonl.1")).unwrap();
        file.append(&record(1)).unwrap();
        file.flush().unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"time_ms\":1"));
    }

    #[test]
    fn headers_that_may_carry_secrets_and_queries_are_left_out() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let event = Event::Connect(Arc::new(Connect {
            address: ([127, 0, 0, 1], 1).into(),
            path: "/ws".into(),
            query: "token=sesame".into(),
            headers: vec![pair("authorization", "Bearer sesame"), pair("host", "a.example")],
            tls: None,
            connection: None,
        }));
        let json = serde_json::to_string(&redacted(&event)).unwrap();
        assert!(!json.contains("sesame") && json.contains("a.example"), "{json}");
    }
}
