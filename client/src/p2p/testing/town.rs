//! A gateway in memory, and the agents at it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use conexus_protocol::{
    AgentKey, Draft, ErrorCode, IceServer, Identity, Message, MessageType, Payload, Rules,
    Timestamp,
};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

use super::stack::Net;
use crate::{
    ClientError, ConnectionState, IceOutcome, SendError,
    p2p::{
        AcceptOptions, IncomingPeers, Peer, PeerError, PeerOptions,
        gateway::Gateway,
        peer::connected,
        peers::{Listener, Peers, refusal},
        transport::Transport,
    },
};

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Deliver,
    Lose,
    /// The gateway answers with this code and reason.
    Refuse(ErrorCode, &'static str),
}

type Rule = Box<dyn FnMut(&Message) -> Fate + Send>;

/// The gateway.
#[derive(Default)]
pub(crate) struct Town {
    agents: Mutex<HashMap<AgentKey, Arc<Member>>>,
    rule: Mutex<Option<Rule>>,
    /// All that was sent.
    pub(crate) log: Mutex<Vec<Message>>,
    pub(crate) net: Arc<Net>,
}

/// An agent as the gateway knows it.
pub(crate) struct Member {
    town: Weak<Town>,
    identity: Identity,
    states: watch::Sender<ConnectionState>,
    peers: Mutex<Weak<Peers>>,
    pub(crate) reported: Mutex<Vec<ClientError>>,
    /// What was left to the client's own handlers.
    pub(crate) left: Mutex<Vec<Message>>,
    /// What the gateway was told of searches for a way.
    pub(crate) outcomes: Mutex<Vec<IceOutcome>>,
    pub(crate) relays: AtomicBool,
    /// By how many milliseconds its idea of the gateway's clock is off.
    pub(crate) ahead: AtomicI64,
}

/// An agent.
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) member: Arc<Member>,
    pub(crate) peers: Arc<Peers>,
}

impl Town {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn agent(self: &Arc<Self>) -> Agent {
        self.agent_with(Identity::generate(), 64)
    }

    pub(crate) fn agent_with(self: &Arc<Self>, identity: Identity, max: usize) -> Agent {
        self.agent_over(self.net.transport(), identity, max)
    }

    /// One that speaks WebRTC by this stack.
    pub(crate) fn agent_over(
        self: &Arc<Self>,
        transport: Arc<dyn Transport>,
        identity: Identity,
        max: usize,
    ) -> Agent {
        let member = Arc::new(Member {
            town: Arc::downgrade(self),
            identity: identity.clone(),
            states: watch::Sender::new(ConnectionState::Connected),
            peers: Mutex::default(),
            reported: Mutex::default(),
            left: Mutex::default(),
            outcomes: Mutex::default(),
            relays: AtomicBool::new(false),
            ahead: AtomicI64::new(0),
        });
        let gateway = Arc::new(Port(Arc::clone(&member)));
        let peers = Peers::new(identity.clone(), gateway, transport, max);
        *member.peers.lock().unwrap() = Arc::downgrade(&peers);
        self.agents.lock().unwrap().insert(identity.key(), Arc::clone(&member));
        Agent { identity, member, peers }
    }

    /// Two agents, the one with the smaller key first.
    pub(crate) fn two(self: &Arc<Self>) -> (Agent, Agent) {
        let (one, other) = (self.agent(), self.agent());
        if one.identity.key() < other.identity.key() { (one, other) } else { (other, one) }
    }

    /// What happens to messages from now on.
    pub(crate) fn rule(&self, rule: impl FnMut(&Message) -> Fate + Send + 'static) {
        *self.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Messages of this type that were sent so far.
    pub(crate) fn sent(&self, kind: MessageType) -> Vec<Message> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|message| message.kind() == kind).cloned().collect()
    }

    /// Delivers a text that somebody has signed, as the gateway would.
    pub(crate) fn deliver(&self, text: &str) {
        let message = Message::parse(text, Rules::V1_1).unwrap();
        let from = AgentKey::parse_did(&message.from).unwrap();
        let fate = self.rule.lock().unwrap().as_mut().map_or(Fate::Deliver, |rule| rule(&message));
        self.log.lock().unwrap().push(message.clone());
        let to = AgentKey::parse_did(&message.to).ok();
        let to = to.and_then(|to| self.agents.lock().unwrap().get(&to).cloned());
        let to = to.filter(|to| *to.states.borrow() == ConnectionState::Connected);
        match (fate, to) {
            (Fate::Lose, _) => {}
            (Fate::Deliver, Some(to)) => to.take(message, Some(from)),
            (Fate::Deliver, None) => {
                self.refuse(&message, from, (ErrorCode::UnknownAgent, "unknown_agent"));
            }
            (Fate::Refuse(code, reason), _) => self.refuse(&message, from, (code, reason)),
        }
    }

    fn refuse(&self, message: &Message, to: AgentKey, (code, reason): (ErrorCode, &str)) {
        let draft =
            Draft::new(&*message.from, refusal(code, "no", reason)).in_reply_to(&*message.id);
        let no = Message::parse(&draft.sign(&Identity::from_seed(&[9; 32])), Rules::V1_1).unwrap();
        let member = self.agents.lock().unwrap().get(&to).cloned();
        if let Some(member) = member {
            member.take(no, None);
        }
    }
}

