//! Agents of the client crate that connect to each other, introduced by the real gateway, over the real WebRTC
//! stack.

use std::time::Duration;

use conexus_client::{
    AcceptOptions, ChannelError, ChannelMessage, ChannelOptions, Client, ClientError,
    ConnectionState, Identity, IncomingPeers, Peer, PeerError, PeerOptions, PeerPath,
    ReconnectPolicy, Reply, RequestError, RequestFailure, RequestOptions,
    protocol::{Draft, Message, MessageType, Offer, Payload},
};
use conexus_gateway::config::Settings;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{gateway::TestGateway, soon, until};

fn builder(url: &str, identity: Identity) -> conexus_client::Builder {
    let policy = ReconnectPolicy {
        initial: Duration::from_millis(20),
        max: Duration::from_millis(200),
        max_attempts: 0,
        ..ReconnectPolicy::default()
    };
    Client::builder(url, identity).reconnect(policy)
}

async fn agent(gateway: &TestGateway) -> Client {
    let connecting = builder(&gateway.url(), Identity::generate()).connect();
    soon("the client to connect", connecting).await.unwrap()
}

/// Two agents, the one with the smaller key first.
async fn two(gateway: &TestGateway) -> (Client, Client) {
    let (a, b) = (agent(gateway).await, agent(gateway).await);
    if a.identity().key() < b.identity().key() { (a, b) } else { (b, a) }
}

async fn pair(a: &Client, b: &Client) -> (Peer, Peer) {
    let mut incoming = b.accept_peers(AcceptOptions::new());
    let ours = soon("a connection", a.connect_peer(b.did(), PeerOptions::default())).await;
    (ours.unwrap(), accepted(&mut incoming).await)
}

async fn accepted(incoming: &mut IncomingPeers) -> Peer {
    soon("a peer", incoming.recv()).await.unwrap()
}

fn options() -> RequestOptions {
    RequestOptions::new()
}

/// The texts that error handlers hear.
fn errors(client: &Client) -> mpsc::UnboundedReceiver<String> {
    let (sender, heard) = mpsc::unbounded_channel();
    client.on_error(move |error: &ClientError| {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        sender.send(format!("{error}: {}", cause.unwrap_or_default()))
    });
    heard
}

