//! The engine that nodes share in production: Redis 7 or later, Valkey alike.
//!
//! A [link](link::RedisLink) is one connection (to a Redis Cluster, one to each of its machines) that
//! carries everything: calls of [scripts], which decide by the engine's clock and all at once, frames
//! for other members, and what comes in by channels. It is never mended: whatever fails on it
//! [ends it](failure), for all that use it, and the cluster begins anew with another one.

mod address;
mod answers;
mod bans;
mod checkup;
mod clock;
mod codec;
mod dialer;
mod failure;
mod fault;
mod inbox;
mod latency;
mod line;
mod lines;
mod link;
mod names;
mod route;
mod scripts;
mod state;
#[cfg(test)]
mod tests;

/// Servers to test with.
#[cfg(test)]
#[path = "../../../../tests/e2e/support/redis.rs"]
pub(crate) mod server;

use std::{path::Path, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt as _, try_join_all};
use redis::{ProtocolVersion, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use self::{
    address::Address,
    dialer::{Dialer, Tls},
    failure::Failure,
    latency::Latency,
    line::Shared,
    lines::Lines,
    link::RedisLink,
    names::Names,
    route::Route,
};
use super::{
    backplane::{Away, Backplane, Link, LinkEvent},
    ids::MemberId,
};
use crate::{
    config::{ClusterSettings, RedisMode, RedisSettings, Secret, Settings},
    tls::{File, TlsError, client_config},
};

/// How to get to the engine.
#[derive(Debug)]
pub(crate) struct RedisBackplane {
    names: Names,
    who: RedisConnectionInfo,
    dialer: Dialer,
    route: Route,
}

/// Why settings lead to no engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("cluster.redis.url: {0}")]
    Url(String),
    #[error("cluster.redis.seeds: {0:?} is no host with a port")]
    Seed(String),
    #[error("cluster.redis.mode = \"sentinel\" needs cluster.redis.sentinel_master")]
    NoMaster,
    #[error("cluster.redis.server_name: {0:?} is no name of a host")]
    ServerName(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl RedisBackplane {
    /// The engine of `[cluster.redis]`, if that names one. It need not be there yet; files are read.
    pub(crate) fn configured(settings: &Settings) -> Result<Option<Self>, EngineError> {
        let Settings { cluster, cluster_redis, .. } = settings;
        let url = cluster_redis.url.as_deref();
        url.map(|url| Self::new(url, cluster, cluster_redis)).transpose()
    }

    /// The engine at this URL. It need not be there yet.
    pub(crate) fn new(
        url: &str,
        cluster: &ClusterSettings,
        redis: &RedisSettings,
    ) -> Result<Self, EngineError> {
        let wrong = |problem: &str| EngineError::Url(problem.to_owned());
        let url = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        let address = Address::of(&url).ok_or_else(|| wrong("names no host"))?;
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            database => database.parse().map_err(|_| wrong("names no number of a database"))?,
        };
        let who = identity(redis.username.as_deref(), redis.password.as_ref()).set_db(database);
        Ok(Self {
            names: Names::new(&cluster.prefix),
            who,
            dialer: Dialer { tls: tls(&url, redis)?, patience: redis.timeout },
            route: route(address, redis)?,
        })
    }
}

fn identity(username: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    let mut who = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("conexus", env!("CARGO_PKG_VERSION"));
    if let Some(username) = username {
        who = who.set_username(username);
    }
    if let Some(password) = password {
        who = who.set_password(password.expose());
    }
    who
}

fn tls(url: &Url, redis: &RedisSettings) -> Result<Option<Tls>, EngineError> {
    if url.scheme() != "rediss" {
        return Ok(None);
    }
    fn file<'a>(key: &'static str, path: &'a Path) -> File<'a> {
        File { key, path }
    }
    let ca = redis.ca.as_deref().map(|path| file("cluster.redis.ca", path));
    let certificate = redis.certificate.as_deref();
    let certificate = certificate.map(|path| file("cluster.redis.certificate", path));
    let key = redis.key.as_deref().map(|path| file("cluster.redis.key", path));
    let connector = TlsConnector::from(client_config(ca, certificate.zip(key))?);
    let name = |name: &String| {
        ServerName::try_from(name.clone()).map_err(|_| EngineError::ServerName(name.clone()))
    };
    let name = redis.server_name.as_ref().map(name).transpose()?;
    Ok(Some(Tls { connector, name }))
}

fn route(address: Address, redis: &RedisSettings) -> Result<Route, EngineError> {
    let parse = |seed: &String| Address::parse(seed).ok_or_else(|| EngineError::Seed(seed.clone()));
    let further = redis.seeds.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let seeds = [vec![address.clone()], further].concat();
    Ok(match redis.mode {
        RedisMode::Single => Route::Single(address),
        RedisMode::Cluster => Route::Cluster(seeds),
        RedisMode::Sentinel => Route::Sentinel {
            sentinels: seeds,
            who: identity(redis.sentinel_username.as_deref(), redis.sentinel_password.as_ref()),
            master: redis.sentinel_master.clone().ok_or(EngineError::NoMaster)?,
        },
    })
}

impl Backplane for RedisBackplane {
    fn connect(
        &self,
        member: MemberId,
        events: mpsc::Sender<LinkEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Away>> {
        async move {
            let (failure, patience) = (Failure::default(), self.dialer.patience);
            let channel = self.names.member(member);
            let (inbox, carrier) = inbox::inbox(channel.clone(), events, patience, &failure);
            let shared = Shared {
                inbox: Arc::new(inbox),
                failure,
                latency: Arc::new(Latency::default()),
                patience,
            };
            let lines = self.route.connect(&self.dialer, &self.who, &shared).await?;
            let is_cluster = matches!(lines, Lines::Cluster { .. });
            let checked = lines.all().iter().map(|line| checkup::check(line, is_cluster));
            try_join_all(checked).await?;
            let carrier = AbortOnDropHandle::new(tokio::spawn(carrier.run()));
            let link = RedisLink::new(self.names.clone(), lines, shared, carrier);
            link.listen(&channel).await?;
            Ok(Arc::new(link) as Arc<dyn Link>)
        }
        .boxed()
    }
}
