//! Claims: an agent that registered here is put down in the directory, and the session that it had
//! on another node ends.
//!
//! The directory decides which of two registrations is the newer one. `session::handshake` waits for
//! what came of it; when the engine is away it does not wait, and the agent is put down later, as of
//! when it proved its key.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use conexus_protocol::AgentKey;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::{
    Cluster, Joined, Station,
    backplane::{Claim, Claimed},
    delivery::questions::Unanswered,
    frame::{Answer, KeyBytes, Question},
    ids::{Epoch, MemberId},
};
use crate::{
    core::Core,
    session::{handle::SessionHandle, outbox::Order},
};

/// Why an agent left whose end came while it was being put down.
const CLOSED: &str = "closed";

/// How often an agent is put down against what earlier sessions of it left. Once more is nearly always
/// enough.
const ATTEMPTS: usize = 3;

/// Whose an agent is, as far as this node can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// This node's.
    Here,
    /// Another node's: its registration there is the newer one.
    Elsewhere,
}

/// Puts an agent down whose session holds its key here. What was begun of that is finished also if
/// nobody waits for it any more: the session elsewhere must end all the same.
pub(crate) async fn place(
    core: &Arc<Core>,
    cluster: &Arc<Cluster>,
    session: &Arc<SessionHandle>,
) -> Placed {
    let age = session.connected_at.until(core.clock.now());
    let placing = claim(Arc::clone(core), Arc::clone(cluster), Arc::clone(session), age);
    match cluster.spawn(placing).await {
        Ok(placed) => placed.unwrap_or(Placed::Here),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Placed::Here,
        },
    }
}

/// The same for a session that has been running for a while; it ends if the agent is elsewhere.
pub(super) async fn place_running(
    core: Arc<Core>,
    cluster: Arc<Cluster>,
    session: Arc<SessionHandle>,
    age: Duration,
) {
    if claim(core, cluster, Arc::clone(&session), age).await == Placed::Elsewhere {
        session.outbox.order(Order::Move);
    }
}

async fn claim(
    core: Arc<Core>,
    cluster: Arc<Cluster>,
    session: Arc<SessionHandle>,
    age: Duration,
) -> Placed {
    let key = session.agent.key();
    let tally = &cluster.tally.claims;
    let Ok(joined) = cluster.joined() else {
        tally.put_off.one();
        cluster.ledger.claim(key);
        return Placed::Here;
    };
    if !cluster.is_trusted() {
        // The others may have buried this member, and nobody does so twice. It comes back as another one,
        // which announces whoever is here.
        tally.put_off.one();
        return Placed::Here;
    }
    let mut age = age;
    for _ in 0..ATTEMPTS {
        match ask(&core, &cluster, &joined, &session, age).await {
            ControlFlow::Break(placed) => {
                cluster.claimed.notify_waiters();
                return placed;
            }
            ControlFlow::Continue(since) => age = since,
        }
    }
    // It is looked up once more.
    cluster.ledger.unsure(key);
    cluster.claimed.notify_waiters();
    Placed::Here
}

