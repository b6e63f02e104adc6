//! WATCH and UNWATCH: whom an agent wants to be told of.
//!
//! A list is taken as a whole or not at all; then policy is asked about each agent on it, and the
//! answers are PRESENCE for those who may be watched, an ERROR for each of the others. Nothing of
//! what is said about an agent that may not be watched depends on whether it is there. All of it is
//! one of the session's decisions that take time, since a list is long and each answer is signed. But
//! nothing in it is anybody's message: it is given up with its session, and takes no longer than a
//! lease.

use std::{collections::HashMap, future::poll_fn, sync::Arc, task::Poll};

use conexus_plugin_api::{Agent, Point, host};
use conexus_protocol::{AgentKey, Envelope, ErrorCode, RefusalReason, Unwatch, Watch};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::yield_now,
    time::timeout,
};
use tracing::debug;

use super::{
    active::{Active, Ended},
    handle::SessionHandle,
};
use crate::{
    cluster::Cluster,
    core::Core,
    hooks::{Judge, Ruling},
    phase::Phase,
    router::Router,
    voice::Complaint,
    watching::{
        change::{Spelling, Teller},
        elsewhere::Expected,
        watcher::Told,
    },
};

/// How many agents on a list are seen to before other tasks get their turn, where no hook is asked.
const AT_ONCE: usize = 8;

/// One agent on a list.
struct Wanted {
    key: AgentKey,
    did: String,
    /// Its place on the list, counted from 0: how it is named, since an ERROR repeats no DID.
    place: usize,
}

impl Wanted {
    fn member(&self) -> String {
        member(self.place)
    }
}

fn member(place: usize) -> String {
    format!("payload.dids[{place}]")
}

