//! Agents that talk all the time, and note what becomes of every message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_protocol::{Envelope, ErrorPayload, Identity, MessageType, Offer, Rules};
use futures_util::StreamExt as _;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{agent::Agent, process::Process, soon};

/// Every so many messages one goes to an agent that never comes.
const TO_NOBODY: u64 = 4;
/// What ends a receiver.
const LAST: &str = "last";

/// Pairs of a sender and a receiver.
pub(super) struct Traffic {
    over: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Sent>>,
    receivers: Vec<JoinHandle<u64>>,
}

/// What one sender did, or all of them.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) to_somebody: u64,
    pub(super) to_nobody: u64,
    /// What the refusals said, in order: who judged at `on_route`, and who at `on_undeliverable`.
    pub(super) judged: Vec<(String, String)>,
}

impl Traffic {
    /// Begins to send, each sender a message every `pace`.
    pub(super) async fn begin(gateway: &Process, pairs: usize, pace: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let (sender, receiver) = (gateway.agent().await, gateway.agent().await);
            let to = receiver.did();
            receivers.push(tokio::spawn(receive(receiver)));
            senders.push(tokio::spawn(send(sender, to, pace, Arc::clone(&over))));
        }
        Self { over, senders, receivers }
    }

    /// Lets all of it come to an end. Fails where anything was lost, doubled or out of order.
    pub(super) async fn end(self) -> Sent {
        self.over.store(true, SeqCst);
        let mut all = Sent::default();
        for (sender, receiver) in self.senders.into_iter().zip(self.receivers) {
            let sent = soon("a sender's refusals", sender).await.unwrap();
            let received = soon("a receiver's messages", receiver).await.unwrap();
            assert_eq!(received, sent.to_somebody);
            all.to_somebody += sent.to_somebody;
            all.to_nobody += sent.to_nobody;
            all.judged.extend(sent.judged);
        }
        all
    }
}

async fn send(mut me: Agent, to: String, pace: Duration, over: Arc<AtomicBool>) -> Sent {
    let nobody = Identity::generate().did().to_owned();
    let mut sent = Sent::default();
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !over.load(SeqCst) {
        tokio::select! {
            _ = ticks.tick() => {
                if (sent.to_somebody + sent.to_nobody).is_multiple_of(TO_NOBODY) {
                    sent.to_nobody += 1;
                    me.send_offer(&nobody, "x").await;
                } else {
                    me.send_offer(&to, &sent.to_somebody.to_string()).await;
                    sent.to_somebody += 1;
                }
            }
            frame = me.socket.next() => sent.note(frame.expect("a connection").unwrap()),
        }
    }
    me.send_offer(&to, LAST).await;
    sent.to_somebody += 1;
    while (sent.judged.len() as u64) < sent.to_nobody {
        sent.note(me.frame().await.unwrap());
    }
    sent
}

impl Sent {
    fn note(&mut self, frame: Message) {
        let Message::Text(text) = frame else {
            assert!(matches!(frame, Message::Ping(_) | Message::Pong(_)), "{frame:?}");
            return;
        };
        let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        assert_eq!(envelope.kind, MessageType::Error, "{text}");
        let said = envelope.payload::<ErrorPayload>().unwrap().message;
        let [id, first, second] = said.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{said:?}");
        };
        assert_eq!(envelope.correlation_id.as_deref(), Some(id), "{said}");
        self.judged.push((first.to_owned(), second.to_owned()));
    }
}

async fn receive(mut me: Agent) -> u64 {
    let mut received = 0;
    loop {
        let text = me.text().await;
        let offer: Offer = Envelope::parse(&text, Rules::V1_STRICT).unwrap().payload().unwrap();
        if offer.sdp == LAST {
            return received + 1;
        }
        assert_eq!(offer.sdp, received.to_string(), "lost, doubled or out of order");
        received += 1;
    }
}