impl Member {
    /// A message arrives.
    pub(crate) fn take(&self, message: Message, key: Option<AgentKey>) {
        let peers = self.peers.lock().unwrap().upgrade();
        let Some(peers) = peers else { return };
        if let Some(message) = peers.claim(message, key, |_| Ok(())) {
            self.left.lock().unwrap().push(message);
        }
    }

    /// The client's connection to the gateway.
    pub(crate) fn enter(&self, state: ConnectionState) {
        self.states.send_replace(state);
    }

    pub(crate) fn states(&self) -> watch::Receiver<ConnectionState> {
        self.states.subscribe()
    }

    /// What error handlers heard, in words.
    pub(crate) fn words(&self) -> Vec<String> {
        self.reported.lock().unwrap().iter().map(in_words).collect()
    }
}

fn in_words(error: &ClientError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

struct Port(Arc<Member>);

impl Gateway for Port {
    fn send(&self, draft: Draft) -> BoxFuture<'_, Result<(), SendError>> {
        async move {
            let state = *self.0.states.borrow();
            if state != ConnectionState::Connected {
                return Err(SendError::NotConnected(state));
            }
            let town = self.0.town.upgrade().ok_or(SendError::ConnectionLost)?;
            town.deliver(&draft.sign(&self.0.identity));
            Ok(())
        }
        .boxed()
    }

    fn states(&self) -> watch::Receiver<ConnectionState> {
        self.0.states.subscribe()
    }

    fn is_running(&self) -> bool {
        *self.0.states.borrow() != ConnectionState::Error
    }

    fn ice_servers(&self) -> BoxFuture<'_, Vec<IceServer>> {
        async { Vec::new() }.boxed()
    }

    fn relays(&self, _: MessageType) -> bool {
        self.0.relays.load(Ordering::Relaxed)
    }

    fn now(&self) -> Timestamp {
        let ahead = self.0.ahead.load(Ordering::Relaxed);
        Timestamp::from_unix_millis(Timestamp::now().as_unix_millis() + ahead)
    }

    fn note_outcome(&self, outcome: IceOutcome) -> BoxFuture<'_, ()> {
        self.0.outcomes.lock().unwrap().push(outcome);
        async {}.boxed()
    }

    fn report(&self, error: ClientError) {
        self.0.reported.lock().unwrap().push(error);
    }
}

impl Agent {
    pub(crate) fn did(&self) -> &str {
        self.identity.did()
    }

    pub(crate) fn key(&self) -> AgentKey {
        self.identity.key()
    }

    pub(crate) async fn connect(&self, to: &Self) -> Result<Peer, PeerError> {
        self.connect_with(to, PeerOptions::default()).await
    }

    pub(crate) async fn connect_with(
        &self,
        to: &Self,
        options: PeerOptions,
    ) -> Result<Peer, PeerError> {
        let core = self.peers.connect(to.did(), options.clone())?;
        connected(core, Arc::clone(&self.peers), &options).await
    }

    pub(crate) fn accept(&self) -> IncomingPeers {
        self.accept_with(AcceptOptions::new())
    }

    pub(crate) fn accept_with(&self, options: AcceptOptions) -> IncomingPeers {
        let (sender, incoming) = tokio::sync::mpsc::channel(self.peers.max());
        self.peers.listen(Listener::Stream(options, sender));
        IncomingPeers(incoming)
    }

    /// Signs a message to another agent, which is not sent.
    pub(crate) fn sign(&self, to: &Self, payload: impl Into<Payload>) -> (String, String) {
        let draft = Draft::new(to.did(), payload);
        (draft.id.clone(), draft.sign(&self.identity))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.peers.abort();
    }
}

/// Far longer than anything takes on the paused clock that most tests have.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), future).await.expect("it never happened")
}

/// Waits until something is so that nobody tells of.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
