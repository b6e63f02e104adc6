//! Replay: recorded decisions, judged by another policy.
//!
//! The clock is the recorded one, what a hook read from the gateway is answered as recorded, and
//! what it did not read then is answered by the state that the replay builds up. A step that
//! cannot be repeated is taken as it was: a hook that asked the outside or looked at something
//! that is left out of the log, or a failure that came from the circumstances (a time-out, a full
//! queue, a quarantine, a panic).

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
};

use conexus_plugin_api::{
    Agent, AgentFilter, Answer,
    host::{Connection, Event, Refused},
};
use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use serde::Serialize;

use super::{
    chain::{Asked, Entry},
    engine::{Engine, ReloadError},
    facilities::WallClock,
    fold::{Flow, Fold},
    generation::{Generation, Loader},
    hook::HookFault,
    judge::{Policy as _, World},
    loader::StockLoader,
    record::{DecisionRecord, FaultRecord, StepRecord},
    tape::Tape,
    walk::{Judged, judge},
};
use crate::config::Settings;

/// Why a replay came to no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The policy to replay with is at fault.
    #[error(transparent)]
    Policy(#[from] ReloadError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] io::Error),
    /// A line is no record of a decision.
    #[error("line {line} is no record of a decision: {fault}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        fault: serde_json::Error,
    },
}

/// What another policy would have changed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Decisions in the log.
    pub decisions: usize,
    /// Lines that are no records, from 1: cut short by a crash or a full disk.
    pub unreadable: Vec<usize>,
    /// Decisions whose ruling would have been another, or whose hooks would have said something else.
    pub changed: usize,
    /// Steps that were taken as recorded since they cannot be repeated, by hook.
    pub not_replayable: BTreeMap<String, usize>,
    /// How often each hook would have said something else: hook, what it said, what it would say.
    pub by_hook: BTreeMap<String, BTreeMap<String, usize>>,
    /// The changed decisions in order.
    pub changes: Vec<Change>,
}

/// One decision that would have been another.
#[derive(Debug, Serialize)]
pub struct Change {
    /// The line of the log, from 1.
    pub line: usize,
    /// Unix milliseconds.
    pub time_ms: i64,
    /// `on_route`.
    pub point: &'static str,
    /// The agent that it is about, where one is known.
    pub agent: Option<String>,
    /// The message's id, where it is about one.
    pub message: Option<String>,
    /// The ruling as recorded.
    pub was: String,
    /// The ruling of the other policy.
    pub would_be: String,
    /// What changed hook by hook: name, what it said, what it would say.
    pub hooks: Vec<(String, String, String)>,
}

/// Judges the decisions of a log with the policy of these settings.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(log: impl BufRead, settings: &Settings) -> Result<Report, ReplayError> {
    let loader = StockLoader::new(settings);
    replay_with(log, settings, Box::new(loader))
}

pub(crate) fn replay_with(
    log: impl BufRead,
    settings: &Settings,
    loader: Box<dyn Loader>,
) -> Result<Report, ReplayError> {
    let now = Arc::new(AtomicI64::new(0));
    let clock = WallClock::Virtual(Arc::clone(&now));
    let engine = Engine::start_with(settings, loader, clock, true)?;
    let world = Arc::new(Seen::default());
    let weak = Arc::downgrade(&world);
    engine.serve(weak);
    let mut report = Report::default();
    let mut stage = Stage { generation: engine.current(), world, connections: HashMap::new() };
    for (index, line) in log.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let record: DecisionRecord = match serde_json::from_str(&line) {
            Ok(record) => record,
            // Then it is no log at all.
            Err(fault) if index == 0 => {
                return Err(ReplayError::Line { line: 1, fault });
            }
            Err(_) => {
                report.unreadable.push(index + 1);
                continue;
            }
        };
        now.store(record.time_ms, SeqCst);
        stage.act(index + 1, record, &mut report);
    }
    Ok(report)
}

/// What a log builds up as it is replayed.
struct Stage {
    generation: Arc<Generation>,
    world: Arc<Seen>,
    /// By session.
    connections: HashMap<u64, Arc<Connection>>,
}

