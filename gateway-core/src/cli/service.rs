//! What a service manager is told of the process, by systemd's protocol (sd_notify(3)): that it is ready,
//! reloads, stops, how many agents there are, and that it is alive.
//!
//! Without `NOTIFY_SOCKET` there is nobody to tell, and nothing is done. `run` calls it.

use std::{io, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use super::run::STOP_PATIENCE;
use crate::gateway::Watch;

/// How often the number of agents is told, where no watchdog asks more often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Service {
    /// None where nobody listens.
    gateway: Option<Watch>,
}

impl Service {
    pub(super) fn new(gateway: Watch) -> Self {
        let listened_to = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        Self { gateway: listened_to.then_some(gateway) }
    }

    /// Agents may come, at the start and after each reload.
    pub(super) fn ready(&self) {
        self.tell(&[NotifyState::Ready], "");
    }

    /// A reload was asked for by the manager, who waits for [`Self::reloaded`].
    pub(super) fn reloading(&self) {
        // Type=notify-reload wants to know whether this is about the signal that it sent just now.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now], "reloading; "),
            Err(error) => warn!(%error, "no monotonic clock for the service manager"),
        }
    }

    /// It is over. One that was refused changed nothing, so the service is ready all the same.
    pub(super) fn reloaded(&self, accepted: bool) {
        if self.gateway.as_ref().is_some_and(Watch::is_stopping) {
            return;
        }
        let remark = if accepted { "" } else { "the last reload was refused, see the log; " };
        self.tell(&[NotifyState::Ready], remark);
    }

    /// The stop has begun, and may take as long as this.
    pub(super) fn stopping(&self, limit: Duration) {
        let limit = limit + 3 * STOP_PATIENCE;
        let micros = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)], "stopping; ");
    }

    /// Tells how many agents there are and, where the manager wants to know, that the gateway is
    /// alive; until dropped. A gateway that is not is restarted by the manager.
    pub(super) async fn keep_telling(self) {
        let Some(gateway) = &self.gateway else { return };
        let watchdog = sd_notify::watchdog_enabled();
        // Half of it, as sd_watchdog_enabled(3) recommends.
        let every = watchdog.map_or(STATUS_EVERY, |limit| (limit / 2).min(STATUS_EVERY));
        let mut ticks = interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticks.tick().await;
            if watchdog.is_some() {
                if timeout(every, gateway.is_alive()).await.is_err() {
                    warn!(
                        "the gateway did not prove to be alive in time, so the watchdog is not told"
                    );
                    continue;
                }
                self.send(&[NotifyState::Watchdog]);
            }
            let agents = gateway.agents();
            if told.replace(agents) != Some(agents) && !gateway.is_stopping() {
                self.tell(&[], "");
            }
        }
    }

    /// Tells something, with a line for people.
    fn tell(&self, states: &[NotifyState<'_>], remark: &str) {
        let Some(gateway) = &self.gateway else { return };
        let agents = match gateway.agents() {
            1 => "1 agent".to_owned(),
            count => format!("{count} agents"),
        };
        let status = format!("{remark}{agents}");
        self.send(&[states, &[NotifyState::Status(&status)]].concat());
    }

    /// A datagram to a socket on this machine: the manager takes it at once.
    fn send(&self, states: &[NotifyState<'_>]) {
        // One that is not running is nobody to tell, and nothing to stop for.
        if self.gateway.is_some()
            && let Err(error) = sd_notify::notify(states)
            && error.kind() != io::ErrorKind::ConnectionRefused
        {
            warn!(%error, "the service manager could not be told");
        }
    }
}