#[tokio::test]
async fn agents_connect_whichever_offers_and_close() {
    let gateway = TestGateway::start().await;
    let (a, b) = two(&gateway).await;
    for (a, b) in [(&a, &b), (&b, &a)] {
        let (ours, theirs) = pair(a, b).await;
        for peer in [&ours, &theirs] {
            assert_eq!((peer.state(), peer.path()), (ConnectionState::Connected, PeerPath::Direct));
        }
        let stats = ours.stats().await;
        assert!(stats.pair.is_some() && stats.connect_time.is_some(), "{stats:?}");
        let channel = ours.open_channel("talk", ChannelOptions::default());
        let channel = soon("a channel", channel).await.unwrap();
        let mut channels = theirs.channels();
        let other = soon("its other end", channels.recv()).await.unwrap();
        channel.send("hello").await.unwrap();
        let heard = soon("a message", other.recv()).await.unwrap().unwrap();
        assert_eq!(heard, ChannelMessage::from("hello"));
        let large = vec![7_u8; 1024 * 1024];
        soon("a large message", other.send(large.clone())).await.unwrap();
        let heard = soon("a large message", channel.recv()).await.unwrap().unwrap();
        assert_eq!(heard.as_bytes(), large);
        soon("a close", ours.close()).await;
        soon("an orderly end", theirs.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn both_at_once_get_the_one_connection() {
    let gateway = TestGateway::start().await;
    let (a, b) = two(&gateway).await;
    let both = async {
        tokio::join!(
            a.connect_peer(b.did(), PeerOptions::default()),
            b.connect_peer(a.did(), PeerOptions::default()),
        )
    };
    let (one, other) = soon("the connection", both).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    soon("a pong", one.ping()).await.unwrap();
    assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    soon("a close", one.close()).await;
    soon("an orderly end", other.closed()).await.unwrap();
}

#[tokio::test]
async fn requests_go_both_ways_with_progress_and_streams() {
    let gateway = TestGateway::start().await;
    let (a, b) = two(&gateway).await;
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
        assert_eq!(soon("a result", result).await.unwrap(), json!(2));
        let mut replies = peer.stream(json!({ "count": 100 }), options());
        let mut seen = Vec::new();
        while let Some(reply) = soon("a reply", replies.recv()).await {
            seen.push(reply.unwrap());
        }
        assert_eq!(seen.len(), 102);
        assert_eq!(seen[0], Reply::Progress(json!("begun")));
        assert_eq!(seen[100], Reply::Part(json!(99)));
        assert_eq!(seen[101], Reply::Result(json!(100)));
        let failed = soon("a failure", peer.request(json!({}), options())).await.unwrap_err();
        assert!(matches!(&failed, RequestError::Failed { error, .. } if error == "how many?"));
    }
}

#[tokio::test]
async fn a_channel_lives_on_without_its_gateway() {
    let mut gateway = TestGateway::start().await;
    let port = gateway.addr;
    let (a, b) = two(&gateway).await;
    let (ours, theirs) = pair(&a, &b).await;
    gateway.stop().await;
    drop(gateway);
    soon("a pong", ours.ping()).await.unwrap();
    soon("a pong", theirs.ping()).await.unwrap();
    until("both to notice", || {
        [&a, &b].iter().all(|client| client.state() != ConnectionState::Connected)
    })
    .await;
    soon("a pong", ours.ping()).await.unwrap();
    let gateway = TestGateway::start_with(|s| s.server.listen = port).await;
    gateway.has_agents(2).await;
    soon("a pong", ours.ping()).await.unwrap();
    assert_eq!(ours.state(), ConnectionState::Connected);
    let again = a.connect_peer(b.did(), PeerOptions::default());
    assert_eq!(soon("the same peer", again).await.unwrap(), ours);
}

#[tokio::test]
async fn a_gateway_that_is_restarted_meanwhile_only_delays() {
    let mut gateway = TestGateway::start().await;
    let address = gateway.addr;
    let (a, b) = two(&gateway).await;
    let mut incoming = b.accept_peers(AcceptOptions::new());
    // The one who connects is heard before the gateway goes, the other one after it is back.
    gateway.stop().await;
    drop(gateway);
    let restarting = async {
        until("both to notice", || {
            [&a, &b].iter().all(|client| client.state() != ConnectionState::Connected)
        })
        .await;
        TestGateway::start_with(|s| s.server.listen = address).await
    };
    // The other one comes back when the gateway asked it to, which may be seconds later.
    let options = PeerOptions { attempts: 6, ..PeerOptions::default() };
    let connecting = a.connect_peer(b.did(), options);
    let both = async { tokio::join!(connecting, restarting) };
    let (peer, _gateway) = soon("the connection", both).await;
    let peer = peer.unwrap();
    accepted(&mut incoming).await;
    soon("a pong", peer.ping()).await.unwrap();
}

#[tokio::test]
async fn forged_replayed_and_misaddressed_offers_do_nothing() {
    let gateway = TestGateway::start().await;
    let (a, b) = two(&gateway).await;
    let mut heard = errors(&b);
    let mut incoming = b.accept_peers(AcceptOptions::new());
    let (ours, _) = {
        let peer = a.connect_peer(b.did(), PeerOptions::default());
        (soon("a connection", peer).await.unwrap(), accepted(&mut incoming).await)
    };
    soon("a close", ours.close()).await;
    until("the peer to end", || b.peers().is_empty()).await;

    // The same OFFER twice, by its id.
    let draft = Draft::new(b.did(), Offer { sdp: "v=0".into() });
    let again = draft.clone();
    a.send_draft(draft).await.unwrap();
    a.send_draft(again).await.unwrap();
    let mut words = Vec::new();
    soon("word of the replay", async {
        while !words.iter().any(|word: &String| word.ends_with("it came before")) {
            words.extend(heard.recv().await);
        }
    })
    .await;
    until("the nonsense to end", || b.peers().is_empty()).await;
}

#[tokio::test]
async fn who_is_absent_or_declines_is_told() {
    let gateway = TestGateway::start().await;
    let (a, b) = two(&gateway).await;
    let nobody = Identity::generate();
    let connecting = a.connect_peer(nobody.did(), PeerOptions::default());
    let error = soon("a refusal", connecting).await.unwrap_err();
    assert_eq!(error.reason(), Some("unknown_agent"), "{error}");
    let _incoming = b.accept_peers(AcceptOptions::new().accept_if(|_| false));
    let error = soon("a refusal", a.connect_peer(b.did(), PeerOptions::default())).await;
    assert_eq!(error.unwrap_err().reason(), Some("declined"));
    assert!(matches!(
        a.connect_peer(a.did(), PeerOptions::default()).await,
        Err(PeerError::Oneself)
    ));
}

#[tokio::test]
async fn without_a_listener_offers_are_messages_like_any_other() {
    let gateway = TestGateway::start().await;
    let (a, b) = two(&gateway).await;
    let mut messages = b.messages();
    let sent = a.send(b.did(), Offer { sdp: "v=0".into() }).await.unwrap();
    let heard = soon("the offer", messages.recv()).await.unwrap();
    assert_eq!((heard.kind(), &*heard.id), (MessageType::Offer, &*sent));
    let Payload::Offer(offer) = &heard.payload else { panic!("{:?}", Message::kind(&heard)) };
    assert_eq!(offer.sdp, "v=0");
}

#[tokio::test]
async fn one_client_has_fifty_peers() {
    let gateway = TestGateway::start().await;
    let hub = agent(&gateway).await;
    hub.on_peer(AcceptOptions::new(), |_| ());
    hub.on_request(|request| async move { Ok(json!(request.from())) });
    let others = join_all((0..50).map(|_| agent(&gateway))).await;
    // Ten at a time: what is measured is not how fast a small machine shakes hands.
    let mut peers = Vec::new();
    for some in others.chunks(10) {
        let options = || PeerOptions { timeout: Duration::from_secs(60), ..Default::default() };
        let connecting = some.iter().map(|other| other.connect_peer(hub.did(), options()));
        for peer in soon("ten connections", join_all(connecting)).await {
            peers.push(peer.unwrap());
        }
    }
    assert_eq!(hub.peers().len(), 50);
    let asked = peers.iter().map(|peer| peer.request(json!({}), options()));
    let answers = soon("fifty answers", join_all(asked)).await;
    for (other, answer) in others.iter().zip(answers) {
        assert_eq!(answer.unwrap(), json!(other.did()));
    }
    soon("the farewell", hub.close()).await;
    for peer in peers {
        soon("an orderly end", peer.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_opens_as_many_channels_as_it_may() {
    let gateway = TestGateway::start().await;
    let (a, b) = two(&gateway).await;
    let few = PeerOptions { max_channels: 1, ..PeerOptions::default() };
    let mut incoming = b.accept_peers(AcceptOptions::new().options(few));
    let ours = soon("a connection", a.connect_peer(b.did(), PeerOptions::default())).await;
    let (ours, theirs) = (ours.unwrap(), accepted(&mut incoming).await);
    let mut channels = theirs.channels();
    let open = || ours.open_channel("talk", ChannelOptions::default());
    let first = soon("a channel", open()).await.unwrap();
    let other = soon("its other end", channels.recv()).await.unwrap();
    match soon("a channel", open()).await {
        Ok(beyond) => soon("it to end", beyond.closed()).await.unwrap(),
        Err(error) => assert!(matches!(error, ChannelError::Closed), "{error:?}"),
    }
    // Nothing else is harmed, the place is free again, and the limit is that of this side alone.
    first.send("hello").await.unwrap();
    assert_eq!(soon("it", other.recv()).await.unwrap().unwrap(), ChannelMessage::from("hello"));
    soon("an end", first.close()).await;
    soon("it to be seen", other.closed()).await.unwrap();
    let _next = soon("a channel", open()).await.unwrap();
    assert!(soon("its other end", channels.recv()).await.is_some());
    let back = || theirs.open_channel("back", ChannelOptions::default());
    let _two = (soon("one", back()).await.unwrap(), soon("another", back()).await.unwrap());
}

#[tokio::test]
async fn requests_go_by_a_gateway_that_carries_them_when_no_way_opens() {
    let relays = |settings: &mut Settings| {
        settings.routing.relay.extend([MessageType::ExecRequest, MessageType::ExecResponse]);
    };
    let gateway = TestGateway::start_with(relays).await;
    let (a, b) = two(&gateway).await;
    b.on_request(|request| async move { Ok(json!(request.is_by_gateway())) });
    let result = soon("a result", a.request(b.did(), json!({}), options())).await;
    assert_eq!(result.unwrap(), json!(true));
    // By relays alone, of which there are none.
    let options = |fallback| PeerOptions {
        fallback,
        relay_only: true,
        attempts: 1,
        open_timeout: Duration::from_secs(2),
        ..PeerOptions::default()
    };
    let _incoming = b.accept_peers(AcceptOptions::new().options(options(false)));
    let error = soon("no way", a.connect_peer(b.did(), options(false))).await.unwrap_err();
    assert!(matches!(error, PeerError::NoPath(_) | PeerError::Transport(_)), "{error:?}");
    let peer = soon("the fallback", a.connect_peer(b.did(), options(true))).await.unwrap();
    assert_eq!(peer.path(), PeerPath::Gateway);
    let result = soon("a result", peer.request(json!({}), RequestOptions::new())).await;
    assert_eq!(result.unwrap(), json!(true));
}
