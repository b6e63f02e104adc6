//! What became of every message, as the agents saw it, and what must never happen.
//!
//! A message is delivered or refused, once. It may be both where the refusal says that its sender
//! cannot know (`node_unreachable`). It may be neither where its sender's connection was lost, or its
//! target dropped a connection that had it. What one session says to one agent comes in order, but for
//! what comes after it was refused. And an agent has one owner: once a session of it has got something,
//! an older one gets nothing more. What comes from those on a session's own node is not looked at
//! while that is in trouble: it may be alone. And where the newer one's node is lost to the others, or forgotten by
//! Redis, the older one is what they have of the agent.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use super::{LEASE, figures::Figures};

/// So long may a node not have noticed that a connection was dropped, as one that stands still: what is
/// sent meanwhile goes there.
const UNNOTICED: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
struct Message {
    session: u32,
    to: usize,
    sent: Instant,
    /// To which session of the target, and when.
    delivered: Option<(u32, Instant)>,
    refused: Option<(String, Instant)>,
}

impl Message {
    const fn is_open(&self) -> bool {
        self.delivered.is_none() && self.refused.is_none()
    }
}

#[derive(Debug, Clone)]
struct Session {
    node: usize,
    registered: Option<Instant>,
    first_received: Option<Instant>,
    ended: Option<(Option<u16>, Instant)>,
    /// How many of its messages have come to no end yet.
    open: usize,
}

#[derive(Debug, Default)]
struct Agent {
    sessions: BTreeMap<u32, Session>,
    messages: Vec<Message>,
    /// The number of the last message that it got from a session of another.
    last: HashMap<(usize, u32), u32>,
    /// When it dropped a connection with whatever lay in it.
    dropped: Vec<Instant>,
}

/// A connection that an agent has.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "number and node are for readers of failures")]
pub(super) struct Connected {
    number: u32,
    node: usize,
    pub(super) is_registered: bool,
}

/// A time at which something was wrong with one node, or with all.
#[derive(Debug)]
struct Trouble {
    node: Option<usize>,
    /// The others know nothing of a node any more before it has come back.
    forgets: bool,
    from: Instant,
    to: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    agents: Vec<Agent>,
    is_closed: bool,
    troubles: Vec<Trouble>,
    violations: Vec<String>,
    /// Deliveries of what had been refused as `node_unreachable`: they come whenever they do.
    late: u64,
    /// Deliveries to older sessions that are no violation, for they never left a node in trouble.
    local: u64,
    /// The same where the newer session's node was in trouble, and how long that went on.
    returning: u64,
    longest_return: Duration,
    /// To older sessions once the newer one was told that it is replaced; how much older they were.
    inverted: u64,
    longest_inversion: Duration,
    /// To older sessions while the newer one's node was lost to the others, or forgotten.
    left: u64,
}

/// See the [module](self).
pub(super) struct Book {
    began: Instant,
    state: Mutex<State>,
}