/// Asks the directory to put a session down; then whose the agent is, or the age with which to ask again.
async fn ask(
    core: &Arc<Core>,
    cluster: &Arc<Cluster>,
    joined: &Joined,
    session: &Arc<SessionHandle>,
    age: Duration,
) -> ControlFlow<Placed, Duration> {
    let (presence, key) = (&core.router.presence, session.agent.key());
    let tally = &cluster.tally.claims;
    if !presence.claiming(session) {
        return ControlFlow::Break(Placed::Here);
    }
    let claim = Claim { member: joined.member, agent: session.facts(), age };
    let asked = Instant::now();
    match joined.link.claim(&claim).await {
        Ok(Claimed::Won { epoch, before }) => {
            granted(core, cluster, session, epoch);
            if !cluster.joined().is_ok_and(|now| now.member == joined.member) {
                // What that member left may have been cleared before this was carried out.
                cluster.ledger.unsure(key);
            }
            if !Arc::ptr_eq(&claim.agent, &session.facts()) {
                cluster.ledger.describe(key);
            }
            match before {
                Some((member, _)) if !cluster.is_own(member) => {
                    take_over(core, cluster, joined, member, key, epoch).await;
                }
                _ => tally.won.one(),
            }
            ControlFlow::Break(Placed::Here)
        }
        // A claim of this node's own was faster.
        Ok(Claimed::Lost { to, epoch }) if is_kept(core, joined, session, to, epoch) => {
            granted(core, cluster, session, epoch);
            cluster.ledger.describe(key);
            tally.won.one();
            ControlFlow::Break(Placed::Here)
        }
        Ok(Claimed::Lost { to, .. }) if cluster.is_own(to) => {
            presence.claim_failed(key, session.id);
            if holds(core, session) {
                // What is down will be given back. The agent is here all the same: as of this question,
                // since whoever registers elsewhere after it has the newer one.
                return ControlFlow::Continue(asked.elapsed());
            }
            // It is somebody else's, who gives it back in time.
            tally.won.one();
            ControlFlow::Break(Placed::Here)
        }
        Ok(Claimed::Lost { to, epoch }) => {
            presence.claim_failed(key, session.id);
            tally.lost.one();
            debug!(agent = %session.agent, node = %cluster.name(to), %epoch, "a newer registration is on another node");
            ControlFlow::Break(Placed::Elsewhere)
        }
        Err(away) => {
            presence.claim_failed(key, session.id);
            tally.put_off.one();
            debug!(agent = %session.agent, %away, "not put down in the directory yet");
            cluster.ledger.unsure(key);
            cluster.ledger.claim(key);
            ControlFlow::Break(Placed::Here)
        }
    }
}

fn holds(core: &Core, session: &SessionHandle) -> bool {
    let holder = core.router.presence.holder(session.agent.key());
    holder.is_some_and(|holder| holder.id == session.id)
}

/// Whether what is down for a session's key, with this member and epoch, stays there while the session
/// holds the key. What is down for an earlier tenure, or for a member that this process was before, is
/// given back sooner or later: nobody else may go by it.
pub(super) fn is_kept(
    core: &Core,
    joined: &Joined,
    session: &SessionHandle,
    member: MemberId,
    epoch: Epoch,
) -> bool {
    let tenure = core.router.presence.tenure(session.agent.key());
    let newest = tenure.and_then(|tenure| tenure.newest());
    member == joined.member && newest == Some(epoch) && holds(core, session)
}

/// The directory has put a session down with this epoch.
pub(super) fn granted(core: &Core, cluster: &Cluster, session: &SessionHandle, epoch: Epoch) {
    let (presence, key) = (&core.router.presence, session.agent.key());
    session.set_epoch(epoch);
    // Whoever asks which of two registrations is the newer one is not to wait for an older one's end.
    cluster.claimed.notify_waiters();
    if !presence.set_epoch(key, session.id, epoch) {
        cluster.ledger.release(key, epoch, CLOSED);
        if presence.holder(key).is_some() {
            // The claim of whoever holds the key now may have come before.
            cluster.ledger.claim(key);
        }
    } else if presence.holder(key).is_some_and(|holder| holder.id > session.id) {
        // Its own claim may have been faster, and is the one that counts.
        cluster.ledger.claim(key);
    }
}

/// Has the session end that an agent had on another member. Where that member does not answer it is asked
/// again until its lease is over, so that it gets nothing more; and where that is no sure end either,
/// behind the back of whoever waits.
async fn take_over(
    core: &Arc<Core>,
    cluster: &Arc<Cluster>,
    joined: &Joined,
    from: MemberId,
    key: AgentKey,
    epoch: Epoch,
) {
    let tally = &cluster.tally.claims;
    if !cluster.counts(from).await {
        return tally.won.one();
    }
    let began = Instant::now();
    let unanswered = loop {
        match demand(core, from, key, epoch).await {
            // It listens, and may go on any time as if nothing had happened: until its lease is over.
            Some(Err(Unanswered::TimedOut(..)))
                if began.elapsed() < cluster.settings.lease && cluster.counts(from).await => {}
            Some(Err(unanswered)) => break unanswered,
            Some(Ok(())) | None => return tally.took_over.one(),
        }
    };
    if !cluster.counts(from).await {
        return tally.won.one();
    }
    tally.unyielded.one();
    if let Some(more) = cluster.unyielded.due() {
        let (agent, node) = (key.did(), cluster.name(from));
        warn!(
            agent, node, member = %joined.member, %unanswered, more,
            "the older session on another node may not have ended yet"
        );
    }
    insist(core, cluster, from, key, epoch);
}

