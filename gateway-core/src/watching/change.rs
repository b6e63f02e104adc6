//! One change of an agent's presence, and the PRESENCE that tells of it.
//!
//! The same words go to all who watch the agent by the same spelling, so they are signed once,
//! when the first of them is told: a signature takes longer than all the rest of the telling.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use conexus_protocol::{AgentKey, Presence, PresenceState, Timestamp};

use crate::{
    clock::{Clock, Moment},
    voice::Voice,
};

/// Whether an agent is here, as presence knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Since then, over all sessions that took over from each other.
    Online(Moment),
    /// It ended then, for this reason.
    Offline(Moment, &'static str),
    /// It is not here; when it went is not known, or not for the watcher, who began then.
    Absent(Moment),
}

/// The same as it is told: of any node of a cluster, each of which has a clock of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Online(Timestamp),
    Offline(Timestamp, Cow<'static, str>),
    Absent(Timestamp),
}

impl Shown {
    pub(crate) fn of(state: State, clock: &Clock) -> Self {
        match state {
            State::Online(since) => Self::Online(clock.wall(since)),
            State::Offline(since, reason) => Self::Offline(clock.wall(since), reason.into()),
            State::Absent(since) => Self::Absent(clock.wall(since)),
        }
    }
}

/// By which of the two spellings of a key an agent is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    W3c,
    Legacy,
}

impl Spelling {
    /// The spelling of what was read as this key.
    pub(crate) fn of(did: &str, key: AgentKey) -> Self {
        if did == key.legacy_did() { Self::Legacy } else { Self::W3c }
    }

    fn spell(self, key: AgentKey) -> String {
        match self {
            Self::W3c => key.did(),
            Self::Legacy => key.legacy_did(),
        }
    }
}

/// Who words changes.
#[derive(Clone, Copy)]
pub(crate) struct Teller<'a> {
    pub(crate) voice: &'a Voice,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Change {
    number: u64,
    key: AgentKey,
    shown: Shown,
    texts: [OnceLock<Arc<str>>; 2],
}

impl Change {
    pub(super) fn new(number: u64, key: AgentKey, shown: Shown) -> Self {
        Self { number, key, shown, texts: Default::default() }
    }

    /// A later change of the same agent has a greater one.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// The same, with its words to be found anew.
    pub(super) fn unworded(&self) -> Self {
        Self::new(self.number, self.key, self.shown.clone())
    }

    #[cfg(test)]
    pub(super) fn is_worded(&self) -> bool {
        self.texts.iter().any(|text| text.get().is_some())
    }

    pub(super) const fn is_online(&self) -> bool {
        matches!(self.shown, Shown::Online(_))
    }

    pub(super) const fn key(&self) -> AgentKey {
        self.key
    }

    /// The PRESENCE that tells of it.
    pub(super) fn text(&self, spelling: Spelling, teller: Teller<'_>) -> Arc<str> {
        if let Shown::Absent(_) = self.shown {
            // It is for one watcher alone.
            return self.word(spelling, teller);
        }
        let text = self.texts[usize::from(spelling == Spelling::Legacy)]
            .get_or_init(|| self.word(spelling, teller));
        Arc::clone(text)
    }

    fn word(&self, spelling: Spelling, teller: Teller<'_>) -> Arc<str> {
        let Teller { voice } = teller;
        let (state, since, reason) = match &self.shown {
            Shown::Online(since) => (PresenceState::Online, since, None),
            Shown::Offline(since, reason) => (PresenceState::Offline, since, Some(reason)),
            Shown::Absent(since) => (PresenceState::Offline, since, None),
        };
        let presence = Presence {
            did: spelling.spell(self.key),
            state,
            reason: reason.map(|reason| reason.clone().into_owned()),
            since: since.to_string(),
        };
        // Not to the one who reads it: it is for all of them.
        voice.say(voice.did(), None, presence)
    }
}
