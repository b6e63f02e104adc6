//! The hook: knows the aliases, asks who is capable, and chooses.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use conexus_plugin_api::{
    AgentFilter, CONTINUE, Call, DenyCode, Disconnect, Error, Host, Outcome, Plugin, Point,
    PointSet, Registered, Route, StateError, deny, redirect,
};

use crate::{
    config::Config,
    load::{Key, Load},
};

/// See the crate's documentation.
pub struct CapabilityRouter {
    aliases: HashMap<Key, String>,
    refresh_ms: i64,
    state: Mutex<State>,
}

struct State {
    load: Load,
    capable: HashMap<String, Capable>,
    turn: usize,
}

/// Who has a capability, as the gateway said at a moment.
struct Capable {
    agents: Vec<(Key, String)>,
    asked_ms: i64,
}

impl Plugin for CapabilityRouter {
    type Config = Config;
    const POINTS: PointSet =
        PointSet::of(&[Point::Route, Point::Undeliverable, Point::Registered, Point::Disconnect]);

    fn new(config: Config, _: Host) -> Result<Self, Error> {
        let millis = |time: std::time::Duration| i64::try_from(time.as_millis());
        let load = Load::new(config.max_pending, millis(config.answer_within)?);
        Ok(Self {
            aliases: config.aliases()?,
            refresh_ms: millis(config.refresh)?,
            state: Mutex::new(State { load, capable: HashMap::new(), turn: 0 }),
        })
    }

    fn on_route(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        if let ("EXEC_RESPONSE" | "ERROR", Some(id)) = (event.kind(), event.correlation_id()) {
            self.state().load.answered(event.from().key(), event.to_key(), id);
        }
        self.choose(event, call, false)
    }

    fn on_undeliverable(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        self.choose(event, call, true)
    }

    fn on_registered(&self, _: &Registered<'_>, _: &Call<'_>) -> Result<(), Error> {
        self.state().capable.clear();
        Ok(())
    }

    fn on_disconnect(&self, event: &Disconnect<'_>, _: &Call<'_>) -> Result<(), Error> {
        let mut state = self.state();
        state.capable.clear();
        // Its successor goes on with what it had.
        if event.reason() != "replaced" {
            state.load.left(event.agent().key());
        }
        Ok(())
    }
}

impl CapabilityRouter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Redirects what is addressed to an alias; `again` where the one chosen before is absent.
    fn choose(&self, event: &Route<'_>, call: &Call<'_>, again: bool) -> Outcome {
        let Some(capability) = self.aliases.get(&event.to_key()) else { return Ok(CONTINUE) };
        if !matches!(event.kind(), "INTENT" | "EXEC_REQUEST") {
            return Ok(CONTINUE);
        }
        let (from, now_ms) = (event.from().key(), call.now_ms());
        if again || !self.is_fresh(capability, now_ms) {
            self.ask(capability, call, now_ms)?;
        }
        let chosen = self.state().choose(capability, from, event.id(), again, now_ms);
        match chosen {
            Some(did) => {
                call.metric("redirected", 1)?;
                Ok(redirect(did))
            }
            None => {
                call.metric("nobody", 1)?;
                Ok(deny(DenyCode::UnknownAgent, format!("nobody is here who can {capability}")))
            }
        }
    }

    fn is_fresh(&self, capability: &str, now_ms: i64) -> bool {
        let state = self.state();
        let age = state.capable.get(capability).map(|capable| now_ms - capable.asked_ms);
        age.is_some_and(|age| (0..self.refresh_ms).contains(&age))
    }

    /// Asks the gateway, without the lock: the list may be long.
    fn ask(&self, capability: &str, call: &Call<'_>, now_ms: i64) -> Result<(), StateError> {
        let filter = AgentFilter { capability: Some(capability.into()), ..AgentFilter::default() };
        let agents = call.agents(&filter)?;
        let agents = agents.iter().map(|agent| (agent.key(), agent.did().to_owned())).collect();
        self.state().capable.insert(capability.into(), Capable { agents, asked_ms: now_ms });
        Ok(())
    }
}

impl State {
    /// The least loaded of the capable, by turns among equals; never the sender, nor, `again`, who
    /// was chosen before.
    fn choose(
        &mut self,
        capability: &str,
        from: Key,
        id: &str,
        again: bool,
        now_ms: i64,
    ) -> Option<String> {
        self.load.expire(now_ms);
        let absent = self.load.worker(from, id).filter(|_| again);
        let agents = &self.capable.get(capability)?.agents;
        let able = agents.iter().filter(|(key, _)| *key != from && Some(*key) != absent);
        let able: Vec<_> = able.map(|agent| (self.load.of(&agent.0), agent)).collect();
        let least = able.iter().map(|(load, _)| *load).min()?;
        let least: Vec<_> = able.into_iter().filter(|(load, _)| *load == least).collect();
        let (_, (key, did)) = least.get(self.turn % least.len())?;
        let (key, did) = (*key, did.clone());
        self.turn = self.turn.wrapping_add(1);
        self.load.begin(key, from, id, now_ms);
        Some(did)
    }
}
