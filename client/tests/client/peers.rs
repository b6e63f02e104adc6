//! Agents that connect to each other, introduced by a gateway that only routes, over the real WebRTC stack.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use conexus_client::{
    AcceptOptions, ChannelMessage, ChannelOptions, Client, ConnectionState, Identity,
    IncomingPeers, Peer, PeerError, PeerOptions, PeerPath, Reply, RequestError, RequestFailure,
    RequestOptions, WebRtc,
    protocol::{AgentKey, Draft, Message, MessageType, Offer, RefusalReason, Rules},
};
use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    errors,
    gateway::{Gateway, Peer as Session},
    quick, soon,
};

type Agents = Arc<Mutex<HashMap<AgentKey, mpsc::UnboundedSender<String>>>>;

/// All that was said.
type Log = Arc<Mutex<Vec<Message>>>;

/// A gateway that routes, until it is dropped.
struct Router {
    address: SocketAddr,
    url: String,
    agents: Agents,
    log: Log,
    _task: JoinSet<()>,
}

impl Router {
    async fn start() -> Self {
        Self::of(Gateway::start().await)
    }

    fn of(gateway: Gateway) -> Self {
        let (address, url, agents) = (gateway.address(), gateway.url(), Agents::default());
        let mut task = JoinSet::new();
        let (known, log) = (Arc::clone(&agents), Log::default());
        let heard = Arc::clone(&log);
        task.spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let session = gateway.register().await;
                sessions.spawn(route(session, Arc::clone(&known), Arc::clone(&heard)));
            }
        });
        Self { address, url, agents, log, _task: task }
    }

    /// Delivers a text once more.
    fn deliver(&self, text: &str) {
        let message = Message::parse(text, Rules::V1_1).unwrap();
        let to = AgentKey::parse_did(&message.to).unwrap();
        self.agents.lock().unwrap()[&to].send(text.to_owned()).unwrap();
    }
}

async fn route(mut session: Session, agents: Agents, log: Log) {
    let key = AgentKey::parse_did(session.agent()).unwrap();
    let (sender, mut outbox) = mpsc::unbounded_channel();
    agents.lock().unwrap().insert(key, sender);
    loop {
        let frame = tokio::select! {
            Some(text) = outbox.recv() => {
                if session.socket.send(Frame::text(text)).await.is_err() {
                    return;
                }
                continue;
            }
            frame = session.socket.next() => frame,
        };
        let Some(Ok(frame)) = frame else { break };
        let Frame::Text(text) = frame else { continue };
        let message = Message::parse(&text, Rules::V1_1).unwrap();
        log.lock().unwrap().push(message.clone());
        let to = AgentKey::parse_did(&message.to).ok();
        let to = to.and_then(|to| agents.lock().unwrap().get(&to).cloned());
        let is_delivered = to.is_some_and(|to| to.send(text.as_str().to_owned()).is_ok());
        if !is_delivered && message.kind() != MessageType::Unregister {
            session.refuse(&message.id, RefusalReason::UnknownAgent).await;
        }
    }
    agents.lock().unwrap().remove(&key);
}

fn building(router: &Router) -> conexus_client::Builder {
    let loopback = WebRtc::on([Ipv4Addr::LOCALHOST.into()]);
    Client::builder(&*router.url, Identity::generate())
        .reconnect(quick(0))
        .transport(Arc::new(loopback))
}

async fn agent(router: &Router) -> Client {
    soon(building(router).connect()).await.unwrap()
}

/// Two agents, the one with the smaller key first.
async fn two(router: &Router) -> (Client, Client) {
    let (a, b) = (agent(router).await, agent(router).await);
    if a.identity().key() < b.identity().key() { (a, b) } else { (b, a) }
}

async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn pair(a: &Client, b: &Client) -> (Peer, Peer) {
    let mut incoming = b.accept_peers(AcceptOptions::new());
    let ours = soon(a.connect_peer(b.did(), PeerOptions::default())).await;
    (ours.unwrap(), accepted(&mut incoming).await)
}

async fn accepted(incoming: &mut IncomingPeers) -> Peer {
    soon(incoming.recv()).await.unwrap()
}

fn options() -> RequestOptions {
    RequestOptions::new()
}

