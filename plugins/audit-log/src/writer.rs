//! The thread that writes.

use std::{io, thread};

use conexus_plugin_api::Host;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    file::LogFile,
    queue::{Lines, Queue},
};

/// Lines are written together until they have this many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// The writer, and the way to it. Its end is that of its queue.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Queue,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start(
        file: LogFile,
        (queue, lines): (Queue, Lines),
        host: Host,
    ) -> io::Result<Self> {
        let thread = thread::Builder::new().name("audit-log".into());
        let thread = thread.spawn(move || write(file, &lines, &host))?;
        Ok(Self { queue, thread })
    }

    pub(crate) fn push(&self, line: String) -> bool {
        self.queue.push(line)
    }

    /// Writes what is in the queue, and ends.
    pub(crate) fn finish(self) {
        drop(self.queue);
        // It panicked or it did not; either way it has ended.
        let _ = self.thread.join();
    }
}

fn write(mut file: LogFile, lines: &Lines, host: &Host) {
    let mut buffer = Vec::with_capacity(BATCH_BYTES);
    let mut failing = false;
    loop {
        buffer.clear();
        let count = lines.take(&mut buffer, BATCH_BYTES);
        let dropped = lines.dropped();
        if dropped > 0 {
            let at = Timestamp::from_millisecond(host.now_ms()).unwrap_or_default();
            let line = json!({"at": at.to_string(), "dropped": dropped});
            buffer.extend_from_slice(format!("{line}\n").as_bytes());
        }
        if count == 0 && buffer.is_empty() {
            return;
        }
        // Said once, not for every batch while a disk is full.
        match file.append(&buffer) {
            Ok(()) if failing => host.info("the audit log is written again"),
            Ok(()) => {}
            Err(error) => {
                if !failing {
                    host.error(format!("the audit log cannot be written: {error}"));
                }
                let _ = host.metric("lost", i64::try_from(count).unwrap_or(i64::MAX));
                failing = true;
                continue;
            }
        }
        failing = false;
    }
}
