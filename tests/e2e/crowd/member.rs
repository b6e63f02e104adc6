//! One agent of the crowd: it sends, and comes and goes as is its habit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_protocol::{
    Draft, Envelope, Identity, MessageType, Offer, Payload, Ping, Rules, Subprotocol, Unregister,
};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Crowd,
    ledger::{Ledger, Target},
};
use crate::support::{
    agent::{Agent, Socket},
    soon, until,
};

/// The pace where the crowd is to send for a time: 20 messages a second.
const PACE: Duration = Duration::from_millis(50);

/// How an agent ends its sessions, all but the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Has only one.
    Stays,
    /// Registers anew while the older session still is there.
    TakesOver,
    /// Sends UNREGISTER.
    Unregisters,
    /// Closes the WebSocket.
    Closes,
    /// Drops the connection, with whatever lies in it.
    Crashes,
}

impl Habit {
    /// The habit of a member of the crowd: of twenty, thirteen stay.
    pub(super) const fn of(member: usize) -> Self {
        match member % 20 {
            0 | 10 => Self::TakesOver,
            1 | 11 => Self::Unregisters,
            2 | 12 => Self::Closes,
            3 => Self::Crashes,
            _ => Self::Stays,
        }
    }
}

/// What a member hears from the gateway itself.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Registered,
    Pong,
}

/// A member's connection, whose incoming half is read in the background.
pub(super) struct Session {
    identity: Identity,
    sending: SplitSink<Socket, Message>,
    reading: JoinHandle<Option<u16>>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

/// Sends a member's messages. Returns its last session once all that it sent has come to an end.
pub(super) async fn live(crowd: Arc<Crowd>, me: usize) -> Session {
    let mut rng = StdRng::seed_from_u64(crowd.seed.wrapping_add(me as u64));
    let habit = Habit::of(me);
    let mut session = Session::open(&crowd, me, me, None).await;
    let mut sessions = 1;
    let mut next_change = rng.random_range(5..20);
    for number in 0.. {
        let goes_on = match crowd.until {
            Some(end) => Instant::now() < end,
            None => number < crowd.messages,
        };
        if !goes_on {
            break;
        }
        session.send_offer(&crowd, me, &mut rng).await;
        if crowd.until.is_some() {
            sleep(PACE.mul_f64(rng.random_range(0.5..1.5))).await;
        } else {
            tokio::task::yield_now().await;
        }
        if habit != Habit::Stays && number == next_change {
            next_change += rng.random_range(5..20) * sessions;
            until("a member's messages to end", || crowd.ledger.is_quiet(me)).await;
            session.ping().await;
            session = session.change(&crowd, me, habit, sessions, &mut rng).await;
            sessions += 1;
        }
    }
    until("a member's messages to end", || crowd.ledger.is_quiet(me)).await;
    session.ping().await;
    session
}

impl Session {
    /// Connects and registers. An older session that this one takes over is read to its end
    /// before anything is read here, so that what they saw has an order.
    async fn open(crowd: &Crowd, me: usize, nth: usize, older: Option<Session>) -> Self {
        let identity = crowd.members[me].clone();
        let subprotocol = if nth.is_multiple_of(2) { Subprotocol::V1 } else { Subprotocol::V1_1 };
        let agent = Agent::connect_as(&crowd.gateway, subprotocol, identity.clone()).await;
        let register = Draft::new(identity.did(), agent.registration()).sign(&identity);
        let (mut sending, stream) = agent.socket.split();
        sending.send(Message::text(register)).await.unwrap();
        if let Some(older) = older {
            let code = older.ended().await;
            if code != Some(4003) {
                crowd.ledger.fault(format!("{me} was taken over and told {code:?}"));
            }
        }
        let (tell, heard) = mpsc::unbounded_channel();
        let reading = tokio::spawn(read(stream, Arc::clone(&crowd.ledger), me, tell));
        let mut session = Self { identity, sending, reading, heard };
        if subprotocol == Subprotocol::V1_1 {
            session.hears(Heard::Registered).await;
        } else {
            session.ping().await;
        }
        session
    }

