//! What one agent does: it talks, comes, goes and moves, and writes in the [book](super::book) what
//! it sees.
//!
//! All of its connections are read by one task, older ones first: so what it sees has the order in
//! which the nodes wrote it.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use conexus_protocol::{Envelope, ErrorPayload, MessageType, Rules};
use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Mood, Stage,
    session::{Heard, Opened, Session},
};

/// Between two messages, on average.
const PACE: Duration = Duration::from_millis(100);

/// How long somebody waits for what became of their messages before they go.
const QUIET_WITHIN: Duration = Duration::from_secs(20);

/// How an agent's session ends by its own doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It registers elsewhere while the older session is there.
    Move,
    /// The same, without waiting for what became of its messages.
    Flee,
    Unregister,
    Close,
    /// It drops its connections, with whatever lies in them.
    Crash,
}

struct Life {
    stage: Arc<Stage>,
    me: usize,
    rng: StdRng,
    /// Those that are open, the newest one last.
    sessions: Vec<Session>,
    opened: u32,
    connecting: Option<BoxFuture<'static, Opened>>,
    /// What it is about to do once its messages have come to their end, and since when.
    leaving: Option<(Change, Instant)>,
    next_message: Instant,
    next_change: Instant,
    back_at: Instant,
    sent: u32,
}

pub(super) async fn live(stage: Arc<Stage>, me: usize) {
    let mut rng = StdRng::seed_from_u64(stage.seed.wrapping_mul(1000).wrapping_add(me as u64));
    let now = Instant::now();
    let life = Life {
        me,
        sessions: Vec::new(),
        opened: 0,
        connecting: None,
        leaving: None,
        next_message: now + PACE,
        next_change: now + Duration::from_millis(rng.random_range(200..4000)),
        back_at: now,
        sent: 0,
        stage,
        rng,
    };
    life.go_on().await;
}

impl Life {
    async fn go_on(mut self) {
        let mut moods = self.stage.mood.subscribe();
        loop {
            let mood = *moods.borrow_and_update();
            let is_away = self.sessions.is_empty() && self.connecting.is_none();
            let may_come = is_away && mood != Mood::Still;
            // Who is away and is waited for does not take its time.
            let back_at = if mood == Mood::Wild { self.back_at } else { Instant::now() };
            let stays = self.sessions.last().is_some_and(|session| !session.is_leaving)
                && self.leaving.is_none();
            let talks = stays && mood != Mood::Silent;
            let may_change = stays && mood == Mood::Wild && self.connecting.is_none();
            tokio::select! {
                biased;
                (at, heard) = hear(&mut self.sessions) => self.hears(at, heard),
                Some(opened) = OptionFuture::from(self.connecting.as_mut()) => self.is_opened(opened),
                _ = moods.changed() => {
                    // Who was about to go stays, unless that is what everybody does.
                    if *moods.borrow() != Mood::Wild {
                        self.leaving = None;
                    }
                }
                () = sleep(Duration::from_millis(10)), if self.leaving.is_some() => {
                    self.leaves_when_quiet().await;
                }
                () = sleep_until(back_at), if may_come => self.comes(),
                () = sleep_until(self.next_message), if talks => self.talks().await,
                () = sleep_until(self.next_change), if may_change => self.changes(),
            }
        }
    }

    fn hears(&mut self, at: usize, heard: Heard) {
        let book = &self.stage.book;
        let session = &self.sessions[at];
        match heard {
            Heard::Text(text) => enter(book, self.me, session, &text),
            Heard::End(code) => {
                book.ended(self.me, session.number, code);
                self.sessions.remove(at);
                if self.sessions.is_empty() {
                    self.leaving = None;
                    self.back_at = Instant::now() + Duration::from_millis(20);
                }
            }
        }
    }

    fn comes(&mut self) {
        let nodes = self.stage.addresses();
        match nodes.len() {
            0 => self.back_at = Instant::now() + Duration::from_millis(20),
            count => {
                let node = nodes[self.rng.random_range(0..count)];
                self.connect(node);
            }
        }
    }

    fn connect(&mut self, node: (usize, SocketAddr)) {
        self.opened += 1;
        let me = self.stage.agents[self.me].clone();
        self.stage.book.begins(self.me, self.opened, node.0);
        self.connecting = Some(Session::open(self.opened, node, me).boxed());
    }

    fn is_opened(&mut self, opened: Opened) {
        self.connecting = None;
        let book = &self.stage.book;
        match opened {
            Opened::Session(session) => {
                book.registered(self.me, session.number);
                self.sessions.push(*session);
            }
            Opened::Failed => book.ended(self.me, self.opened, None),
            Opened::GivenUp => book.dropped(self.me, self.opened),
        }
        self.back_at = Instant::now() + Duration::from_millis(50);
    }

