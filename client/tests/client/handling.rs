//! Handlers and streams: who is told, in which order, and what failures do.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use conexus_client::{ClientError, ConnectionState, Identity, protocol::RefusalReason};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    builder, connect, connected, errors,
    gateway::{Gateway, offer, sdp},
    messages, soon,
};

#[tokio::test]
async fn handlers_run_in_the_order_of_registration_sync_and_async_alike() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let log = |name: &'static str| {
        let calls = Arc::clone(&calls);
        move || calls.lock().unwrap().push(name)
    };
    let (first, second, third) = (log("sync"), log("async"), log("result"));
    client.on_message(move |_| first());
    client.on_message_async(move |_| {
        let second = second.clone();
        async move {
            tokio::task::yield_now().await;
            second();
        }
    });
    client.on_message(move |_| {
        third();
        Ok::<(), std::io::Error>(())
    });
    let mut heard = messages(&client);
    for text in ["1", "2"] {
        peer.deliver(&Identity::generate(), text).await;
        assert_eq!(heard.next().await, text);
    }
    let expected = ["sync", "async", "result", "sync", "async", "result"];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_removed_handler_is_not_called_again() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let id = client.on_message(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let mut heard = messages(&client);
    let agent = Identity::generate();
    peer.deliver(&agent, "1").await;
    heard.next().await;
    assert!(client.remove_handler(id));
    assert!(!client.remove_handler(id));
    peer.deliver(&agent, "2").await;
    heard.next().await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_handler_may_remove_itself() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (handle, slot) = (client.handle(), Arc::new(Mutex::new(None)));
    let own = Arc::clone(&slot);
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let id = client.on_message(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        assert!(handle.remove_handler(own.lock().unwrap().unwrap()));
    });
    *slot.lock().unwrap() = Some(id);
    let mut heard = messages(&client);
    for text in ["1", "2"] {
        peer.deliver(&Identity::generate(), text).await;
        heard.next().await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_handler_that_panics_or_fails_harms_no_other_and_is_reported() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    client.on_message(|_| -> () { panic!("in a sync handler") });
    client.on_message_async(|message| async move {
        assert!(message.text.is_empty(), "in an async handler");
    });
    client.on_message(|_| Err("an error of its own"));
    client.on_error(|_| -> () { panic!("error handlers, too") });
    let mut errors = errors(&client);
    let mut heard = messages(&client);
    for text in ["1", "2"] {
        peer.deliver(&Identity::generate(), text).await;
        assert!(errors.next().await.ends_with("failed: panicked: in a sync handler"));
        assert!(errors.next().await.ends_with("failed: panicked: in an async handler"));
        assert!(errors.next().await.ends_with("failed: an error of its own"));
        assert_eq!(heard.next().await, text);
    }
    assert_eq!(client.state(), ConnectionState::Connected);
}

#[tokio::test]
async fn an_error_of_the_gateway_goes_to_the_error_handlers_alone() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (sender, mut refusals) = mpsc::unbounded_channel();
    client.on_error_async(move |error| {
        let sender = sender.clone();
        async move {
            if let ClientError::Refused(refusal) = &*error {
                sender.send(refusal.clone())?;
            }
            Ok::<_, mpsc::error::SendError<_>>(())
        }
    });
    let mut heard = messages(&client);
    let agent = Identity::generate();
    let id = client.send(agent.did(), offer_payload()).await.unwrap();
    peer.refuse(&id, RefusalReason::QueueFull).await;
    let refusal = soon(refusals.recv()).await.unwrap();
    assert_eq!(refusal.correlation_id.as_deref(), Some(&*id));
    assert_eq!(refusal.reason, Some(RefusalReason::QueueFull));
    peer.deliver(&agent, "after").await;
    assert_eq!(heard.next().await, "after", "the ERROR was no message");
}

#[tokio::test]
async fn garbage_is_reported_and_the_session_goes_on() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (mut errors, mut heard) = (errors(&client), messages(&client));
    peer.send_text("{\"id\":").await;
    assert!(errors.next().await.starts_with("a malformed message arrived"));
    futures_util::SinkExt::send(&mut peer.socket, vec![1, 2, 3].into()).await.unwrap();
    assert_eq!(errors.next().await, "a binary frame of 3 bytes arrived");
    peer.deliver(&Identity::generate(), "fine").await;
    assert_eq!(heard.next().await, "fine");
}

#[tokio::test]
async fn streams_see_what_handlers_see_and_end_with_the_client() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (mut one, two, unread) = (client.messages(), client.messages(), client.messages());
    drop(unread);
    for text in ["1", "2", "3"] {
        peer.deliver(&Identity::generate(), text).await;
    }
    assert_eq!(sdp(&soon(one.recv()).await.unwrap()), "1");
    assert_eq!(sdp(&soon(one.next()).await.unwrap()), "2");
    drop(one);
    let closing = async {
        assert!(peer.ends().await);
    };
    let rest = two.map(|message| sdp(&message)).collect::<Vec<_>>();
    let (rest, (), ()) = soon(async { tokio::join!(rest, client.close(), closing) }).await;
    assert_eq!(rest, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_slow_handler_stops_the_gateway_and_loses_nothing() {
    const MESSAGES: usize = 200;
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).inbound_queue(2).build().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut started) = mpsc::unbounded_channel();
    let entered = Arc::clone(&gate);
    client.on_message_async(move |message| {
        let (gate, sender) = (Arc::clone(&entered), sender.clone());
        async move {
            sender.send(sdp(&message)).unwrap();
            gate.acquire().await.unwrap().forget();
        }
    });
    let mut peer = connect(&mut client, &gateway).await;

    // 12 MB, more than the kernel's buffers for a socket hold.
    let agent = Identity::generate();
    let flood = tokio::spawn(async move {
        for number in 0..MESSAGES {
            peer.deliver(&agent, &format!("{number:060000}")).await;
        }
        peer
    });
    tokio::pin!(flood);
    let text = |number: usize| format!("{number:060000}");
    assert_eq!(soon(started.recv()).await.unwrap(), text(0));
    let blocked = tokio::time::timeout(Duration::from_millis(300), &mut flood).await;
    assert!(blocked.is_err(), "the gateway could write on though nothing was handled");

    gate.add_permits(MESSAGES);
    for number in 1..MESSAGES {
        assert_eq!(soon(started.recv()).await.unwrap(), text(number));
    }
    soon(flood).await.unwrap();
}

#[tokio::test]
async fn a_handler_may_ask_and_wait_for_the_answer() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let agent = Identity::generate();
    let (sender, mut answers) = mpsc::unbounded_channel();
    let handle = client.handle();
    client.on_message_async(move |message| {
        let (handle, sender) = (handle.clone(), sender.clone());
        async move {
            let answer = handle.send_confirmed(&*message.from, offer_payload(), None).await;
            sender.send(sdp(&answer.unwrap())).unwrap();
        }
    });
    peer.deliver(&agent, "ask").await;
    let question = peer.receive().await;
    let answer = offer(peer.agent(), "told").in_reply_to(&*question.id).sign(&agent);
    peer.send_text(answer).await;
    assert_eq!(soon(answers.recv()).await.unwrap(), "told");
}

fn offer_payload() -> conexus_client::protocol::Offer {
    conexus_client::protocol::Offer { sdp: "v=0".into() }
}