    /// Ends this session as is the member's habit, and opens another.
    async fn change(
        self,
        crowd: &Crowd,
        me: usize,
        habit: Habit,
        nth: usize,
        rng: &mut StdRng,
    ) -> Self {
        let told = match habit {
            Habit::Stays => return self,
            Habit::TakesOver => return Self::open(crowd, me, me + nth, Some(self)).await,
            Habit::Unregisters => self.unregister().await,
            Habit::Closes => self.close().await,
            Habit::Crashes => self.crash().await,
        };
        if habit == Habit::Unregisters && told != Some(1000) {
            crowd.ledger.fault(format!("{me} unregistered and was told {told:?}"));
        }
        sleep(Duration::from_millis(rng.random_range(0..30))).await;
        Self::open(crowd, me, me + nth, None).await
    }

    async fn send_offer(&mut self, crowd: &Crowd, me: usize, rng: &mut StdRng) {
        let (to, did) = if rng.random_ratio(1, 20) {
            (Target::Absent, crowd.absent[rng.random_range(0..crowd.absent.len())].did())
        } else {
            let member = rng.random_range(0..crowd.members.len());
            (Target::Member(member), crowd.members[member].did())
        };
        let id = crowd.ledger.send(me, to);
        let text = if rng.random_ratio(1, 4) {
            Draft::new(did, Offer { sdp: "signed".into() }).with_id(id).sign(&self.identity)
        } else {
            let from = self.identity.did();
            format!(
                r#"{{"from":"{from}","id":"{id}","payload":{{"sdp":"unsigned"}},"signature":"","to":"{did}","type":"OFFER"}}"#
            )
        };
        self.send(text).await;
    }

    async fn say(&mut self, payload: impl Into<Payload>) {
        let text = Draft::new("the gateway", payload).sign(&self.identity);
        self.send(text).await;
    }

    async fn send(&mut self, text: String) {
        soon("a message to be sent", self.sending.send(Message::text(text))).await.unwrap();
    }

    /// Waits until the gateway has judged all that was sent before.
    async fn ping(&mut self) {
        self.say(Ping { sequence: None }).await;
        self.hears(Heard::Pong).await;
    }

    async fn hears(&mut self, what: Heard) {
        assert_eq!(soon("an answer", self.heard.recv()).await, Some(what));
    }

    async fn unregister(mut self) -> Option<u16> {
        self.say(Unregister { reason: None }).await;
        self.ended().await
    }

    async fn close(mut self) -> Option<u16> {
        soon("a close to be sent", self.sending.close()).await.unwrap();
        self.ended().await
    }

    async fn crash(self) -> Option<u16> {
        self.reading.abort();
        let _ = self.reading.await;
        None
    }

    /// Waits for the connection's end: the close code, if there was one.
    pub(super) async fn ended(self) -> Option<u16> {
        soon("a session to end", self.reading).await.unwrap()
    }
}

/// Enters in the ledger what comes in, until the connection ends.
async fn read(
    mut stream: SplitStream<Socket>,
    ledger: Arc<Ledger>,
    me: usize,
    tell: mpsc::UnboundedSender<Heard>,
) -> Option<u16> {
    let mut code = None;
    while let Some(Ok(frame)) = stream.next().await {
        match frame {
            Message::Text(text) => enter(&text, &ledger, me, &tell),
            Message::Close(close) => code = close.map(|close| close.code.into()),
            _ => {}
        }
    }
    code
}

fn enter(text: &str, ledger: &Ledger, me: usize, tell: &mpsc::UnboundedSender<Heard>) {
    let Ok(envelope) = Envelope::parse(text, Rules::V1_1) else {
        return ledger.fault(format!("{me} got what is no message: {text}"));
    };
    match envelope.kind {
        MessageType::Offer => ledger.delivered(me, &envelope.id),
        MessageType::Error => match &envelope.correlation_id {
            Some(id) => ledger.refused(me, id),
            None => ledger.fault(format!("{me} was told an ERROR about nothing: {text}")),
        },
        MessageType::Registered => _ = tell.send(Heard::Registered),
        MessageType::Pong => _ = tell.send(Heard::Pong),
        other => ledger.fault(format!("{me} got a {other}")),
    }
}