    /// Says something to somebody, on the newest connection.
    async fn talks(&mut self) {
        self.next_message = Instant::now() + PACE.mul_f64(self.rng.random_range(0.2..1.8));
        let others = self.stage.agents.len();
        let to = (self.me + self.rng.random_range(1..others)) % others;
        let session = self.sessions.last_mut().expect("who talks is connected");
        let number = self.sent;
        let [from, did] = [self.me, to].map(|agent| self.stage.agents[agent].did());
        let Some(id) = self.stage.book.sends(self.me, session.number, to, number) else { return };
        self.sent += 1;
        let text = format!(
            r#"{{"from":"{from}","id":"{id}","payload":{{"sdp":"v=0"}},"signature":"","to":"{did}","type":"OFFER"}}"#
        );
        if !session.send(text).await {
            self.drops_all();
        }
    }

    fn changes(&mut self) {
        self.next_change = Instant::now() + Duration::from_millis(self.rng.random_range(500..4000));
        let change = match self.rng.random_range(0..20) {
            0..8 => Change::Move,
            8..11 => Change::Flee,
            11..15 => Change::Unregister,
            15..19 => Change::Close,
            _ => Change::Crash,
        };
        match change {
            Change::Crash => self.drops_all(),
            Change::Flee => self.moves(),
            _ => self.leaving = Some((change, Instant::now())),
        }
    }

    fn moves(&mut self) {
        let here = self.sessions.last().map(|session| session.node);
        let nodes = self.stage.addresses();
        let elsewhere: Vec<_> = nodes.iter().filter(|node| Some(node.0) != here).collect();
        // Now and then to where it is already.
        let choice = match elsewhere.len() {
            count @ 1.. if self.rng.random_ratio(9, 10) => {
                Some(*elsewhere[self.rng.random_range(0..count)])
            }
            _ => nodes.iter().find(|node| Some(node.0) == here).copied(),
        };
        if let Some(node) = choice {
            self.connect(node);
        }
    }

    /// Does what it was about to do once what it has sent has come to its end.
    async fn leaves_when_quiet(&mut self) {
        let Some((change, since)) = self.leaving else { return };
        let book = &self.stage.book;
        let number = self.sessions.last().map_or(0, |session| session.number);
        if !book.is_quiet(self.me, number) {
            if since.elapsed() > QUIET_WITHIN {
                book.violation(format!(
                    "{}-{number} waited {QUIET_WITHIN:?} for what became of its messages: {:?}",
                    self.me,
                    book.open_of(self.me, number)
                ));
                self.leaving = None;
            }
            return;
        }
        self.leaving = None;
        let me = &self.stage.agents[self.me];
        let Some(session) = self.sessions.last_mut() else { return };
        let said = match change {
            Change::Unregister => session.unregister(me).await,
            Change::Close => session.close().await,
            Change::Move | Change::Flee | Change::Crash => return self.moves(),
        };
        if !said {
            self.drops_all();
        }
        self.back_at = Instant::now() + Duration::from_millis(self.rng.random_range(0..2500));
    }

    /// Ends all connections without a word; what lies in them is never read.
    fn drops_all(&mut self) {
        for session in self.sessions.drain(..) {
            self.stage.book.dropped(self.me, session.number);
        }
        if self.connecting.take().is_some() {
            self.stage.book.dropped(self.me, self.opened);
        }
        self.leaving = None;
        self.back_at = Instant::now() + Duration::from_millis(self.rng.random_range(0..1500));
    }
}

/// What comes next, from the oldest connection that has something.
async fn hear(sessions: &mut [Session]) -> (usize, Heard) {
    poll_fn(|cx| {
        for (at, session) in sessions.iter_mut().enumerate() {
            if let Poll::Ready(heard) = session.poll(cx) {
                return Poll::Ready((at, heard));
            }
        }
        Poll::Pending
    })
    .await
}

fn enter(book: &super::Book, me: usize, session: &Session, text: &str) {
    let Ok(envelope) = Envelope::parse(text, Rules::V1_1) else {
        return book.violation(format!("{me} got what is no message: {text}"));
    };
    match envelope.kind {
        MessageType::Offer => book.delivered(me, session.number, &envelope.id),
        MessageType::Error => {
            let reason = envelope
                .payload::<ErrorPayload>()
                .ok()
                .and_then(|error| Some(error.details?.get("reason")?.as_str()?.to_owned()));
            match (&envelope.correlation_id, reason) {
                (Some(id), Some(reason)) => book.refused(me, id, reason),
                _ => book.violation(format!("{me} was told an ERROR about nothing: {text}")),
            }
        }
        other => book.violation(format!("{me} got a {other}: {text}")),
    }
}
