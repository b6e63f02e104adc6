//! What became of every message, as the agents see it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use super::member::Habit;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Member(usize),
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Delivered,
    Refused,
}

#[derive(Debug)]
struct Message {
    to: Target,
    fate: Fate,
}

/// Messages whose fate nobody knows, by what may have become of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// Nothing may: they have to be delivered or refused.
    pub(super) sure: u64,
    /// Lost with a socket whose agent crashed.
    pub(super) crashing: u64,
    /// Held for an agent that never comes.
    pub(super) absent: u64,
}

#[derive(Debug)]
pub(super) struct Summary {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) refused: u64,
    pub(super) open: Open,
    /// What must not happen and did.
    pub(super) faults: Vec<String>,
}

/// See the [module](self).
pub(super) struct Ledger {
    habits: Vec<Habit>,
    /// Whether messages to absent agents are held.
    holding: bool,
    state: Mutex<State>,
}

struct State {
    /// By sender, then by number.
    messages: Vec<Vec<Message>>,
    /// The number of the last message that a member (first) got from another.
    last: HashMap<(usize, usize), usize>,
    open: Vec<Open>,
    delivered: u64,
    refused: u64,
    faults: Vec<String>,
}

impl Ledger {
    pub(super) fn new(habits: Vec<Habit>, holding: bool) -> Self {
        let members = habits.len();
        let state = State {
            messages: (0..members).map(|_| Vec::new()).collect(),
            last: HashMap::new(),
            open: vec![Open::default(); members],
            delivered: 0,
            refused: 0,
            faults: Vec::new(),
        };
        Self { habits, holding, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn fault(&self, what: String) {
        self.state().faults.push(what);
    }

    /// Notes a message before it is sent, and gives it its id.
    pub(super) fn send(&self, from: usize, to: Target) -> String {
        let mut state = self.state();
        *self.count(&mut state, from, to) += 1;
        let messages = &mut state.messages[from];
        messages.push(Message { to, fate: Fate::Open });
        format!("{from}-{}", messages.len() - 1)
    }

    fn count<'a>(&self, state: &'a mut State, from: usize, to: Target) -> &'a mut u64 {
        let open = &mut state.open[from];
        match to {
            Target::Member(member) if self.habits[member] == Habit::Crashes => &mut open.crashing,
            Target::Absent if self.holding => &mut open.absent,
            _ => &mut open.sure,
        }
    }

    /// A message has arrived at a member.
    pub(super) fn delivered(&self, at: usize, id: &str) {
        let Some((from, number)) = self.end(id, Fate::Delivered, |_, to| to == Target::Member(at))
        else {
            return;
        };
        let mut state = self.state();
        state.delivered += 1;
        if let Some(last) = state.last.insert((at, from), number)
            && last >= number
        {
            state.faults.push(format!("{id} came to {at} after {from}-{last}"));
        }
    }

    /// A member was told that its message is refused.
    pub(super) fn refused(&self, at: usize, id: &str) {
        if self.end(id, Fate::Refused, |from, _| from == at).is_some() {
            self.state().refused += 1;
        }
    }

    /// Settles a message's fate, which must not have been settled, if it is told to the right one.
    fn end(
        &self,
        id: &str,
        fate: Fate,
        right: impl Fn(usize, Target) -> bool,
    ) -> Option<(usize, usize)> {
        let parsed = id.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let mut state = self.state();
        let (from, number): (usize, usize) = parsed?;
        let Some(message) = state.messages.get_mut(from).and_then(|sent| sent.get_mut(number))
        else {
            state.faults.push(format!("{id} was never sent"));
            return None;
        };
        let Message { to, fate: former } = *message;
        if former != Fate::Open || !right(from, to) {
            state.faults.push(format!("{id} to {to:?} is {fate:?}, was {former:?}"));
            return None;
        }
        message.fate = fate;
        *self.count(&mut state, from, to) -= 1;
        Some((from, number))
    }

    /// Whether all messages of a member have come to an end that can be relied on.
    pub(super) fn is_quiet(&self, member: usize) -> bool {
        self.state().open[member].sure == 0
    }

    pub(super) fn open_of_steady_members(&self) -> u64 {
        let state = self.state();
        let steady = |member: &usize| self.habits[*member] == Habit::Stays;
        (0..self.habits.len())
            .filter(steady)
            .map(|m| state.open[m].sure + state.open[m].absent)
            .sum()
    }

    pub(super) fn summary(&self) -> Summary {
        let state = self.state();
        let sum = |part: fn(&Open) -> u64| state.open.iter().map(part).sum();
        Summary {
            sent: state.messages.iter().map(|sent| sent.len() as u64).sum(),
            delivered: state.delivered,
            refused: state.refused,
            open: Open {
                sure: sum(|open| open.sure),
                crashing: sum(|open| open.crashing),
                absent: sum(|open| open.absent),
            },
            faults: state.faults.clone(),
        }
    }
}
