//! What this process takes of the machine, as `/proc` shows it. Elsewhere than on Linux: nothing.

/// The process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessUsage {
    /// Seconds on a processor, ever.
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) virtual_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) open_fds: u64,
    /// The soft limit; 0 where there is none or it is not known.
    pub(crate) max_fds: u64,
    /// When it started, in Unix seconds.
    pub(crate) started_at: f64,
}

impl ProcessUsage {
    /// As it is now. To read it takes a file; where there is none left the last reading stands, with
    /// all files open.
    pub(crate) fn read(last: &Self) -> Self {
        Self::now().unwrap_or(Self { open_fds: last.max_fds, ..*last })
    }
}

#[cfg(target_os = "linux")]
impl ProcessUsage {
    /// As it is now; none where it cannot be read.
    fn now() -> Option<Self> {
        use procfs::{WithCurrentSystemInfo as _, process::Process};

        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks = procfs::ticks_per_second();
        let max_fds =
            process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
                procfs::process::LimitValue::Value(limit) => Some(limit),
                procfs::process::LimitValue::Unlimited => None,
            });
        let booted = procfs::boot_time_secs().unwrap_or_default();
        Some(Self {
            cpu_seconds: seconds(stat.utime + stat.stime, ticks),
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            threads: u64::try_from(stat.num_threads).unwrap_or_default(),
            open_fds: open_fds(&process),
            max_fds: max_fds.unwrap_or_default(),
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
            started_at: booted as f64 + seconds(stat.starttime, ticks),
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl ProcessUsage {
    /// Nothing is known here.
    fn now() -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "ticks of one process")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second.max(1) as f64
}

/// Kernels since 6.2 tell it as the folder's size; before that its entries are counted, which with
/// ten thousand of them takes some milliseconds.
#[cfg(target_os = "linux")]
fn open_fds(process: &procfs::process::Process) -> u64 {
    match std::fs::metadata("/proc/self/fd").map(|folder| folder.len()) {
        Ok(count) if count > 0 => count,
        _ => process.fd_count().map(|count| count as u64).unwrap_or_default(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something_of_everything() {
        let usage = ProcessUsage::read(&ProcessUsage::default());
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads >= 1 && usage.open_fds >= 3 && usage.max_fds >= usage.open_fds);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - usage.started_at;
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
