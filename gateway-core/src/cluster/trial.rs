//! Clusters within a test: several gateways over one engine in memory, each behind a switch of its own,
//! and agents that speak WebSocket to them through pipes, so that time can stand still.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_protocol::{
    AgentKey, Challenge, Draft, Envelope, Identity, MessageType, Metadata, Payload, Register,
    Rules, Subprotocol, Unregister,
};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::{
    Cluster, Station,
    backplane::{Away, Backplane, Entry, Link, LinkEvent},
    ids::MemberId,
    memory::MemoryEngine,
};
use crate::{
    config::Settings,
    core::Core,
    gateway::Gateway,
    hooks::{EmptyChain, Fixed, Judge},
    http::Permit,
    session::{self, Connection},
};

/// Of all nodes here.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// What all agents here believe to have dialed.
const AUDIENCE: &str = "ws://gateway.example/ws";

/// Longer than anything takes that is waited for; it passes in no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What several nodes share.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) engine: MemoryEngine,
}

/// A gateway that runs until it is stopped or killed.
pub(crate) struct Node {
    pub(crate) core: Arc<Core>,
    pub(crate) cluster: Arc<Cluster>,
    trial: Trial,
    cut_off: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Trial {
    pub(crate) fn new() -> Self {
        Self { engine: MemoryEngine::new() }
    }

    /// Nodes that have joined, and know of each other.
    pub(crate) async fn nodes<const N: usize>(&self) -> [Node; N] {
        let mut nodes = Vec::new();
        for number in 0..N {
            nodes.push(self.node(&format!("node-{number}")).await);
        }
        for node in &nodes {
            node.joined().await;
        }
        tokio::time::sleep(LEASE / 2).await;
        nodes.try_into().unwrap_or_else(|_| unreachable!())
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        self.judged_node(name, Arc::new(EmptyChain)).await
    }

    /// A node with a policy of its own.
    pub(crate) async fn judged_node<J: Judge>(&self, name: &str, judge: Arc<J>) -> Node {
        let mut settings = Settings::default();
        settings.server.listen = ([127, 0, 0, 1], 0).into();
        settings.server.node_id = name.to_owned();
        settings.server.public_urls = vec![AUDIENCE.parse().unwrap()];
        settings.cluster.lease = LEASE;
        settings.mailbox.hold = Duration::ZERO;
        settings.server.drain_delay = LEASE / 2;
        let cut_off = Arc::new(AtomicBool::new(false));
        let switch = Switch { engine: self.engine.clone(), cut_off: Arc::clone(&cut_off) };
        let gateway = Gateway::bind_with_backplane(
            Arc::new(settings),
            Identity::generate(),
            Arc::new(Fixed(judge)),
            Some(Arc::new(switch)),
        );
        let gateway = gateway.await.unwrap();
        let core = gateway.watch().core();
        let cluster = core.cluster.clone().unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(gateway.run(async move {
            let _ = stopped.await;
        }));
        let trial = self.clone();
        Node { core, cluster, trial, cut_off, stop: Some(stop), running }
    }

    /// What the directory has of an agent.
    pub(crate) fn entry(&self, agent: &Agent) -> Option<Entry> {
        self.engine.entry(agent.identity.key())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Node {
    /// Waits until it is part of the cluster, and says as whom.
    pub(crate) async fn joined(&self) -> MemberId {
        let mut station = self.cluster.station.subscribe();
        let joined = station.wait_for(|station| matches!(station, Station::Joined(_)));
        let joined = timeout(PATIENCE, joined).await.expect("it does not join");
        let Station::Joined(joined) = &*joined.unwrap() else { unreachable!() };
        joined.member
    }

    pub(crate) async fn apart(&self) {
        let mut station = self.cluster.station.subscribe();
        let apart = station.wait_for(|station| matches!(station, Station::Apart(_)));
        timeout(PATIENCE, apart).await.expect("it stays").unwrap();
    }

    /// Cuts it off from the engine for good, or lets it come back.
    pub(crate) fn cut_off(&self, is_cut_off: bool) {
        self.cut_off.store(is_cut_off, SeqCst);
        if is_cut_off && let Ok(joined) = self.cluster.joined() {
            self.trial.engine.cut(joined.member);
        }
    }

    /// Ends it as `kill -9` does: nobody hears of it any more.
    pub(crate) fn kill(&self) {
        self.cut_off(true);
        self.running.abort();
    }

    /// Stops it in order.
    pub(crate) async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(PATIENCE, &mut self.running).await.expect("it does not stop").unwrap();
    }

    /// Who counts by this node's knowledge.
    pub(crate) fn members(&self) -> Vec<MemberId> {
        let now = tokio::time::Instant::now();
        let members = self.cluster.members.load();
        members.iter().filter(|(_, member)| member.counts(now)).map(|(id, _)| id).collect()
    }

    /// Whether a session here holds an agent's key.
    pub(crate) fn has(&self, agent: &Agent) -> bool {
        let (presence, now) = (&self.core.router.presence, self.core.clock.now());
        presence.live(agent.identity.key(), now).is_some()
    }

    /// Opens a connection, and sends a REGISTER that nobody has waited for.
    pub(crate) async fn registering(&self, identity: &Identity) -> Agent {
        let (near, far) = tokio::io::duplex(1 << 20);
        let connection = Connection {
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            via: None,
            subprotocol: Subprotocol::V1_1,
            values: Arc::default(),
            encrypted: false,
            _permit: Permit::made_up(),
        };
        let session = tokio::spawn(session::run(Arc::clone(&self.core), far, b"", connection));
        let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut agent = Agent { identity: identity.clone(), socket, nonce: None, session };
        let challenge = agent.text().await;
        let challenge = Envelope::parse(&challenge, Rules::V1_1).unwrap();
        agent.nonce = Some(challenge.payload::<Challenge>().unwrap().nonce);
        agent.register("first").await;
        agent
    }

    /// The same, when it has been answered.
    pub(crate) async fn register(&self, identity: &Identity) -> Agent {
        let mut agent = self.registering(identity).await;
        agent.registered().await;
        agent
    }
}

/// Waits until something is so that no event tells of.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// An agent's side of a connection.
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    socket: WebSocketStream<DuplexStream>,
    nonce: Option<String>,
    session: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.session.abort();
    }
}