impl Stage {
    fn act(&mut self, line: usize, record: DecisionRecord, report: &mut Report) {
        let DecisionRecord { time_ms, event, steps, ruling, .. } = record;
        // Its decision has a record of its own.
        if ruling == ASIDE {
            return;
        }
        let event = self.on_stage(event);
        let point = event.point();
        let mut fold = Fold::default();
        let mut hooks = Vec::new();
        let entries: Vec<_> = self.generation.chain(point).to_vec();
        for entry in &entries {
            let name = &*entry.instance.name;
            let recorded = steps.iter().find(|step| step.hook == name);
            let (result, repeated) = self.again(entry, &event, recorded);
            if !repeated {
                *report.not_replayable.entry(name.to_owned()).or_default() += 1;
            }
            let Judged { result, flow, .. } = judge(entry, &mut fold, result, &self.generation);
            let (said, says) = (recorded.map_or(NOT_ASKED.into(), words_of), words(&result));
            // To say nothing, and not to be asked, is the same to whoever is judged.
            if said != says && !(said == NOT_ASKED && says == NOTHING) {
                hooks.push((name.to_owned(), said, says));
            }
            if flow == Flow::End {
                break;
            }
        }
        for step in &steps {
            let said = words_of(step);
            if said != NOTHING && !entries.iter().any(|entry| *entry.instance.name == *step.hook) {
                hooks.push((step.hook.clone(), said, NOT_ASKED.into()));
            }
        }
        self.world.note(&event);
        if !point.is_verdict() {
            return;
        }
        report.decisions += 1;
        let would_be = fold.summary(point);
        if would_be == ruling && hooks.is_empty() {
            return;
        }
        report.changed += 1;
        for (hook, was, is) in &hooks {
            let counts = report.by_hook.entry(hook.clone()).or_default();
            *counts.entry(format!("{} -> {}", kind(was), kind(is))).or_default() += 1;
        }
        let message = match &event {
            Event::Route(route) | Event::Undeliverable(route) => Some(route.id().to_owned()),
            _ => None,
        };
        report.changes.push(Change {
            line,
            time_ms,
            point: point.name(),
            agent: event.agent().map(|agent| agent.did.clone()),
            message,
            was: ruling,
            would_be,
            hooks,
        });
    }

    /// Asks a hook again; false where its step was taken as recorded.
    fn again(
        &self,
        entry: &Entry,
        event: &Event,
        recorded: Option<&StepRecord>,
    ) -> (Result<Answer, HookFault>, bool) {
        if let Some(step) = recorded
            && !is_repeatable(step)
        {
            return (as_recorded(step), false);
        }
        // Not even to see what it would say: it may tell the outside something.
        if !entry.instance.is_replayable() {
            return (recorded.map_or(Ok(Answer::CONTINUE), as_recorded), false);
        }
        let reads = recorded.map(|step| step.reads.clone()).unwrap_or_default();
        match entry.ask(event, self.generation.number, Tape::playing(reads)) {
            Asked::Now(outcome) if !outcome.secret => (outcome.result, true),
            // It looks at what is left out of the log, or puts its verdict off.
            _ => match recorded {
                Some(step) => (as_recorded(step), false),
                None => (Ok(Answer::CONTINUE), false),
            },
        }
    }

    /// Gives an event the state of its connection.
    fn on_stage(&mut self, event: Event) -> Event {
        if matches!(&event, Event::Disconnect(ended) if ended.reason == NODE_LOST) {
            // Its session was another node's, which numbers them by itself.
            return event;
        }
        let Some(session) = event.agent().map(|agent| agent.session) else { return event };
        let known = self.connections.entry(session).or_default();
        let connection = Some(Arc::clone(known));
        if matches!(event, Event::Disconnect(_)) {
            self.connections.remove(&session);
        }
        macro_rules! with_connection {
            ($($Variant:ident),+) => {
                match event {
                    $(Event::$Variant(mut event) => {
                        Arc::make_mut(&mut event).connection = connection;
                        Event::$Variant(event)
                    })+
                    event => event,
                }
            };
        }
        with_connection!(
            Register,
            Route,
            Undeliverable,
            Watch,
            Expire,
            Registered,
            Replaced,
            Disconnect,
            Unregister
        )
    }
}