impl Book {
    pub(super) fn new(agents: usize) -> Self {
        let agents = std::iter::repeat_with(Agent::default).take(agents).collect();
        let state = State { agents, ..State::default() };
        Self { began: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Seconds since it was begun, as all that is printed has them.
    pub(super) fn at(&self, time: Instant) -> f64 {
        (time - self.began).as_secs_f64()
    }

    pub(super) fn violation(&self, what: String) {
        let at = self.at(Instant::now());
        self.state().violations.push(format!("{at:.3}: {what}"));
    }

    pub(super) fn is_faultless(&self) -> bool {
        self.state().violations.is_empty()
    }

    /// Something is wrong with a node, or with all, until it is [over](Self::trouble_ends). It may be such that the
    /// others forget the node.
    pub(super) fn trouble_begins(&self, node: Option<usize>, forgets: bool) -> usize {
        let mut state = self.state();
        state.troubles.push(Trouble { node, forgets, from: Instant::now(), to: None });
        state.troubles.len() - 1
    }

    pub(super) fn trouble_ends(&self, trouble: usize) {
        self.state().troubles[trouble].to = Some(Instant::now());
    }

    /// An agent begins to connect.
    pub(super) fn begins(&self, agent: usize, number: u32, node: usize) {
        let session =
            Session { node, registered: None, first_received: None, ended: None, open: 0 };
        self.state().agents[agent].sessions.insert(number, session);
    }

    pub(super) fn registered(&self, agent: usize, number: u32) {
        self.state().session(agent, number).registered = Some(Instant::now());
    }

    pub(super) fn ended(&self, agent: usize, number: u32, code: Option<u16>) {
        self.state().session(agent, number).ended = Some((code, Instant::now()));
    }

    /// An agent dropped a connection, with whatever lies in it.
    pub(super) fn dropped(&self, agent: usize, number: u32) {
        let mut state = self.state();
        state.session(agent, number).ended = Some((None, Instant::now()));
        state.agents[agent].dropped.push(Instant::now());
    }

    /// Nobody may send any more.
    pub(super) fn closes(&self) {
        self.state().is_closed = true;
    }

    /// A message is about to be sent: its id, if it still may be.
    pub(super) fn sends(
        &self,
        from: usize,
        session: u32,
        to: usize,
        number: u32,
    ) -> Option<String> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.session(from, session).open += 1;
        let (sent, delivered, refused) = (Instant::now(), None, None);
        state.agents[from].messages.push(Message { session, to, sent, delivered, refused });
        Some(format!("{from}-{session}-{number}"))
    }

    pub(super) fn delivered(&self, me: usize, at: u32, id: &str) {
        let mut state = self.state();
        let Some((from, session, number)) = state.find(id) else {
            drop(state);
            return self.violation(format!("{me} got {id}, which was never sent"));
        };
        let now = Instant::now();
        let mut wrong = Vec::new();
        let message = state.agents[from].messages[number as usize].clone();
        if message.to != me {
            wrong.push(format!("it is for {}", message.to));
        }
        if message.delivered.is_some() {
            wrong.push("it came before".to_owned());
        }
        if message.refused.as_ref().is_some_and(|(reason, _)| reason != "node_unreachable") {
            wrong.push("it was refused before".to_owned());
        }
        let last = state.agents[me].last.get(&(from, session)).copied();
        if message.refused.is_some() {
            // It lay about somewhere when it was given up, and its sender was told so.
            state.late += 1;
        } else if let Some(last) = last.filter(|last| *last >= number) {
            wrong.push(format!("{last} came before"));
        }
        let last = last.map_or(number, |last| last.max(number));
        state.agents[me].last.insert((from, session), last);
        wrong.extend(state.older_than_owner(me, at, (from, session)));
        if state.shows_an_owner(me, at, (from, session)) {
            state.session(me, at).first_received.get_or_insert(now);
        }
        if message.is_open() {
            state.session(from, session).open -= 1;
        }
        state.agents[from].messages[number as usize].delivered = Some((at, now));
        if !wrong.is_empty() {
            let told = format!("{id} came to {me}-{at}, but {wrong:?}: {}", self.tell(&message));
            state.violations.push(format!("{:.3}: {told}", self.at(now)));
        }
    }

    pub(super) fn refused(&self, me: usize, id: &str, reason: String) {
        let mut state = self.state();
        let Some((from, session, number)) = state.find(id) else {
            drop(state);
            return self.violation(format!("{me} was refused {id}, never sent"));
        };
        let now = Instant::now();
        let message = state.agents[from].messages[number as usize].clone();
        let mut wrong = Vec::new();
        if from != me {
            wrong.push("it is another's");
        }
        if message.refused.is_some() {
            wrong.push("it was refused before");
        }
        if message.delivered.is_some() && reason != "node_unreachable" {
            wrong.push("it was delivered");
        }
        if message.is_open() {
            state.session(from, session).open -= 1;
        }
        if !wrong.is_empty() {
            let told =
                format!("{id} was refused as {reason}, but {wrong:?}: {}", self.tell(&message));
            state.violations.push(format!("{:.3}: {told}", self.at(now)));
        }
        state.agents[from].messages[number as usize].refused = Some((reason, now));
    }

    fn tell(&self, message: &Message) -> String {
        let Message { to, sent, delivered, refused, .. } = message;
        let at = |time: &Instant| format!("{:.3}", self.at(*time));
        let delivered =
            delivered.as_ref().map(|(to, time)| format!(", to session {to} at {}", at(time)));
        let refused = refused.as_ref().map(|(why, time)| format!(", {why} at {}", at(time)));
        let (delivered, refused) = (delivered.unwrap_or_default(), refused.unwrap_or_default());
        format!("to {to}, sent {}{delivered}{refused}", at(sent))
    }

    /// Whether all that a session has sent has come to its end.
    pub(super) fn is_quiet(&self, agent: usize, number: u32) -> bool {
        self.state().session(agent, number).open == 0
    }

    /// What has not.
    pub(super) fn open_of(&self, agent: usize, number: u32) -> Vec<String> {
        let state = self.state();
        let messages = state.agents[agent].messages.iter().enumerate();
        messages
            .filter(|(_, message)| message.session == number && message.is_open())
            .map(|(at, message)| format!("{agent}-{number}-{at} {}", self.tell(message)))
            .collect()
    }

    /// The connections that each agent has, as far as it knows.
    pub(super) fn connected(&self) -> Vec<Vec<Connected>> {
        let state = self.state();
        let open = |agent: &Agent| -> Vec<_> {
            let sessions = agent.sessions.iter().filter(|(_, session)| session.ended.is_none());
            let connected = |(number, session): (&u32, &Session)| Connected {
                number: *number,
                node: session.node,
                is_registered: session.registered.is_some(),
            };
            sessions.map(connected).collect()
        };
        state.agents.iter().map(open).collect()
    }

    /// What was sent in a time in which nothing was wrong: how many have not arrived yet, and those
    /// that never will.
    pub(super) fn calm(&self, from: Instant, to: Instant) -> (usize, Vec<String>) {
        let state = self.state();
        let messages = state.agents.iter().enumerate().flat_map(|(agent, record)| {
            record.messages.iter().enumerate().rev().map(move |(at, it)| (agent, at, it))
        });
        let sent: Vec<_> = messages.filter(|(_, _, it)| it.sent >= from && it.sent <= to).collect();
        let waiting = sent.iter().filter(|(_, _, it)| it.is_open()).count();
        let refused = sent.iter().filter(|(_, _, it)| it.refused.is_some());
        let told =
            refused.map(|(agent, at, it)| format!("{agent}-{}-{at} {}", it.session, self.tell(it)));
        (waiting, told.collect())
    }

    /// How many messages have no end yet whose senders are still there to be told.
    pub(super) fn open(&self) -> usize {
        let state = self.state();
        let sessions = state.agents.iter().flat_map(|agent| agent.sessions.values());
        sessions.filter(|session| session.ended.is_none()).map(|session| session.open).sum()
    }

    /// All in all.
    pub(super) fn settle(&self) -> Figures {
        let mut state = self.state();
        let mut figures = Figures {
            late: state.late,
            local: state.local,
            returning: state.returning,
            longest_return: state.longest_return,
            inverted: state.inverted,
            longest_inversion: state.longest_inversion,
            left: state.left,
            violations: std::mem::take(&mut state.violations),
            ..Figures::default()
        };
        for (number, agent) in state.agents.iter().enumerate() {
            figures.sessions +=
                agent.sessions.values().filter(|it| it.registered.is_some()).count();
            for session in agent.sessions.values() {
                if let Some((Some(code), _)) = session.ended {
                    *figures.codes.entry(code).or_default() += 1;
                }
            }
            for (at, message) in agent.messages.iter().enumerate() {
                figures.sent += 1;
                if let Some((reason, _)) = &message.refused {
                    *figures.refused.entry(reason.clone()).or_default() += 1;
                }
                figures.delivered += u64::from(message.delivered.is_some());
                figures.both += u64::from(message.delivered.is_some() && message.refused.is_some());
                if let Some((_, time)) = message.delivered {
                    figures.slowest = figures.slowest.max(time - message.sent);
                }
                if !message.is_open() {
                    continue;
                }
                let dropped = &state.agents[message.to].dropped;
                if agent.sessions[&message.session].ended.is_some() {
                    figures.sender_gone += 1;
                } else if dropped.iter().any(|time| *time + UNNOTICED >= message.sent) {
                    figures.unread += 1;
                } else {
                    let told = format!("{number}-{}-{at} {}", message.session, self.tell(message));
                    figures.violations.push(format!("nobody knows what became of {told}"));
                }
            }
        }
        figures
    }
}

impl State {
    fn session(&mut self, agent: usize, number: u32) -> &mut Session {
        self.agents[agent].sessions.get_mut(&number).expect("it was begun")
    }

