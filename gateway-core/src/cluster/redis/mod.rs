//! The engine that nodes share in production: Redis 7 or later, Valkey alike.
//!
//! A [link](link::RedisLink) is one connection (to a Redis Cluster, one to each of its machines) that
//! carries everything: calls of [scripts], which decide by the engine's clock and all at once, frames
//! for other members, and what comes in by channels. It is never mended: whatever fails on it
//! [ends it](failure), for all that use it, and the cluster begins anew with another one.

mod answers;
mod bans;
mod clock;
mod codec;
mod failure;
mod fault;
mod inbox;
mod latency;
mod line;
mod lines;
mod link;
mod names;
mod scripts;
mod state;

/// Servers to test with.
#[cfg(test)]
#[path = "../../../../tests/e2e/support/redis.rs"]
pub(crate) mod server;

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use redis::{ProtocolVersion, RedisConnectionInfo, Value};
use tokio::{net::TcpStream, sync::mpsc, time};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use self::{
    failure::Failure,
    fault::Fault,
    latency::Latency,
    line::{Line, Shared},
    lines::Lines,
    link::RedisLink,
    names::Names,
};
use super::{
    backplane::{Away, Backplane, Link, LinkEvent},
    ids::MemberId,
};
use crate::config::{ClusterSettings, RedisSettings};

/// How to get to the engine.
#[derive(Debug)]
pub(crate) struct RedisBackplane {
    names: Names,
    patience: Duration,
    at: Arc<str>,
    who: RedisConnectionInfo,
}

/// Why the settings of an engine lead to none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedisError {
    #[error("cluster.redis.url is missing")]
    NoUrl,
    #[error("cluster.redis.url: {0}")]
    Url(String),
}

impl RedisBackplane {
    pub(crate) fn new(
        cluster: &ClusterSettings,
        settings: &RedisSettings,
    ) -> Result<Self, RedisError> {
        let url = settings.url.as_deref().ok_or(RedisError::NoUrl)?;
        let url = Url::parse(url).map_err(|error| RedisError::Url(error.to_string()))?;
        let host = url.host_str().ok_or_else(|| RedisError::Url("has no host".to_owned()))?;
        let at = format!("{host}:{}", url.port().unwrap_or(6379)).into();
        let mut who = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("conexus", env!("CARGO_PKG_VERSION"))
            .set_db(url.path().trim_start_matches('/').parse().unwrap_or(0));
        if let Some(username) = &settings.username {
            who = who.set_username(username);
        }
        if let Some(password) = &settings.password {
            who = who.set_password(password.expose());
        }
        let names = Names::new(&cluster.prefix);
        Ok(Self { names, patience: settings.timeout, at, who })
    }

    async fn lines(&self, shared: &Shared) -> Result<Lines, Away> {
        let opened = time::timeout(self.patience, async {
            let stream = TcpStream::connect(&*self.at).await?;
            stream.set_nodelay(true)?;
            Line::begin(Arc::clone(&self.at), stream, &self.who, shared).await
        });
        let line = match opened.await {
            Ok(opened) => opened,
            Err(_) => Err(Fault::Late),
        };
        line.map(Lines::Single)
            .map_err(|fault| fault.told(&self.at, self.who.username().unwrap_or("default")))
    }
}

impl Backplane for RedisBackplane {
    fn connect(
        &self,
        member: MemberId,
        events: mpsc::Sender<LinkEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Away>> {
        async move {
            let failure = Failure::default();
            let channel = self.names.member(member);
            let (inbox, carrier) = inbox::inbox(channel.clone(), events, self.patience, &failure);
            let shared = Shared {
                inbox: Arc::new(inbox),
                failure,
                latency: Arc::new(Latency::default()),
                patience: self.patience,
            };
            let lines = self.lines(&shared).await?;
            for line in lines.all() {
                read_clock(line).await?;
            }
            let carrier = AbortOnDropHandle::new(tokio::spawn(carrier.run()));
            let link = RedisLink::new(self.names.clone(), lines, shared, carrier);
            link.listen(&channel).await?;
            Ok(Arc::new(link) as Arc<dyn Link>)
        }
        .boxed()
    }
}

/// Asks a machine of the engine for its time.
async fn read_clock(line: &Line) -> Result<(), Away> {
    let told = line.demand(redis::cmd("TIME")).await?;
    let (seconds, micros) = match &told {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(seconds), Value::BulkString(micros)] => {
                (codec::number::<u64>(seconds), codec::number::<u64>(micros))
            }
            _ => (None, None),
        },
        _ => (None, None),
    };
    match (seconds, micros) {
        (Some(seconds), Some(micros)) => {
            line.clock.told(seconds.saturating_mul(1_000_000).saturating_add(micros));
            Ok(())
        }
        _ => Err(line.garbled("TIME")),
    }
}
