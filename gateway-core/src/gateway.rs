//! The composition root: builds a gateway from its settings, runs it, and stops it gracefully.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use conexus_protocol::{AgentKey, Identity};
use futures_util::future::OptionFuture;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::info;

use crate::{
    accounting::{Messages, Taps},
    audience::Audiences,
    bans::Bans,
    clock::Clock,
    cluster::{
        self, Cluster,
        backplane::Backplane,
        delivery::{self, Delivery, questions::Answers},
        redis::RedisBackplane,
    },
    config::Settings,
    core::{Core, millis},
    drain,
    hooks::{EmptyChain, Fixed, Policy, World},
    http::{
        self, App,
        proxies::Proxies,
        serve::{Said, Serving},
    },
    ice::Ice,
    limits::Limits,
    mailbox::MailboxLimits,
    phase::Phase,
    presence::Presence,
    replay::ReplayGuard,
    router::Router,
    telemetry::Telemetry,
    tls::{ServerTls, Side, TlsError},
    voice::Voice,
    watching::telling,
};

/// How long a node that has stopped may take to leave its cluster in order, at the least.
const RETIREMENT: Duration = Duration::from_millis(500);

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// `server.listen`.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The files of `[tls]` are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What `[cluster.redis]` says leads to no engine.
    #[error(transparent)]
    Cluster(Box<dyn std::error::Error + Send + Sync>),
}

/// A gateway that listens, and serves once it is [run](Self::run).
pub struct Gateway {
    core: Arc<Core>,
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl Gateway {
    /// Builds a gateway without hooks and binds its listener.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the files of `[tls]` are of no use.
    pub async fn bind(settings: Arc<Settings>, identity: Identity) -> Result<Self, GatewayError> {
        Self::bind_with_policy(settings, identity, Arc::new(Fixed(Arc::new(EmptyChain)))).await
    }

    /// Builds a gateway whose decisions are somebody's, who is given the gateway to reach it, and
    /// binds its listener.
    ///
    /// # Errors
    /// When the address cannot be listened on, the files of `[tls]` are of no use, or what
    /// `[cluster.redis]` says leads nowhere. That Redis is away is none.
    pub async fn bind_with_policy(
        settings: Arc<Settings>,
        identity: Identity,
        policy: Arc<dyn Policy>,
    ) -> Result<Self, GatewayError> {
        let redis = RedisBackplane::configured(&settings);
        let redis = redis.map_err(|error| GatewayError::Cluster(error.into()))?;
        let backplane = redis.map(|redis| Arc::new(redis) as Arc<dyn Backplane>);
        Self::bind_with_backplane(settings, identity, policy, backplane).await
    }

    /// The same with the engine that a cluster's nodes share.
    pub(crate) async fn bind_with_backplane(
        settings: Arc<Settings>,
        identity: Identity,
        policy: Arc<dyn Policy>,
        backplane: Option<Arc<dyn Backplane>>,
    ) -> Result<Self, GatewayError> {
        let tls = ServerTls::load(&settings)?;
        let address = settings.server.listen;
        let bind_error = |source| GatewayError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let local_addr = listener.local_addr().map_err(bind_error)?;
        let cluster = backplane.map(|engine| Cluster::new(settings.cluster.clone(), engine));
        let cluster = cluster.map(Arc::new);
        let core = Arc::new_cyclic(|itself| {
            let (itself, policy) = (Weak::clone(itself), Arc::clone(&policy));
            core(itself, settings, identity, policy, local_addr, tls, cluster)
        });
        if let Some(delivery) = core.router.presence.delivery() {
            let answers: Arc<dyn Answers> = Arc::clone(&core) as _;
            delivery.answered_by(Arc::downgrade(&answers));
        }
        let world: Arc<dyn World> = Arc::clone(&core) as _;
        policy.serve(Arc::downgrade(&world));
        Ok(Self { core, listener, local_addr })
    }

    /// Where it really listens: port 0 became a free one.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The URL that agents on this machine dial.
    pub fn url(&self) -> String {
        let scheme = if self.core.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.local_addr, http::WS_PATH)
    }

    /// The certificate of the listeners, where they speak TLS.
    pub fn tls(&self) -> Option<Arc<ServerTls>> {
        self.core.tls.clone()
    }

    /// The gateway's own DID.
    pub fn did(&self) -> &str {
        self.core.router.voice.did()
    }

    /// How many hooks decide.
    pub fn hook_count(&self) -> usize {
        self.core.router.policy.hook_count()
    }

    /// A look at the running gateway's counters, for as long as anyone likes.
    pub fn watch(&self) -> Watch {
        Watch { core: Arc::clone(&self.core) }
    }

