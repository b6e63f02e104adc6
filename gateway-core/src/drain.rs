//! The graceful stop, from the first "not ready" to the last close frame.
//!
//! First whoever sends agents here is given time to notice; then agents are told to go, one after the
//! other, while the rest are served as ever; then all that remains stops at once, in the order that
//! loses no message: nobody is read any more, what is queued is written, what cannot be written is
//! refused while its senders are still here, everybody is closed with 1012. `gateway` calls it; the
//! sessions follow the [`Phase`]s.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use conexus_protocol::{CloseReason, RefusalReason};
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    config::Settings,
    core::{Core, millis},
    phase::Phase,
    session::farewell::reconnect_hint,
    world::dismiss,
};

/// Into how many equal parts the time to quiesce and to close is divided: for decisions, mailboxes, what is
/// queued, what cannot be written, and the closing.
const PARTS: u32 = 5;

/// After the abort, sessions end as soon as they are polled.
const AFTER_ABORT: Duration = Duration::from_secs(1);

/// The longest that an agent is told to stay away: clients of ours wait no longer.
const LONGEST_RETURN: Duration = Duration::from_secs(300);

/// How long a stop may take altogether.
pub(crate) fn limit(settings: &Settings) -> Duration {
    settings.server.drain_delay + settings.server.drain_timeout
}

/// See the [module](self).
pub(crate) async fn drain(core: &Core, sessions: &TaskTracker, abort: &CancellationToken) {
    let server = &core.settings.server;
    let (delay, spread) = (server.drain_delay, server.drain_spread);
    let agents = core.router.presence.online();
    let back_within = plan_return(core, agents);
    info!(agents, ?delay, ?spread, within = ?server.drain_timeout, ?back_within, "stopping");

    if !delay.is_zero() {
        core.enter(Phase::Unready);
        sleep(delay).await;
    }
    let deadline = *core.stop_by.get_or_init(|| Instant::now() + server.drain_timeout);
    if !spread.is_zero() {
        core.enter(Phase::Departing);
        see_off(core, spread).await;
    }
    quiesce(core, deadline).await;
    core.enter(Phase::Closing);
    sessions.close();
    if timeout_at(deadline, sessions.wait()).await.is_err() {
        warn!(sessions = sessions.len(), "not all sessions ended in time, cutting them off");
        abort.cancel();
        let _ = timeout(AFTER_ABORT, sessions.wait()).await;
    }
}

/// Decides over which span agents are told to come back: it is longer for many of them, so that
/// whoever takes them in has at most `server.reconnect_rate` to register in a second.
fn plan_return(core: &Core, agents: usize) -> Duration {
    let server = &core.settings.server;
    let agents = u32::try_from(agents).unwrap_or(u32::MAX);
    let needed = match server.reconnect_rate {
        0 => Duration::ZERO,
        rate => Duration::from_secs(1).saturating_mul(agents) / rate,
    };
    let span = server.reconnect_spread.max(needed.min(LONGEST_RETURN));
    core.return_within.store(millis(span), Relaxed);
    span
}

/// Tells the agents to go, in no order but evenly over a time. Each writes what is queued for it first;
/// those who remain are read and written to as ever.
async fn see_off(core: &Core, spread: Duration) {
    let mut sessions = core.router.presence.sessions();
    sessions.shuffle(&mut rand::rng());
    let (begun, count) = (Instant::now(), sessions.len());
    let last = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    for (left, session) in (0..).zip(sessions) {
        // A timer is as fine as a millisecond: of many agents a few go at once.
        sleep_until(begun + spread.mul_f64(f64::from(left) / f64::from(last))).await;
        dismiss(&session, CloseReason::Restarting, &reconnect_hint(core));
    }
    sleep_until(begun + spread).await;
    debug!(told = count, "agents were told to go");
}

/// Has nothing more come in, and all that did come to its end while everybody is still here. Each of
/// its steps has a part of the time; the last part is for what comes behind it, the closing.
async fn quiesce(core: &Core, deadline: Instant) {
    let step = deadline.saturating_duration_since(Instant::now()) / PARTS;
    core.enter(Phase::Quiescing);
    core.readers.close();
    if timeout(step, core.readers.wait()).await.is_err() {
        warn!(sessions = core.readers.len(), "decisions still pending, stopping all the same");
    }
    // Nobody comes back to fetch it from this gateway; its senders are still here to be told.
    for routed in core.router.presence.empty_mailboxes() {
        // Each refusal is signed. When time runs short they are counted, and no longer told.
        if Instant::now() < deadline - step * 3 {
            core.router.refuse(routed, RefusalReason::Draining);
            tokio::task::yield_now().await;
        }
    }
    core.writers.close();
    let written = async {
        if timeout(step, core.writers.wait()).await.is_err() {
            warn!(sessions = core.writers.len(), "agents do not take what is queued for them");
            core.enter(Phase::Settling);
            let _ = timeout(step, core.writers.wait()).await;
        }
    };
    // Other nodes say meanwhile what became of what is under way to them.
    tokio::join!(written, core.router.settle_afar(step));
}
