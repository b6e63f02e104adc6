//! `conexus run`: configuration, log, identity, and then the gateway until a signal.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::signal::unix::Signal;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    admin::{self, Admin, DrainTrigger},
    config::{self, ConfigErrors, Loaded, Origin, Sources},
    gateway::{Gateway, GatewayError},
    hooks::{Engine, ReloadError},
    reload::{self, Reloader},
};

use super::{
    keyfile::{self, KeyFileError},
    logging::{self, LoggingError},
    service::Service,
    signals::Signals,
};

/// Why the gateway did not start, or broke.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the configuration is faulty:\n{0}")]
    Config(ConfigErrors),
    #[error(transparent)]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    Identity(#[from] KeyFileError),
    #[error("the policy is faulty:\n{0}")]
    Policy(String),
    #[error(transparent)]
    Hooks(ReloadError),
    #[error("cannot listen on {address} (admin.listen)")]
    Admin { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    #[error("cannot print")]
    Print(#[source] io::Error),
}

impl From<ReloadError> for RunError {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Faulty(faults) => Self::Policy(faults.join("\n")),
            other => Self::Hooks(other),
        }
    }
}

pub(super) async fn run(sources: &Sources) -> Result<ExitCode, RunError> {
    let loaded = config::load(sources).map_err(RunError::Config)?;
    let log = logging::start(&loaded.settings.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_open_files(loaded.settings.limits.connections);
    let signals = Signals::catch().map_err(RunError::Signals)?;
    let identity = keyfile::open(&loaded.settings.server.identity)?;

    let settings = Arc::new(loaded.settings.clone());
    let engine = Arc::new(Engine::start(&settings)?);
    let policy = Arc::clone(&engine) as Arc<dyn crate::hooks::Policy>;
    let gateway = Gateway::bind_with_policy(Arc::clone(&settings), identity, policy).await?;
    let tls = gateway.tls();
    for warning in tls.iter().flat_map(|tls| tls.warnings()) {
        tracing::warn!("{warning}");
    }
    let reloader = Reloader::new(sources.clone(), &loaded, Arc::clone(&engine)).with_tls(tls);
    let reloader = Arc::new(reloader);
    let watch = gateway.watch();
    reloader.on_accepted(move |settings| watch.follow(settings));
    let drain = DrainTrigger::new();
    let parts = admin::Parts {
        gateway: gateway.watch(),
        reloader: Arc::clone(&reloader),
        log: log.level.clone(),
        lines_dropped: log.lines_dropped(),
        drain: drain.clone(),
    };
    let admin = bind_admin(&loaded, parts).await?;
    let hangups = Signals::hangups().map_err(RunError::Signals)?;
    announce(&gateway).map_err(RunError::Print)?;
    let service = Service::new(gateway.watch());
    service.ready();

    let _admin = admin.map(|admin| AbortOnDropHandle::new(tokio::spawn(admin.run())));
    let watching = settings
        .policy
        .watch
        .then(|| AbortOnDropHandle::new(tokio::spawn(reload::watch(Arc::clone(&reloader)))));
    let hangups =
        AbortOnDropHandle::new(tokio::spawn(reload_on(hangups, reloader, service.clone())));
    let _telling = AbortOnDropHandle::new(tokio::spawn(service.clone().keep_telling()));

    let limit = gateway.watch().drain_limit();
    let stop_requested = async {
        signals.stop_requested(drain).await;
        service.stopping(limit);
    };
    gateway.run(stop_requested).await;
    // No further generation begins.
    drop((watching, hangups));
    let stopping = tokio::task::spawn_blocking(move || engine.stop(STOP_PATIENCE));
    if tokio::time::timeout(3 * STOP_PATIENCE, stopping).await.is_err() {
        tracing::warn!("a hook's on_stop does not end");
    }
    Ok(ExitCode::SUCCESS)
}

/// How long observers and `on_stop` may take at the end.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The admin listener, if there is to be one. Where its address was not chosen by anybody, the
/// gateway does without rather than not start: another program may have taken it.
async fn bind_admin(loaded: &Loaded, parts: admin::Parts) -> Result<Option<Admin>, RunError> {
    let settings = &loaded.settings.admin;
    if !settings.enabled {
        return Ok(None);
    }
    let address = settings.listen;
    match Admin::bind(address, settings.tls, parts).await {
        Ok(admin) => {
            let (address, tls) = (admin.local_addr(), settings.tls);
            tracing::info!(%address, tls, "admin listening");
            Ok(Some(admin))
        }
        Err(error) if loaded.origins.get("admin.listen") == Some(&Origin::Default) => {
            tracing::warn!(%address, %error, "no admin listener; set admin.listen to have one");
            Ok(None)
        }
        Err(source) => Err(RunError::Admin { address, source }),
    }
}

async fn reload_on(mut hangups: Signal, reloader: Arc<Reloader>, service: Service) {
    while hangups.recv().await.is_some() {
        tracing::info!("reload asked for by a signal");
        service.reloading();
        let reloader = Arc::clone(&reloader);
        // It logs itself what came of it.
        let reloaded = tokio::task::spawn_blocking(move || reloader.reload()).await;
        service.reloaded(reloaded.is_ok_and(|reloaded| reloaded.is_ok()));
    }
}

/// The line that says that agents may come; scripts wait for it.
fn announce(gateway: &Gateway) -> io::Result<()> {
    let hooks = match gateway.hook_count() {
        1 => "1 hook".to_owned(),
        count => format!("{count} hooks"),
    };
    let (url, did) = (gateway.url(), gateway.did());
    let mut out = io::stdout().lock();
    writeln!(out, "conexus listening on {url} as {did} ({hooks})")?;
    out.flush()
}

/// Each agent is an open file, and the soft limit is often 1024.
fn raise_open_files(connections: usize) {
    /// What a gateway opens beside its connections.
    const OTHERS: u64 = 64;

    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < (connections as u64).saturating_add(OTHERS) => {
            tracing::warn!(
                limit,
                connections,
                "limits.connections is more than the open files that are allowed (ulimit -n): \
                 beyond those, connections wait until others end"
            );
        }
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}