    /// Sender, session and number.
    fn find(&self, id: &str) -> Option<(usize, u32, u32)> {
        let mut parts = id.split('-').map(str::parse::<u32>);
        let (Some(Ok(from)), Some(Ok(session)), Some(Ok(number)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let message = self.agents.get(from as usize)?.messages.get(number as usize)?;
        (message.session == session).then_some((from as usize, session, number))
    }

    /// Whether a delivery says that the cluster takes this session for the agent's. One from its own
    /// node does not while that is in trouble: the others may not have heard of it yet.
    fn shows_an_owner(&self, me: usize, at: u32, from: (usize, u32)) -> bool {
        let node = self.agents[me].sessions[&at].node;
        let is_local = self.agents[from.0].sessions[&from.1].node == node;
        !is_local || !self.was_troubled(node, Instant::now())
    }

    /// What is wrong with a delivery to a session where a newer one has got something already.
    fn older_than_owner(&mut self, me: usize, at: u32, from: (usize, u32)) -> Option<String> {
        let sessions = &self.agents[me].sessions;
        let older = &sessions[&at];
        let (number, newer) =
            sessions.range(at + 1..).find(|(_, newer)| newer.first_received.is_some())?;
        let since = newer.registered.unwrap_or_else(Instant::now);
        let apart = older.registered.map_or(Duration::ZERO, |older| since - older);
        let sender = self.agents[from.0].sessions[&from.1].node;
        let told = format!(
            "session {number} on node {} owns it, registered {apart:?} after {at} on node {}, and the \
             sender is on node {sender}",
            newer.node, older.node
        );
        // It ended, and the older one is what is left of the agent: of what it does by itself the node of
        // the older one need not know, nor of a registration that was given up, to which it gave way.
        if let Some((code, _)) = newer.ended {
            if code == Some(4003) {
                self.inverted += 1;
                self.longest_inversion = self.longest_inversion.max(apart);
            }
            return None;
        }
        let owns_since = newer.first_received.map_or(Duration::ZERO, |first| first.elapsed());
        let is_local = sender == older.node;
        if is_local && self.was_troubled(older.node, since) {
            self.local += 1;
            return None;
        }
        // It registered at a node that was alone, and says so now that it is not: until the older one's
        // node has heard that, those there know no better.
        if is_local && self.was_troubled(newer.node, since) && owns_since < LEASE {
            self.returning += 1;
            self.longest_return = self.longest_return.max(owns_since);
            return None;
        }
        if self.may_be_lost(newer.node) {
            self.left += 1;
            return None;
        }
        Some(told)
    }

    /// Whether the others may have forgotten a node, or something was wrong with it for so long that its lease may
    /// have been over, and it may not be back yet with all that it has.
    fn may_be_lost(&self, node: usize) -> bool {
        let now = Instant::now();
        // It is renewed each third of its time.
        let is_over = |it: &Trouble| it.forgets || it.to.unwrap_or(now) >= it.from + LEASE * 2 / 3;
        let is_away = |it: &Trouble| it.to.is_none_or(|to| to + LEASE >= now);
        let is_here = |it: &Trouble| it.node.is_none_or(|of| of == node);
        let mut here = self.troubles.iter().filter(|trouble| is_here(trouble));
        here.any(|trouble| is_over(trouble) && is_away(trouble))
    }

    /// Whether something was wrong with a node when this happened, or since.
    fn was_troubled(&self, node: usize, since: Instant) -> bool {
        // The trouble may have been over when the node noticed.
        let at_all = |trouble: &Trouble| trouble.to.is_none_or(|to| to + LEASE * 2 >= since);
        let here = |trouble: &Trouble| trouble.node.is_none_or(|it| it == node);
        self.troubles
            .iter()
            .any(|trouble| here(trouble) && at_all(trouble) && trouble.from <= Instant::now())
    }
}