/// Why a session ended whose node died.
const NODE_LOST: &str = "node_lost";

/// The ruling of what a hook in shadow mode said after its decision was made.
pub(crate) const ASIDE: &str = "shadow";

fn is_repeatable(step: &StepRecord) -> bool {
    let circumstances = ["timeout", "overload", "quarantined", "panic"];
    step.replayable
        && !step.fault.as_ref().is_some_and(|fault| circumstances.contains(&&*fault.kind))
}

fn as_recorded(step: &StepRecord) -> Result<Answer, HookFault> {
    match (&step.answer, &step.fault) {
        (Some(answer), _) => Ok(answer.clone()),
        (None, Some(FaultRecord { kind, message })) => Err(match &**kind {
            "panic" => HookFault::Panicked(message.trim_start_matches("panicked: ").to_owned()),
            "timeout" => HookFault::TimedOut,
            "overload" => HookFault::Overloaded,
            "quarantined" => HookFault::Quarantined,
            "bad_return" => HookFault::BadReturn(message.clone()),
            _ => HookFault::Failed(message.clone()),
        }),
        (None, None) => Ok(Answer::CONTINUE),
    }
}

const NOTHING: &str = "continue";
const NOT_ASKED: &str = "not asked";

fn words_of(step: &StepRecord) -> String {
    words(&as_recorded(step))
}

fn words(result: &Result<Answer, HookFault>) -> String {
    match result {
        Ok(answer) if answer.is_continue() => NOTHING.into(),
        Ok(answer) => {
            let verdicts = answer.verdicts().iter();
            let texts = verdicts.map(|verdict| serde_json::json!(verdict).to_string());
            texts.collect::<Vec<_>>().join(" ")
        }
        // The place and the wording may change where nothing else does.
        Err(fault) => fault.kind().to_owned(),
    }
}

/// `deny` of `{"deny":{…}}`.
fn kind(words: &str) -> &str {
    words.trim_start_matches(['{', '"']).split(['"', ':']).next().unwrap_or(words)
}

/// The agents that the log has shown so far.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<AgentKey, Arc<Agent>>>);

impl Seen {
    fn note(&self, event: &Event) {
        let mut agents = self.0.lock();
        let key = |agent: &Agent| AgentKey::from_bytes(agent.key);
        match event {
            Event::Registered(event) => {
                agents.insert(key(&event.agent), Arc::clone(&event.agent));
            }
            Event::Disconnect(event)
                if agents
                    .get(&key(&event.agent))
                    .is_some_and(|agent| agent.session == event.agent.session) =>
            {
                agents.remove(&key(&event.agent));
            }
            Event::Route(event) | Event::Undeliverable(event) => {
                agents.insert(key(&event.from), Arc::clone(&event.from));
                if let Some(target) = &event.target {
                    agents.insert(key(target), Arc::clone(target));
                }
            }
            _ => {}
        }
    }
}

impl World for Seen {
    fn agent(&self, key: AgentKey) -> Option<Arc<Agent>> {
        self.0.lock().get(&key).cloned()
    }

    fn agents(&self, filter: &AgentFilter) -> Vec<Arc<Agent>> {
        let agents = self.0.lock();
        agents.values().filter(|agent| filter.wants(agent)).take(filter.limit).cloned().collect()
    }

    /// Nobody is there to get it.
    fn send(&self, to: AgentKey, _kind: &str, _payload: &str) -> Result<(), Refused> {
        if self.0.lock().contains_key(&to) { Ok(()) } else { Err(Refused::Absent) }
    }

    fn disconnect(&self, key: AgentKey, _reason: &str) -> bool {
        self.0.lock().remove(&key).is_some()
    }
}
