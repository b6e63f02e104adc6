//! What only a real server shows: faults, access, TLS, and what stands before several of them.

mod access;
mod bounds;
mod faults;
mod several;
mod tls;

use std::{path::PathBuf, sync::Arc, time::Duration};

use conexus_plugin_api::Agent;
use conexus_protocol::AgentKey;
use tokio::{sync::mpsc, time::timeout};

use super::{
    RedisBackplane,
    server::{RedisServer, Tls, Watched},
};
use crate::{
    cluster::{
        backplane::{Away, Backplane as _, Claim, Claimed, Link, LinkEvent, NodeInfo, Roster},
        ids::MemberId,
    },
    config::{RedisMode, RedisSettings, Secret, Settings},
    session::handle::tests::session,
};

const A: MemberId = MemberId(0xa);
const B: MemberId = MemberId(0xb);
const LEASE: Duration = Duration::from_secs(60);
/// For what must happen, on a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn settings() -> RedisSettings {
    RedisSettings { timeout: Duration::from_secs(10), ..Settings::default().cluster_redis }
}

/// A link, and what comes in by it.
struct Linked {
    link: Arc<dyn Link>,
    heard: mpsc::Receiver<LinkEvent>,
}

async fn connect(url: &str, redis: &RedisSettings, member: MemberId) -> Result<Linked, Away> {
    let engine = RedisBackplane::new(url, &Settings::default().cluster, redis).unwrap();
    let (events, heard) = mpsc::channel(1000);
    Ok(Linked { link: engine.connect(member, events).await?, heard })
}

/// Why one does not come about.
async fn refused(url: &str, redis: &RedisSettings) -> String {
    match timeout(LONG, connect(url, redis, A)).await.unwrap() {
        Ok(_) => panic!("it did connect"),
        Err(Away(why)) => why.to_string(),
    }
}

/// One that comes about before long, as when a server has just begun.
async fn eventually(url: &str, redis: &RedisSettings, member: MemberId) -> Linked {
    let trying = async {
        loop {
            match connect(url, redis, member).await {
                Ok(linked) => return linked,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(LONG, trying).await.unwrap()
}

impl Linked {
    async fn claim(&self, agent: &Arc<Agent>) -> Result<Claimed, Away> {
        let claim = Claim { member: A, agent: Arc::clone(agent), age: Duration::ZERO };
        self.link.claim(&claim).await
    }

    async fn renew(&self) -> Result<Roster, Away> {
        self.link.renew(A, &info(), LEASE).await
    }

    async fn knows(&self, agent: &Agent) -> bool {
        self.link.find(&[AgentKey::from_bytes(agent.key)]).await.unwrap()[0].is_some()
    }

    async fn event(&mut self) -> LinkEvent {
        timeout(LONG, self.heard.recv()).await.unwrap().unwrap()
    }

    /// What it is lost for; nothing comes after that.
    async fn lost(mut self) -> String {
        let why = loop {
            if let LinkEvent::Lost(Away(why)) = self.event().await {
                break why.to_string();
            }
        };
        assert!(timeout(LONG, self.heard.recv()).await.unwrap().is_none());
        // And for good.
        assert_eq!(*self.renew().await.unwrap_err().0, *why);
        assert_eq!(*self.link.publish(A, "x".into()).await.unwrap_err().0, *why);
        why
    }
}

fn agent() -> Arc<Agent> {
    session().facts()
}

fn info() -> NodeInfo {
    NodeInfo {
        node_id: "a".to_owned(),
        did: "did:key:z".to_owned(),
        version: "1".to_owned(),
        frames: 1,
        started_ms: 5,
        agents: 7,
        draining: false,
        lease_ms: 0,
    }
}
