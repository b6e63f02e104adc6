//! The audit: every request that was to change something, fulfilled or refused.
//!
//! Each is a line of the log, of the target `conexus_gateway::audit`; the latest are kept for
//! `/api/v1/audit`. Of whoever is turned away, once a second at most is put down, so that nobody can
//! push out what others did who may not do it themselves.

use std::{
    collections::{HashMap, VecDeque},
    sync::OnceLock,
};

use conexus_protocol::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tracing::info;
use utoipa::ToSchema;

use crate::hooks::LogGate;

/// How many are kept.
const KEPT: usize = 1000;
/// The longest text of an entry, in characters: what somebody sent may be anything.
const MAX_CHARS: usize = 256;

/// One request that was to change something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditEntry {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// The name of the token, "loopback" where there are none, "unknown" where it was none.
    pub who: String,
    /// The address that it came from.
    pub peer: String,
    /// What was asked for: the operation's id in the API's description.
    pub action: String,
    /// To whom or what.
    pub target: Option<String>,
    /// What else there is to say.
    pub detail: Option<String>,
    /// "done"; "refused: " or "not known: ", and why.
    #[schema(value_type = String)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was fulfilled.
    Done,
    /// It was not, and why.
    Refused(String),
    /// It may have been, or may be yet; why that is not known.
    Unknown(String),
}

impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Done => serializer.serialize_str("done"),
            Self::Refused(why) => serializer.collect_str(&format_args!("refused: {why}")),
            Self::Unknown(why) => serializer.collect_str(&format_args!("not known: {why}")),
        }
    }
}

/// What a handler tells of its request: an extension of its response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noted {
    pub(crate) target: Option<String>,
    pub(crate) detail: Option<String>,
}

/// Told of every entry.
type Listener = Box<dyn Fn(&AuditEntry) + Send + Sync>;

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Audit {
    kept: Mutex<VecDeque<AuditEntry>>,
    /// By who it was: the names of tokens, and those of nobody.
    turned_away: Mutex<HashMap<String, LogGate>>,
    listener: OnceLock<Listener>,
}

impl Audit {
    /// Puts a request down of someone who may not ask for it, unless there was one just now.
    pub(super) fn turn_away(
        &self,
        who: &str,
        peer: String,
        action: &str,
        target: Option<String>,
        why: &str,
    ) {
        let swallowed = self.turned_away.lock().entry(who.to_owned()).or_default().open(now_ms());
        let Some(swallowed) = swallowed else { return };
        let detail = (swallowed > 0).then(|| format!("and {swallowed} more since the last one"));
        let noted = Noted { target, detail };
        self.enter(who, peer, action, noted, Outcome::Refused(why.to_owned()));
    }

    /// Puts a request down that was let in.
    pub(super) fn enter(
        &self,
        who: &str,
        peer: String,
        action: &str,
        noted: Noted,
        outcome: Outcome,
    ) {
        let Noted { target, detail } = noted;
        let outcome = match outcome {
            Outcome::Refused(why) => Outcome::Refused(cut(why)),
            outcome => outcome,
        };
        let entry = AuditEntry {
            at_ms: now_ms(),
            who: who.to_owned(),
            peer,
            action: action.to_owned(),
            target: target.map(cut),
            detail: detail.map(cut),
            outcome,
        };
        self.keep(entry);
    }

    fn keep(&self, entry: AuditEntry) {
        let (refused, not_known) = match &entry.outcome {
            Outcome::Done => (None, None),
            Outcome::Refused(why) => (Some(why.escape_debug().to_string()), None),
            Outcome::Unknown(why) => (None, Some(why.escape_debug().to_string())),
        };
        let AuditEntry { who, peer, action, target, detail, .. } = &entry;
        let shown =
            |text: &Option<String>| text.as_ref().map(|text| text.escape_debug().to_string());
        info!(
            target: "conexus_gateway::audit",
            who, peer, action, target = shown(target), detail = shown(detail), refused,
            not_known,
            "admin request"
        );
        if let Some(listener) = self.listener.get() {
            listener(&entry);
        }
        let mut kept = self.kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(entry);
    }

    /// The latest, newest first.
    pub(crate) fn latest(&self, limit: usize) -> Vec<AuditEntry> {
        self.kept.lock().iter().rev().take(limit).cloned().collect()
    }

    /// From now on `listener` is told of every entry, and must not wait. Set once.
    pub(crate) fn on_entry(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        None => text,
        Some((end, _)) => text[..end].to_owned() + "…",
    }
}

pub(super) fn now_ms() -> i64 {
    i64::try_from(Timestamp::now().as_unix_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UNKNOWN;

    fn enter(audit: &Audit, who: &str, target: &str) {
        let noted = Noted { target: Some(target.to_owned()), detail: None };
        audit.enter(who, "127.0.0.1:1".into(), "disconnect", noted, Outcome::Done);
    }

    #[test]
    fn the_latest_are_kept() {
        let audit = Audit::default();
        for number in 0..KEPT + 5 {
            enter(&audit, "ops", &number.to_string());
        }
        let all = audit.latest(usize::MAX);
        assert_eq!(all.len(), KEPT);
        assert_eq!(all[0].target, Some((KEPT + 4).to_string()));
        assert_eq!(audit.latest(1).len(), 1);
    }

    #[test]
    fn whoever_is_turned_away_pushes_nobody_out() {
        let audit = Audit::default();
        enter(&audit, "ops", "a");
        for who in [UNKNOWN, "board"] {
            for _ in 0..3 * KEPT {
                audit.turn_away(who, "127.0.0.1:1".into(), "ban", None, "no");
            }
        }
        let all = audit.latest(usize::MAX);
        assert!(all.len() < 100, "{}", all.len());
        // Nor is one hidden behind the other.
        for who in ["ops", UNKNOWN, "board"] {
            assert!(all.iter().any(|entry| entry.who == who), "{who}");
        }
    }

    #[test]
    fn texts_are_cut_and_outcomes_told_in_words() {
        assert_eq!(cut("é".repeat(300)).chars().count(), MAX_CHARS + 1);
        let refused = serde_json::to_value(Outcome::Refused("no".into())).unwrap();
        assert_eq!(refused, "refused: no");
        let unknown = serde_json::to_value(Outcome::Unknown("late".into())).unwrap();
        assert_eq!(unknown, "not known: late");
    }
}
