//! Requests and their answers, over a channel and by way of the gateway.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use conexus_protocol::{
    Draft, ErrorCode, ExecRequest, Identity, Intent, MessageType, Offer, Ping, Rules,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use super::town::{Agent, Fate, Town, soon, until};
use crate::{
    ChannelMessage, HandlerId, IncomingRequest, Message, Peer, PeerFault, PeerOptions, PeerPath,
    Reply, RequestError, RequestFailure, RequestOptions,
    handlers::Registry,
    p2p::calls::{Calls, Whom},
};

impl Agent {
    fn serve<F>(&self, handler: impl Fn(IncomingRequest) -> F + Send + Sync + 'static) -> HandlerId
    where
        F: Future<Output = Result<Value, RequestFailure>> + Send + 'static,
    {
        let id = Registry::default().next_id();
        self.peers.calls.on_request(id, handler);
        id
    }

    async fn ask(&self, of: &Self, args: Value) -> Result<Value, RequestError> {
        let whom = Whom::agent(&self.peers, of.did())?;
        Calls::request(&self.peers, whom, args, RequestOptions::new()).await
    }
}

async fn connected(a: &Agent, b: &Agent) -> (Peer, Peer) {
    let mut incoming = b.accept();
    let (ours, theirs) = soon(async { tokio::join!(a.connect(b), incoming.recv()) }).await;
    (ours.unwrap(), theirs.unwrap())
}

fn options() -> RequestOptions {
    RequestOptions::new()
}

/// Waits until it is cancelled, and says so.
fn stubborn(told: mpsc::UnboundedSender<&'static str>) -> impl Fn(IncomingRequest) -> BoxedAnswer {
    move |request| {
        let told = told.clone();
        Box::pin(async move {
            told.send("begun")?;
            request.cancelled().await;
            assert!(matches!(request.part(1).await, Err(RequestError::Over)));
            told.send("cancelled")?;
            Ok(json!("too late"))
        })
    }
}

type BoxedAnswer = futures_util::future::BoxFuture<'static, Result<Value, RequestFailure>>;

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_on_either_side_with_progress_and_parts() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, theirs) = connected(&a, &b).await;
    for agent in [&a, &b] {
        agent.serve(|request| async move {
            request.progress(json!({ "done": 0.5 })).await?;
            if request.wants_stream() {
                request.part("one").await?;
                request.part("two").await?;
            }
            Ok(json!({ "from": request.from(), "args": request.args() }))
        });
    }
    for (peer, asker) in [(&ours, &a), (&theirs, &b)] {
        let (told, mut heard) = mpsc::unbounded_channel();
        let hear = options().on_progress(move |word| drop(told.send(word)));
        let result = soon(peer.request(json!({ "x": 1 }), hear)).await.unwrap();
        assert_eq!(result, json!({ "from": asker.did(), "args": { "x": 1 } }));
        assert_eq!(heard.recv().await, Some(json!({ "done": 0.5 })));

        let mut replies = peer.stream(Value::Null, options());
        let mut all = Vec::new();
        while let Some(reply) = soon(replies.recv()).await {
            all.push(reply.unwrap());
        }
        let last = Reply::Result(json!({ "from": asker.did(), "args": null }));
        let parts = [Reply::Part(json!("one")), Reply::Part(json!("two"))];
        assert_eq!(all[0], Reply::Progress(json!({ "done": 0.5 })));
        assert_eq!((&all[1..3], &all[3..]), (&parts[..], &[last][..]));
    }
    assert!(soon(ours.ping()).await.is_ok());
    assert!(matches!(ours.request(json!([1]), options()).await, Err(RequestError::Args)));
    assert_eq!(town.sent(MessageType::ExecRequest).len(), 0, "the gateway saw none of it");
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_as_far_as_they_are_meant_to_be_and_a_panic_harms_no_other() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _theirs) = connected(&a, &b).await;
    let refused = soon(ours.request(json!({}), options())).await.unwrap_err();
    assert_eq!(refused.reason(), Some("not_served"));
    b.serve(|request| async move {
        match request.args().and_then(|args| args.get("do")?.as_str()) {
            Some("told") => Err(RequestFailure::told("not today")),
            Some("fail") => Err(std::io::Error::other("the disk is full").into()),
            Some("panic") => panic!("on purpose"),
            Some("large") => Ok(json!("x".repeat(2 * 1024 * 1024))),
            _ => Ok(json!("done")),
        }
    });
    for (what, told) in [
        ("told", "not today"),
        ("fail", "the request failed"),
        ("panic", "the request failed"),
        ("large", "the result could not be sent"),
    ] {
        let failed = soon(ours.request(json!({ "do": what }), options())).await.unwrap_err();
        assert!(matches!(&failed, RequestError::Failed { error, .. } if error == told), "{failed}");
    }
    assert_eq!(soon(ours.request(json!({ "do": "x" }), options())).await.unwrap(), json!("done"));
    let words = b.member.words().join("\n");
    assert!(
        words.contains("the disk is full") && words.contains("panicked: on purpose"),
        "{words}"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_says_so_and_nothing_follows() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, theirs) = connected(&a, &b).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    b.serve(stubborn(told));

    let began = Instant::now();
    let quick = options().timeout(Duration::from_secs(2));
    let error = soon(ours.request(json!({}), quick)).await.unwrap_err();
    assert!(matches!(error, RequestError::Timeout(_) | RequestError::Refused(_)), "{error}");
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!((heard.recv().await, heard.recv().await), (Some("begun"), Some("cancelled")));

    // Dropped by its asker.
    let mut replies = ours.stream(json!({}), options().timeout(Duration::from_secs(500)));
    let dropped = async {
        tokio::select! {
            _ = replies.recv() => panic!("there is none"),
            begun = heard.recv() => assert_eq!(begun, Some("begun")),
        }
        drop(replies);
        heard.recv().await
    };
    let began = Instant::now();
    assert_eq!(soon(dropped).await, Some("cancelled"));
    assert!(began.elapsed() < Duration::from_secs(1));

    // The connection ends.
    let asking = ours.request(json!({}), options());
    let ending = async {
        assert_eq!(heard.recv().await, Some("begun"));
        theirs.close().await;
        heard.recv().await
    };
    let (error, told) = soon(async { tokio::join!(asking, ending) }).await;
    assert!(matches!(error, Err(RequestError::Lost(_))), "{error:?}");
    assert_eq!(told, Some("cancelled"));
    let error = ours.request(json!({}), options()).await;
    assert!(matches!(error, Err(RequestError::NotConnected)));
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_bounded_on_both_sides() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _theirs) = connected(&a, &b).await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    b.serve(move |_| {
        let count = Arc::clone(&counted);
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(5)).await;
            Ok(json!(1))
        }
    });
    let all = (0..65).map(|_| ours.request(json!({}), options()));
    let outcomes = soon(join_all(all)).await;
    let busy = outcomes.iter().filter(|one| matches!(one, Err(RequestError::Busy(_)))).count();
    assert_eq!((busy, count.load(Ordering::Relaxed)), (1, 64));

    // An asker that does not keep to it is told.
    let control = a.peers.get(b.key()).unwrap().control().unwrap();
    let before = count.load(Ordering::Relaxed);
    for _ in 0..70 {
        let (_, text) = a.sign(&b, ExecRequest::default());
        control.say(text).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(count.load(Ordering::Relaxed) - before, 64);
}