/// Has the session end that an agent had on another member, however long that takes: that it is over
/// is certain only once that member has said so, or counts no more. What it has it announces anew
/// before it counts again.
pub(super) fn insist(
    core: &Arc<Core>,
    cluster: &Arc<Cluster>,
    from: MemberId,
    key: AgentKey,
    epoch: Epoch,
) {
    let (core, insisting) = (Arc::clone(core), Arc::clone(cluster));
    cluster.spawn(async move {
        let cluster = insisting;
        let mut station = cluster.station.subscribe();
        loop {
            // Who is apart reaches nobody.
            let joined = station.wait_for(|station| matches!(station, Station::Joined(_))).await;
            if joined.map(drop).is_err() || !cluster.counts(from).await {
                return;
            }
            match demand(&core, from, key, epoch).await {
                Some(Err(_)) => sleep(cluster.settings.takeover_timeout).await,
                Some(Ok(())) => return cluster.tally.claims.took_over.one(),
                None => return,
            }
        }
    });
}

/// Asks another member to end its session of an agent, for a registration with this epoch. None where
/// this node asks nobody anything.
async fn demand(
    core: &Core,
    from: MemberId,
    key: AgentKey,
    epoch: Epoch,
) -> Option<Result<(), Unanswered>> {
    let question = Question::Yield { key: *key.as_bytes(), epoch };
    Some(core.router.presence.delivery()?.ask(from, question).await.map(drop))
}

/// Answers [`Question::Yield`]: the session here ends, unless it is the newer one after all.
pub(crate) async fn give_way(core: &Core, key: KeyBytes, epoch: Epoch) -> Answer {
    let Some(cluster) = &core.cluster else { return Answer::Nothing };
    let patience = cluster.settings.takeover_timeout;
    let given = timeout(patience, ended(core, cluster, AgentKey::from_bytes(key), epoch)).await;
    given.unwrap_or(Answer::Nothing)
}

async fn ended(core: &Core, cluster: &Cluster, key: AgentKey, epoch: Epoch) -> Answer {
    loop {
        let claimed = cluster.claimed.notified();
        let mut claimed = std::pin::pin!(claimed);
        claimed.as_mut().enable();
        let Some(session) = core.router.presence.holder(key) else { return Answer::Yielded };
        match session.epoch() {
            Some(own) if own >= epoch => return Answer::Nothing,
            Some(_) => {
                // Where something else was asked of it already, it ends for that.
                session.outbox.order(Order::Move);
                session.released().await;
            }
            // Which of the two is newer is being asked in this moment.
            None => tokio::select! {
                () = claimed => {}
                () = session.released() => {}
            },
        }
    }
}

/// Asks where agents are whose claims a link took along when it failed, now that it is certain that
/// nothing comes of those any more, and sets right what they left.
pub(super) async fn verify(
    core: &Arc<Core>,
    cluster: &Arc<Cluster>,
    joined: &Joined,
    keys: &[AgentKey],
) -> Result<(), super::backplane::Away> {
    let asked = Instant::now();
    let found = joined.link.find(keys).await?;
    for (key, entry) in keys.iter().zip(found) {
        match (core.router.presence.holder(*key), entry) {
            // It has registered elsewhere, and the end of the session here was not asked for, or in vain.
            (Some(session), Some(entry)) if !cluster.is_own(entry.member) => {
                if session.epoch().is_some_and(|own| own < entry.epoch) {
                    session.outbox.order(Order::Move);
                }
            }
            (Some(session), Some(entry))
                if entry.member == joined.member && session.epoch() == Some(entry.epoch) => {}
            (Some(session), _) => {
                // As of now: whoever registered elsewhere since has the newer one.
                let (core, cluster) = (Arc::clone(core), Arc::clone(cluster));
                let age = asked.elapsed();
                cluster.clone().spawn(place_running(core, cluster, session, age));
            }
            (None, Some(entry)) if cluster.is_own(entry.member) => {
                let (key, epoch) = (*key, entry.epoch);
                let release = super::backplane::Release { key, epoch, reason: CLOSED };
                joined.link.release(entry.member, &[release]).await?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}