/// The agents on a list, each once: by its last spelling, at its first place. Or the place of what
/// is no DID.
fn read(dids: Vec<String>) -> Result<Vec<Wanted>, usize> {
    let mut all: Vec<Wanted> = Vec::with_capacity(dids.len());
    let mut known = HashMap::with_capacity(dids.len());
    for (place, did) in dids.into_iter().enumerate() {
        let key = AgentKey::parse_did(&did).map_err(|_| place)?;
        match known.get(&key) {
            Some(index) => {
                let earlier: &mut Wanted = &mut all[*index];
                earlier.did = did;
            }
            None => {
                known.insert(key, all.len());
                all.push(Wanted { key, did, place });
            }
        }
    }
    Ok(all)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Active<S> {
    pub(super) fn watch(&mut self, envelope: &Envelope<'_>) -> Option<Ended> {
        let dids = envelope.payload().map(|Watch { dids }| dids).unwrap_or_default();
        let wanted = match read(dids) {
            Ok(wanted) => wanted,
            Err(place) => return self.no_did(envelope, place),
        };
        let most = self.core.settings.limits.watches;
        if self.handle.watcher.count_with(wanted.iter().map(|wanted| wanted.key)) > most {
            self.core.router.telemetry.watches.refused.count("limit");
            debug!(agent = %self.handle.agent, most, "would watch more than limits.watches");
            self.answer(envelope, &over_the_limit(most));
            return None;
        }
        if !wanted.is_empty() {
            let id = envelope.id.clone().into_owned();
            let (core, watcher) = (Arc::clone(&self.core), Arc::clone(&self.handle));
            self.pending = Some(Box::pin(while_wanted(core, watcher, id, wanted)));
        }
        None
    }

    pub(super) fn unwatch(&self, envelope: &Envelope<'_>) -> Option<Ended> {
        let dids = envelope.payload().map(|Unwatch { dids }| dids).unwrap_or_default();
        match read(dids) {
            Ok(unwanted) => {
                for Wanted { key, .. } in unwanted {
                    self.core.router.presence.unwatch(key, &self.handle);
                }
                None
            }
            Err(place) => self.no_did(envelope, place),
        }
    }

    fn no_did(&self, envelope: &Envelope<'_>, place: usize) -> Option<Ended> {
        let complaint = Complaint::new(ErrorCode::MalformedMessage, "not the DID of an agent");
        self.bad_message(Some(&envelope.id), &complaint.about(&member(place)))
    }

    /// Puts what could not be told before into the outbox; whether that was anything.
    pub(super) fn settle_presence(&self) -> bool {
        let SessionHandle { watcher, outbox, .. } = &*self.handle;
        let router = &self.core.router;
        let told = watcher.settle(outbox, teller(router));
        router.telemetry.watches.told(Told { told, coalesced: 0 });
        told > 0
    }
}

/// Nothing of the list was taken.
fn over_the_limit(most: usize) -> Complaint {
    let refusal = Complaint::refusal(RefusalReason::QueueFull);
    let message = format!("at most {most} agents may be watched");
    Complaint { message, ..refusal }.about("payload.dids").with("limit", most.to_string())
}

/// Sees to a list for as long as anybody reads the answers: neither the next session of the key nor a
/// gateway that stops waits for a hook that takes its time.
async fn while_wanted(
    core: Arc<Core>,
    watcher: Arc<SessionHandle>,
    id: String,
    wanted: Vec<Wanted>,
) {
    let mut followed = Box::pin(follow(&core, &watcher, &id, &wanted));
    poll_fn(|cx| match watcher.watcher.has_ended() || core.phase() >= Phase::Quiescing {
        true => Poll::Ready(()),
        false => followed.as_mut().poll(cx),
    })
    .await;
}

/// Watches the agents on a list that policy lets the watcher follow, and answers for each of them.
async fn follow(core: &Core, watcher: &Arc<SessionHandle>, id: &str, wanted: &[Wanted]) {
    let router = &core.router;
    let judge = router.policy.judge();
    let asks = judge.asks(Point::Watch);
    let keys: Vec<_> = wanted.iter().map(|wanted| wanted.key).collect();
    // Until they are watched, or not.
    let _expected = core.cluster.as_ref().map(|_| Expected::new(&router.presence, &keys));
    let elsewhere = match &core.cluster {
        Some(cluster) => look_elsewhere(cluster, router, &keys, asks).await,
        None => HashMap::new(),
    };
    // Nothing is read meanwhile, and the lease stands still.
    let until = core.clock.now().after(core.settings.presence.timeout);
    for (index, wanted) in wanted.iter().enumerate() {
        if index > 0 && (asks || index % AT_ONCE == 0) {
            yield_now().await;
        }
        let ruling = match asks {
            true if core.clock.now() >= until => Err(RefusalReason::PolicyError.into()),
            true => ask(core, Arc::clone(&judge), watcher, wanted, &elsewhere).await,
            false => Ok(()),
        };
        match ruling {
            Ok(()) => grant(router, watcher, wanted),
            Err(denial) => {
                // An earlier judge may have granted it.
                router.presence.unwatch(wanted.key, watcher);
                router.telemetry.watches.refused.count(denial.reason.as_str());
                let complaint = Complaint::denial(&denial).about(&wanted.member());
                let to = watcher.agent.as_str();
                watcher.outbox.reply(router.voice.error(to, Some(id), &complaint));
            }
        }
    }
}

/// Has it known where agents of other nodes are, and tells what the directory knows of them if it is
/// `asked`. Where the cluster is away, nobody is elsewhere.
async fn look_elsewhere(
    cluster: &Cluster,
    router: &Router,
    keys: &[AgentKey],
    asked: bool,
) -> HashMap<AgentKey, Arc<Agent>> {
    let within = cluster.settings.takeover_timeout;
    cluster.follows.know(&router.presence.watches, keys, within).await;
    if !asked {
        return HashMap::new();
    }
    match timeout(within, cluster.find(keys)).await {
        Ok(Ok(places)) => {
            let found = keys.iter().zip(places);
            found.filter_map(|(key, place)| Some((*key, place?.agent))).collect()
        }
        Ok(Err(_)) | Err(_) => HashMap::new(),
    }
}

async fn ask(
    core: &Core,
    judge: Arc<dyn Judge>,
    watcher: &SessionHandle,
    wanted: &Wanted,
    elsewhere: &HashMap<AgentKey, Arc<Agent>>,
) -> Ruling<()> {
    let here = core.router.presence.facts(wanted.key, core.clock.now());
    let event = host::Watch {
        agent: watcher.facts(),
        did: wanted.did.clone(),
        target: here.or_else(|| elsewhere.get(&wanted.key).cloned()),
        connection: Some(Arc::clone(&watcher.connection)),
    };
    judge.on_watch(Arc::new(event)).settled().await
}

fn grant(router: &Router, watcher: &Arc<SessionHandle>, wanted: &Wanted) {
    let spelling = Spelling::of(&wanted.did, wanted.key);
    if !watcher.watcher.begin(wanted.key, spelling) {
        return;
    }
    let latest = router.presence.watch(wanted.key, watcher);
    let told = watcher.watcher.tell_anew(&watcher.outbox, &latest, teller(router));
    router.telemetry.watches.told(told);
}

fn teller(router: &Router) -> Teller<'_> {
    Teller { voice: &router.voice }
}
