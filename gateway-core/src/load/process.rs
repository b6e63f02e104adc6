//! A process as `/proc` shows it: processor time by thread, in nanoseconds, and resident memory.
//!
//! A thread that ended takes its time with it, so a [`Meter`] is read several times and keeps what
//! it has seen. Where the kernel counts no nanoseconds, the process's ticks are read instead.

use std::{collections::HashMap, fs, io, path::PathBuf, time::Duration};

/// A tick of `/proc/PID/stat`: USER_HZ is 100 on every architecture that the gateway is built for.
const TICK: Duration = Duration::from_millis(10);

/// Why a process cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("there is no process {pid} to watch (--pid)")]
pub struct NoProcess {
    pid: u32,
    source: io::Error,
}

/// A process that was there.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pid: u32,
    folder: PathBuf,
}

impl Process {
    pub(crate) fn find(pid: u32) -> Result<Self, NoProcess> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        match fs::read_to_string(folder.join("stat")) {
            Ok(_) => Ok(Self { pid, folder }),
            Err(source) => Err(NoProcess { pid, source }),
        }
    }

    /// This process.
    pub(super) fn own() -> Option<Self> {
        Self::find(std::process::id()).ok()
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Resident memory in bytes; `None` when it has ended.
    pub(super) fn resident(&self) -> Option<u64> {
        resident(&fs::read_to_string(self.folder.join("status")).ok()?)
    }

    fn threads(&self) -> Option<HashMap<u32, Duration>> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(self.folder.join("task")).ok()?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A thread may end between the listing and the reading.
            if let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) {
                threads.insert(id, on_cpu(&text)?);
            }
        }
        (!threads.is_empty()).then_some(threads)
    }

    fn ticks(&self) -> Option<Duration> {
        ticks(&fs::read_to_string(self.folder.join("stat")).ok()?)
    }
}

/// Processor time of a process from a moment on.
pub(super) struct Meter {
    process: Process,
    used: Duration,
    last: Last,
}

enum Last {
    Threads(HashMap<u32, Duration>),
    Ticks(Option<Duration>),
}

impl Meter {
    /// Starts at nothing.
    pub(super) fn start(process: Process) -> Self {
        let last = match process.threads() {
            Some(threads) => Last::Threads(threads),
            None => Last::Ticks(process.ticks()),
        };
        Self { process, used: Duration::ZERO, last }
    }

    /// What was used since the start, as far as readings so far could see it.
    pub(super) fn read(&mut self) -> Duration {
        match &mut self.last {
            Last::Threads(last) => {
                if let Some(now) = self.process.threads() {
                    self.used += grown(last, &now);
                    *last = now;
                }
            }
            Last::Ticks(last) => {
                if let (Some(before), Some(now)) = (*last, self.process.ticks()) {
                    self.used += now.saturating_sub(before);
                    *last = Some(now);
                }
            }
        }
        self.used
    }
}

/// What threads used between two readings. One whose time went back is another one with its id.
fn grown(before: &HashMap<u32, Duration>, now: &HashMap<u32, Duration>) -> Duration {
    let since = |(id, time): (&u32, &Duration)| match before.get(id) {
        Some(before) if before <= time => *time - *before,
        _ => *time,
    };
    now.iter().map(since).sum()
}

/// The first number of `schedstat`: nanoseconds on a processor.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// `utime` and `stime` of `stat`, whose second field, the name, may have anything in it.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (field()? + field()?))
}

/// `VmRSS` of `status`.
fn resident(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(on_cpu("40284391 45856462 126\n"), Some(Duration::from_nanos(40_284_391)));
        assert_eq!(on_cpu(""), None);
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 4 0 99 1 2";
        assert_eq!(ticks(stat), Some(Duration::from_secs(3)));
        assert_eq!(ticks("12 (x) S 1"), None);
        assert_eq!(resident("VmHWM:\t 9 kB\nVmRSS:\t   1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident("Name: kernel thread\n"), None);
    }

    #[test]
    fn threads_come_and_go_between_readings() {
        let threads = |list: &[(u32, u64)]| {
            list.iter().map(|(id, ms)| (*id, Duration::from_millis(*ms))).collect()
        };
        let before: HashMap<_, _> = threads(&[(1, 100), (2, 50), (3, 70)]);
        // 1 went on, 2 ended, 3 ended and another took its id, 4 is new.
        let now = threads(&[(1, 130), (3, 5), (4, 7)]);
        assert_eq!(grown(&before, &now), Duration::from_millis(30 + 5 + 7));
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = Process::own().unwrap();
        assert!(own.resident().unwrap() > 1024 * 1024);
        let mut meter = Meter::start(own);
        let mut spent = 0_u64;
        while meter.read().is_zero() {
            spent = (0..1_000_000).fold(spent, u64::wrapping_add);
        }
        assert!(meter.read() < Duration::from_secs(20), "{spent}");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        // Above the kernel's largest.
        let error = Process::find(u32::MAX).unwrap_err();
        assert_eq!(error.to_string(), "there is no process 4294967295 to watch (--pid)");
    }
}