    /// Serves until `shutdown` resolves, then drains: `/ready` says no, and after
    /// `server.drain_delay` new sessions are refused, what is queued is written, agents are told 1012
    /// with a hint when to come back. What is not done within `server.drain_timeout` is cut off.
    ///
    /// Dropping the future ends everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { core, listener, .. } = self;
        let (abort, stop_serving) = (CancellationToken::new(), CancellationToken::new());
        let _abort_on_drop = abort.clone().drop_guard();
        let _stop_on_drop = stop_serving.clone().drop_guard();
        let (sessions, connections) = (TaskTracker::new(), TaskTracker::new());

        let limit = core.settings.limits.connections;
        let proxies = Arc::new(Proxies::new(&core.settings.http));
        let said = Said::default();
        let app = App {
            core: Arc::clone(&core),
            proxies: Arc::clone(&proxies),
            unreadable: Arc::default(),
            refused: Arc::clone(&said.limits),
            sessions: sessions.clone(),
            abort: abort.clone(),
        };
        // On the runtime's own threads, where the connections are: whoever called this may be on
        // another one, which would have to be woken for each.
        let mut serving = AbortOnDropHandle::new(tokio::spawn(http::serve::serve(
            listener,
            Serving {
                routes: http::routes(app),
                places: (limit > 0)
                    .then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))),
                limits: Arc::clone(&core.limits),
                proxies,
                refusals: Arc::new(Semaphore::new(http::serve::REFUSALS)),
                handshake_timeout: core.settings.limits.handshake_timeout,
                tls: core.tls.clone().map(|tls| (tls, Side::Agents)),
                pulse: Arc::clone(&core.pulse),
                tasks: connections.clone(),
                sessions: Arc::clone(&core.router.telemetry.sessions),
                stop: stop_serving.clone(),
                said,
            },
        )));
        #[cfg(feature = "otlp")]
        let export = crate::telemetry::otlp::Export::start(&core);
        let router = Arc::clone(&core.router);
        let _events = AbortOnDropHandle::new(tokio::spawn(async move {
            let spell = |key: AgentKey| match router.presence.holder(key) {
                Some(session) => session.agent.as_str().to_owned(),
                None => key.did(),
            };
            router.telemetry.hub.serve(spell).await;
        }));
        let router = Arc::clone(&core.router);
        let _expiry =
            AbortOnDropHandle::new(tokio::spawn(async move { router.expire_mail().await }));
        let stopping = async {
            shutdown.await;
            drain::drain(&core, &sessions, &abort).await;
        };
        let mut telling =
            AbortOnDropHandle::new(tokio::spawn(telling::serve(Arc::clone(&core.router))));
        let retire = CancellationToken::new();
        let delivering = core.cluster.is_some().then(|| {
            AbortOnDropHandle::new(tokio::spawn(delivery::serve(Arc::clone(&core.router))))
        });
        let mut delivering = std::pin::pin!(OptionFuture::from(delivering));
        let clustered = core.cluster.clone().map(|cluster| {
            let served = cluster::service::serve(Arc::clone(&core), cluster, retire.clone());
            AbortOnDropHandle::new(tokio::spawn(served))
        });
        let informed = core.cluster.clone().map(|cluster| {
            AbortOnDropHandle::new(tokio::spawn(cluster::keep_informed(Arc::clone(&core), cluster)))
        });
        let mut informed = std::pin::pin!(OptionFuture::from(informed));
        let mut clustered = std::pin::pin!(OptionFuture::from(clustered));
        let served = tokio::select! {
            served = &mut serving => Some(served),
            // It does not end by itself, and without it nobody would be told of anybody any more.
            told = &mut telling => Some(told),
            Some(delivering) = &mut delivering => Some(delivering),
            Some(clustered) = &mut clustered => Some(clustered),
            Some(informed) = &mut informed => Some(informed),
            () = stopping => None,
        };
        stop_serving.cancel();
        let served = match served {
            Some(served) => served,
            None => {
                if let Some(delivery) = core.router.presence.delivery() {
                    // What other nodes are to know of their messages.
                    delivery.flushed(RETIREMENT).await;
                }
                retire.cancel();
                let left =
                    core.stop_by.get().map(|by| by.saturating_duration_since(Instant::now()));
                let _ = timeout(left.unwrap_or_default().max(RETIREMENT), clustered).await;
                // Until then the address is taken.
                serving.await
            }
        };
        if let Err(error) = served
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
        connections.close();
        connections.wait().await;
        #[cfg(feature = "otlp")]
        if let Some(export) = export {
            export.stop().await;
        }
        let Messages { received, delivered, refused, held } =
            core.router.telemetry.messages.snapshot();
        info!(received, delivered, refused, held, "stopped");
    }
}