#[tokio::test]
async fn agents_connect_whichever_offers_and_close() {
    let router = Router::start().await;
    let (a, b) = two(&router).await;
    for (a, b) in [(&a, &b), (&b, &a)] {
        let (ours, theirs) = pair(a, b).await;
        for peer in [&ours, &theirs] {
            assert_eq!((peer.state(), peer.path()), (ConnectionState::Connected, PeerPath::Direct));
        }
        let stats = ours.stats().await;
        assert!(stats.pair.is_some() && stats.connect_time.is_some(), "{stats:?}");
        let channel = ours.open_channel("talk", ChannelOptions::default());
        let channel = soon(channel).await.unwrap();
        let mut channels = theirs.channels();
        let other = soon(channels.recv()).await.unwrap();
        channel.send("hello").await.unwrap();
        let heard = soon(other.recv()).await.unwrap().unwrap();
        assert_eq!(heard, ChannelMessage::from("hello"));
        let large = vec![7_u8; 1024 * 1024];
        soon(other.send(large.clone())).await.unwrap();
        let heard = soon(channel.recv()).await.unwrap().unwrap();
        assert_eq!(heard.as_bytes(), large);
        soon(ours.close()).await;
        soon(theirs.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn both_at_once_get_the_one_connection() {
    let router = Router::start().await;
    let (a, b) = two(&router).await;
    let both = async {
        tokio::join!(
            a.connect_peer(b.did(), PeerOptions::default()),
            b.connect_peer(a.did(), PeerOptions::default()),
        )
    };
    let (one, other) = soon(both).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    soon(one.ping()).await.unwrap();
    assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    soon(one.close()).await;
    soon(other.closed()).await.unwrap();
}

#[tokio::test]
async fn requests_go_both_ways_with_progress_and_streams() {
    let router = Router::start().await;
    let (a, b) = two(&router).await;
    let (ours, theirs) = pair(&a, &b).await;
    for client in [&a, &b] {
        client.on_request(|request| async move {
            let Some(count) = request.args().and_then(|args| args.get("count")?.as_u64()) else {
                return Err(RequestFailure::told("how many?"));
            };
            request.progress(json!("begun")).await?;
            for number in 0..count {
                request.part(number).await?;
            }
            Ok(json!(count))
        });
    }
    for peer in [&ours, &theirs] {
        let result = peer.request(json!({ "count": 2 }), options());
        assert_eq!(soon(result).await.unwrap(), json!(2));
        let mut replies = peer.stream(json!({ "count": 100 }), options());
        let mut seen = Vec::new();
        while let Some(reply) = soon(replies.recv()).await {
            seen.push(reply.unwrap());
        }
        assert_eq!(seen.len(), 102);
        assert_eq!(seen[0], Reply::Progress(json!("begun")));
        assert_eq!(seen[100], Reply::Part(json!(99)));
        assert_eq!(seen[101], Reply::Result(json!(100)));
        let failed = soon(peer.request(json!({}), options())).await.unwrap_err();
        assert!(matches!(&failed, RequestError::Failed { error, .. } if error == "how many?"));
    }
}

#[tokio::test]
async fn a_channel_lives_on_without_its_gateway() {
    let router = Router::start().await;
    let address = router.address;
    let (a, b) = two(&router).await;
    let (ours, theirs) = pair(&a, &b).await;
    drop(router);
    soon(ours.ping()).await.unwrap();
    soon(theirs.ping()).await.unwrap();
    until(|| [&a, &b].iter().all(|one| one.state() != ConnectionState::Connected)).await;
    soon(ours.ping()).await.unwrap();
    let router = Router::of(Gateway::start_at(address).await);
    until(|| router.agents.lock().unwrap().len() == 2).await;
    soon(ours.ping()).await.unwrap();
    assert_eq!(ours.state(), ConnectionState::Connected);
    let again = a.connect_peer(b.did(), PeerOptions::default());
    assert_eq!(soon(again).await.unwrap(), ours);
}

#[tokio::test]
async fn a_gateway_that_is_restarted_meanwhile_only_delays() {
    let router = Router::start().await;
    let address = router.address;
    let (a, b) = two(&router).await;
    let mut incoming = b.accept_peers(AcceptOptions::new());
    // The one who connects is heard before the gateway goes, the other one after it is back.
    drop(router);
    let restarting = async {
        until(|| [&a, &b].iter().all(|client| client.state() != ConnectionState::Connected)).await;
        Router::of(Gateway::start_at(address).await)
    };
    let connecting = a.connect_peer(b.did(), PeerOptions::default());
    let both = async { tokio::join!(connecting, restarting) };
    let (peer, _router) = soon(both).await;
    let peer = peer.unwrap();
    accepted(&mut incoming).await;
    soon(peer.ping()).await.unwrap();
}

#[tokio::test]
async fn forged_replayed_and_stale_offers_do_nothing() {
    let router = Router::start().await;
    let (a, b) = two(&router).await;
    let mut heard = errors(&b).0;
    let mut incoming = b.accept_peers(AcceptOptions::new());
    let (ours, _) = {
        let peer = a.connect_peer(b.did(), PeerOptions::default());
        (soon(peer).await.unwrap(), accepted(&mut incoming).await)
    };
    soon(ours.close()).await;
    until(|| b.peers().is_empty()).await;

    let old = router.log.lock().unwrap().clone();
    let old = old.iter().find(|message| message.kind() == MessageType::Offer).unwrap();
    router.deliver(&old.text);
    while !soon(heard.recv()).await.unwrap().ends_with("it came before") {}
    assert!(b.peers().is_empty());

    // One whose text was changed on its way.
    let draft = Draft::new(b.did(), Offer { sdp: "v=0".into() });
    let text = draft.sign(a.identity());
    router.deliver(&text.replace("v=0", "v=1"));
    while !soon(heard.recv()).await.unwrap().contains("not verified") {}
    assert!(b.peers().is_empty());
    a.send_draft(draft).await.unwrap();
    // It is of another day by the gateway's clock, which is the one that counts.
    while !soon(heard.recv()).await.unwrap().ends_with("it is not of now") {}
    assert!(b.peers().is_empty());
}

#[tokio::test]
async fn who_is_absent_or_declines_is_told() {
    let router = Router::start().await;
    let (a, b) = two(&router).await;
    let nobody = Identity::generate();
    let connecting = a.connect_peer(nobody.did(), PeerOptions::default());
    let error = soon(connecting).await.unwrap_err();
    assert_eq!(error.reason(), Some("unknown_agent"), "{error}");
    let _incoming = b.accept_peers(AcceptOptions::new().accept_if(|_| false));
    let error = soon(a.connect_peer(b.did(), PeerOptions::default())).await;
    assert_eq!(error.unwrap_err().reason(), Some("declined"));
    assert!(matches!(
        a.connect_peer(a.did(), PeerOptions::default()).await,
        Err(PeerError::Oneself)
    ));
}

#[tokio::test]
async fn without_a_listener_offers_are_messages_like_any_other() {
    let router = Router::start().await;
    let (a, b) = two(&router).await;
    let mut messages = b.messages();
    let sent = a.send(b.did(), Offer { sdp: "v=0".into() }).await.unwrap();
    let heard = soon(messages.recv()).await.unwrap();
    assert_eq!((heard.kind(), &*heard.id), (MessageType::Offer, &*sent));
}

#[tokio::test]
async fn one_client_has_fifty_peers() {
    let router = Router::start().await;
    let hub = agent(&router).await;
    hub.on_peer(AcceptOptions::new(), |_| ());
    hub.on_request(|request| async move { Ok(json!(request.from())) });
    let others = join_all((0..50).map(|_| agent(&router))).await;
    // Ten at a time: what is measured is not how fast a small machine shakes hands.
    let mut peers = Vec::new();
    for some in others.chunks(10) {
        let options =
            || PeerOptions { timeout: std::time::Duration::from_secs(60), ..Default::default() };
        let connecting = some.iter().map(|other| other.connect_peer(hub.did(), options()));
        for peer in soon(join_all(connecting)).await {
            peers.push(peer.unwrap());
        }
    }
    assert_eq!(hub.peers().len(), 50);
    let asked = peers.iter().map(|peer| peer.request(json!({}), options()));
    let answers = soon(join_all(asked)).await;
    for (other, answer) in others.iter().zip(answers) {
        assert_eq!(answer.unwrap(), json!(other.did()));
    }
    soon(hub.close()).await;
    for peer in peers {
        soon(peer.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn requests_go_by_a_gateway_that_carries_them_when_no_way_opens() {
    let mut gateway = Gateway::start().await;
    gateway.relay.extend([MessageType::ExecRequest, MessageType::ExecResponse]);
    let router = Router::of(gateway);
    let (a, b) = two(&router).await;
    b.on_request(|request| async move { Ok(json!(request.is_by_gateway())) });
    let result = soon(a.request(b.did(), json!({}), options())).await;
    assert_eq!(result.unwrap(), json!(true));
    // By relays alone, of which there are none.
    let options = |fallback| PeerOptions {
        fallback,
        relay_only: true,
        attempts: 1,
        open_timeout: std::time::Duration::from_secs(2),
        ..PeerOptions::default()
    };
    let _incoming = b.accept_peers(AcceptOptions::new().options(options(false)));
    let error = soon(a.connect_peer(b.did(), options(false))).await.unwrap_err();
    assert!(matches!(error, PeerError::NoPath(_) | PeerError::Transport(_)), "{error:?}");
    let peer = soon(a.connect_peer(b.did(), options(true))).await.unwrap();
    assert_eq!(peer.path(), PeerPath::Gateway);
    let result = soon(peer.request(json!({}), RequestOptions::new())).await;
    assert_eq!(result.unwrap(), json!(true));
}