impl Agent {
    pub(crate) fn key(&self) -> AgentKey {
        self.identity.key()
    }

    /// Sends a REGISTER, the first one or a renewal.
    pub(crate) async fn register(&mut self, name: &str) {
        let metadata = Metadata { name: Some(name.to_owned()), ..Metadata::default() };
        let register = Register {
            public_key: self.identity.key().base58(),
            nonce: self.nonce.clone(),
            audience: Some(AUDIENCE.to_owned()),
            metadata: Some(metadata),
            credentials: None,
        };
        self.say(register).await;
    }

    pub(crate) async fn unregister(&mut self) {
        self.say(Unregister { reason: None }).await;
    }

    async fn say(&mut self, payload: impl Into<Payload>) {
        let text = Draft::new(self.identity.did(), payload).sign(&self.identity);
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame must be REGISTERED.
    pub(crate) async fn registered(&mut self) {
        let text = self.text().await;
        let answer = Envelope::parse(&text, Rules::V1_1).unwrap();
        assert_eq!(answer.kind, MessageType::Registered, "{text}");
    }

    /// The next text.
    pub(crate) async fn text(&mut self) -> String {
        match self.frame().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("expected a text, got {other:?}"),
        }
    }

    /// The code of the close that comes next, behind a REGISTERED at the most.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.frame().await {
                Some(Message::Text(text)) if text.contains("\"REGISTERED\"") => {}
                Some(Message::Close(Some(frame))) => return frame.code.into(),
                other => panic!("expected a close, got {other:?}"),
            }
        }
    }

    async fn frame(&mut self) -> Option<Message> {
        let frame = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    frame => return frame?.ok(),
                }
            }
        };
        timeout(PATIENCE, frame).await.expect("nothing comes")
    }
}

/// A node's way to the engine, which can be cut.
#[derive(Debug)]
struct Switch {
    engine: MemoryEngine,
    cut_off: Arc<AtomicBool>,
}

impl Backplane for Switch {
    fn connect(
        &self,
        member: MemberId,
        events: mpsc::Sender<LinkEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, Away>> {
        if self.cut_off.load(SeqCst) {
            return async { Err(Away("cut off".into())) }.boxed();
        }
        self.engine.connect(member, events)
    }
}