fn core(
    itself: Weak<Core>,
    settings: Arc<Settings>,
    identity: Identity,
    policy: Arc<dyn Policy>,
    local_addr: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    cluster: Option<Arc<Cluster>>,
) -> Core {
    let clock = Clock::start();
    let telemetry = Arc::new(Telemetry::new(&settings.telemetry));
    let mailbox = &settings.mailbox;
    let limits = MailboxLimits {
        messages_per_agent: mailbox.messages_per_agent,
        bytes_per_agent: mailbox.bytes_per_agent,
        total_bytes: mailbox.total_bytes,
        messages_per_sender: mailbox.messages_per_sender,
    };
    let presence = Presence::new(limits, clock, Arc::clone(&telemetry));
    let presence = match &cluster {
        Some(cluster) => {
            presence.watches.follow_by(Arc::clone(&cluster.follows));
            presence.postroom.follow_by(Arc::clone(&cluster.follows));
            presence.in_cluster(Delivery::new(Arc::clone(cluster), &settings))
        }
        None => presence,
    };
    let (phase, phase_seen) = watch::channel(Phase::Running);
    let node_id = match settings.server.node_id.as_str() {
        "" => identity.key().base58().chars().take(8).collect(),
        name => name.to_owned(),
    };
    let voice = Voice::new(identity);
    let router = Router::new(&settings, presence, telemetry, voice, policy, clock, phase_seen);
    let signatures = &settings.signatures;
    Core {
        itself,
        replay: ReplayGuard::new(
            signatures.max_clock_skew,
            signatures.replay_cache,
            clock.started_at(),
        ),
        audiences: Audiences::new(&settings.server.public_urls, local_addr, tls.is_some()),
        bans: Bans::default(),
        tls,
        cluster,
        limits: Arc::new(Limits::new(&settings.limits)),
        ice: Ice::new(&settings.ice),
        clock,
        router: Arc::new(router),
        node_id,
        phase,
        readers: TaskTracker::new(),
        writers: TaskTracker::new(),
        next_session: 1.into(),
        pulse: Arc::default(),
        return_within: millis(settings.server.reconnect_spread).into(),
        stop_by: OnceLock::new(),
        settings,
    }
}

/// What can be seen of a running gateway from within its process.
#[derive(Clone)]
pub struct Watch {
    core: Arc<Core>,
}

impl Watch {
    pub(crate) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// What became of the messages so far.
    pub fn messages(&self) -> Messages {
        self.core.router.telemetry.messages.snapshot()
    }

    /// What became of copies so far.
    pub fn taps(&self) -> Taps {
        self.core.router.telemetry.messages.taps()
    }

    /// How many connections are open.
    pub fn connections(&self) -> u64 {
        self.core.router.telemetry.sessions.connections()
    }

    /// How many TLS handshakes failed for this reason, as metrics name it.
    pub fn tls_failures(&self, reason: &str) -> u64 {
        self.core.router.telemetry.sessions.tls.failures.get(reason)
    }

    /// Takes over what a reload may change of the settings beside hooks.
    pub fn follow(&self, settings: &Settings) {
        self.core.ice.follow(&settings.ice);
    }

    /// Resolves if the gateway does its work: the runtime runs tasks, the accept loop takes turns, and
    /// no lock of the directory of agents is held for good. Else it does not resolve.
    pub async fn is_alive(&self) {
        let core = Arc::clone(&self.core);
        let task = tokio::spawn(async move {
            let mut phase = core.phase.subscribe();
            tokio::select! {
                () = core.pulse.felt() => {}
                // Nothing is accepted any more.
                _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
            }
            core.router.presence.touch_all();
        });
        if AbortOnDropHandle::new(task).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.core.phase() != Phase::Running
    }

    /// How long a stop may take altogether: `server.drain_delay` and `server.drain_timeout`.
    pub fn drain_limit(&self) -> Duration {
        drain::limit(&self.core.settings)
    }

    /// How many watches there are: agents that are watched, each as often as somebody does.
    pub fn watches(&self) -> u64 {
        self.core.router.telemetry.watches.count()
    }

    /// Whether it is a node of a cluster, and the others know it.
    pub fn is_in_cluster(&self) -> bool {
        self.core.cluster.as_ref().is_some_and(|cluster| cluster.joined().is_ok())
    }

    /// How many agents are present.
    pub fn agents(&self) -> usize {
        self.core.router.presence.online()
    }
}
