//! A timer that is finer than the runtime's millisecond, for schedules of many messages a second.

use std::{
    io,
    time::{Duration, Instant},
};

/// Wakes no oftener than this: what is due within it goes out together. It is how late a message
/// may be by the generator's own doing.
pub(super) const TICK: Duration = Duration::from_micros(50);

#[cfg(target_os = "linux")]
pub(super) struct Timer(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Timer {
    /// For tasks of this runtime.
    pub(super) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[allow(
            deprecated,
            reason = "it is about descriptors that are closed while registered; \
                                      this one is owned, and nobody else's"
        )]
        Ok(Self(tokio::io::unix::AsyncFd::new(timer)?))
    }

    pub(super) async fn sleep_until(&mut self, due: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let rest = due.saturating_duration_since(Instant::now()).max(TICK);
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        let once = Itimerspec { it_interval: never, it_value: rest };
        // Setting it takes back an expiry that nobody has read.
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn sleep_until(&mut self, due: Instant) -> io::Result<()> {
        tokio::time::sleep_until(due.max(Instant::now() + TICK).into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_wakes_after_the_time_that_was_asked_for_and_again() {
        let mut timer = Timer::new().unwrap();
        for micros in [0, 300, 2_000] {
            let due = Instant::now() + Duration::from_micros(micros);
            timer.sleep_until(due).await.unwrap();
            assert!(Instant::now() >= due);
        }
    }
}