#[tokio::test(start_paused = true)]
async fn parts_that_nobody_reads_are_bounded() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _theirs) = connected(&a, &b).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    b.serve(move |request| {
        let told = told.clone();
        async move {
            for part in 0..5000 {
                if request.part(part).await.is_err() {
                    break;
                }
            }
            told.send(request.is_cancelled())?;
            Ok(Value::Null)
        }
    });
    let mut replies = ours.stream(json!({}), options());
    assert_eq!(soon(replies.recv()).await.unwrap().unwrap(), Reply::Part(json!(0)));
    assert_eq!(soon(heard.recv()).await, Some(true));
    let mut last = None;
    while let Some(reply) = soon(replies.recv()).await {
        last = Some(reply);
    }
    assert!(matches!(last, Some(Err(RequestError::SlowReader(_)))), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn intents_are_answered_by_intents() {
    let town = Town::new();
    let (a, b) = town.two();
    let (ours, _theirs) = connected(&a, &b).await;
    let ask = || Intent { query: Some("a flight".into()), ..Intent::default() };
    let refused = soon(ours.intent(ask(), Duration::from_secs(5))).await.unwrap_err();
    assert_eq!(refused.reason(), Some("not_served"));
    b.peers.calls.on_intent(Registry::default().next_id(), |message: Message| async move {
        match message.payload {
            conexus_protocol::Payload::Intent(Intent { query: Some(query), .. }) => {
                Ok(Intent { status: Some(format!("{query}?")), ..Intent::default() })
            }
            _ => Err(RequestFailure::told("of what?")),
        }
    });
    let answer = soon(ours.intent(ask(), Duration::from_secs(5))).await.unwrap();
    assert_eq!(answer.status.as_deref(), Some("a flight?"));
    let refused = soon(ours.intent(Intent::default(), Duration::from_secs(5))).await.unwrap_err();
    assert_eq!(refused.reason(), Some("failed"));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_of_that_agent_is_dropped_and_reported() {
    let town = Town::new();
    let (a, b) = town.two();
    connected(&a, &b).await;
    let core = b.peers.get(a.key()).unwrap();
    let forged = Draft::new(b.did(), Ping::default()).sign(&Identity::generate());
    let (_, altered) = a.sign(&b, Intent { query: Some("yes".into()), ..Intent::default() });
    let altered = altered.replace("yes", "no!");
    let (_, elsewhere) = a.sign(&town.agent(), Ping::default());
    let (_, offer) = a.sign(&b, Offer { sdp: "v=0".into() });
    let heard = |text: String| {
        let message = ChannelMessage::Text(text);
        b.peers.calls.heard(&b.peers, &core, message).unwrap_err()
    };
    assert!(matches!(heard(forged), PeerFault::AnothersWord));
    assert!(matches!(heard(altered), PeerFault::Unverified(_)));
    assert!(matches!(heard(elsewhere), PeerFault::NotForUs));
    assert!(matches!(heard(offer), PeerFault::OutOfPlace(MessageType::Offer)));
    assert!(matches!(heard("nonsense".into()), PeerFault::Malformed(_)));
    let bytes = ChannelMessage::from(vec![1, 2]);
    let fault = b.peers.calls.heard(&b.peers, &core, bytes).unwrap_err();
    assert!(matches!(fault, PeerFault::Bytes));
}

#[tokio::test(start_paused = true)]
async fn requests_go_by_the_gateway_only_where_all_three_want_that() {
    let town = Town::new();
    let (a, b) = town.two();
    b.serve(|request| async move { Ok(json!(request.is_by_gateway())) });
    let refused = soon(a.ask(&b, json!({}))).await.unwrap_err();
    assert!(matches!(refused, RequestError::NotRelayed(MessageType::ExecRequest)), "{refused}");
    a.member.relays.store(true, Ordering::Relaxed);
    assert_eq!(soon(a.ask(&b, json!({}))).await.unwrap(), json!(true));

    town.net.is_blocked.store(true, Ordering::Relaxed);
    let _incoming = b.accept();
    assert!(soon(a.connect(&b)).await.is_err(), "nobody asked for the fallback");
    let fallback = PeerOptions { fallback: true, ..PeerOptions::default() };
    let peer = soon(a.connect_with(&b, fallback.clone())).await.unwrap();
    assert_eq!(peer.path(), PeerPath::Gateway);
    assert_eq!(soon(peer.request(json!({}), options())).await.unwrap(), json!(true));
    assert!(matches!(peer.ping().await, Err(RequestError::DirectOnly(_))));
    assert!(peer.open_channel("x", Default::default()).await.is_err());
    peer.close().await;
    a.member.relays.store(false, Ordering::Relaxed);
    assert!(soon(a.connect_with(&b, fallback)).await.is_err(), "the gateway does not carry it");
}

#[tokio::test(start_paused = true)]
async fn requests_by_the_gateway_count_once_and_only_now() {
    let town = Town::new();
    let (a, b) = town.two();
    a.member.relays.store(true, Ordering::Relaxed);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    b.serve(move |_| {
        let count = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(json!(count)) }
    });
    assert_eq!(soon(a.ask(&b, json!({}))).await.unwrap(), json!(0));
    let old = town.sent(MessageType::ExecRequest)[0].clone();
    b.member.take(old, Some(a.key()));
    assert!(b.member.words().last().unwrap().ends_with("it came before"));
    b.member.ahead.store(-61_000, Ordering::Relaxed);
    let refused = soon(a.ask(&b, json!({}))).await.unwrap_err();
    assert_eq!(refused.reason(), Some("stale"));
    assert_eq!(count.load(Ordering::Relaxed), 1);

    b.member.ahead.store(0, Ordering::Relaxed);
    town.rule(|message| match message.kind() {
        MessageType::ExecRequest => Fate::Refuse(ErrorCode::ConnectionRefused, "denied"),
        _ => Fate::Deliver,
    });
    let refused = soon(a.ask(&b, json!({}))).await.unwrap_err();
    assert_eq!(refused.reason(), Some("denied"));

    // Without a handler it is a message like any other.
    let c = town.agent();
    let (_, text) = a.sign(&c, ExecRequest::default());
    let message = Message::parse(&text, Rules::V1_1).unwrap();
    c.member.take(message, Some(a.key()));
    assert_eq!(c.member.left.lock().unwrap().len(), 1);
    until(|| c.member.words().is_empty()).await;
}
