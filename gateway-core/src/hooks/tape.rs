//! The tape: what one call of a hook read from the gateway.
//!
//! While decisions are recorded every read is put on the tape. When a decision is replayed the
//! same reads are answered from the tape, so that the hook sees the world as it was; a read that
//! is not on it (the policy has changed) is answered by the state that the replay itself built up.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// One read: what was asked, and what the answer was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Read {
    /// The service's name and its arguments.
    pub(crate) ask: Value,
    /// The answer.
    pub(crate) got: Value,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Tape {
    /// Nobody wants to know.
    Off,
    /// Reads are put on.
    Recording(Mutex<Recorded>),
    /// Reads are answered from it, in order among equal ones.
    Playing(Mutex<VecDeque<Read>>),
}

/// What one call has read so far.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    reads: Vec<Read>,
    /// Of the answers, as JSON.
    bytes: usize,
    overflowed: bool,
}

/// The most reads of one call that are recorded.
const MAX_READS: usize = 1000;
/// The most bytes of their answers: records wait in memory until they are written.
const MAX_BYTES: usize = 256 * 1024;

impl Tape {
    pub(crate) fn recording() -> Self {
        Self::Recording(Mutex::default())
    }

    pub(crate) fn playing(reads: Vec<Read>) -> Self {
        Self::Playing(Mutex::new(reads.into()))
    }

    /// Answers a read: by `live`, or from the tape. `live` runs in any case, for its effects.
    pub(crate) fn read<T: Serialize + DeserializeOwned>(
        &self,
        ask: impl FnOnce() -> Value,
        live: impl FnOnce() -> T,
    ) -> T {
        match self {
            Self::Off => live(),
            Self::Recording(reads) => {
                let got = live();
                let bytes = serde_json::to_vec(&got).map_or(MAX_BYTES, |json| json.len());
                let mut recorded = reads.lock();
                recorded.bytes = recorded.bytes.saturating_add(bytes);
                if recorded.reads.len() < MAX_READS && recorded.bytes <= MAX_BYTES {
                    let got = serde_json::to_value(&got).unwrap_or_default();
                    recorded.reads.push(Read { ask: ask(), got });
                } else {
                    recorded.overflowed = true;
                }
                got
            }
            Self::Playing(reads) => {
                let got = live();
                let ask = ask();
                let mut reads = reads.lock();
                let recorded = reads.iter().position(|read| read.ask == ask);
                let recorded = recorded.and_then(|at| reads.remove(at));
                recorded.and_then(|read| serde_json::from_value(read.got).ok()).unwrap_or(got)
            }
        }
    }

    /// Whether there was more than is recorded of one call.
    pub(crate) fn overflowed(&self) -> bool {
        matches!(self, Self::Recording(recorded) if recorded.lock().overflowed)
    }

    /// What was recorded so far, taken off.
    pub(crate) fn take_reads(&self) -> Vec<Read> {
        match self {
            Self::Recording(recorded) => std::mem::take(&mut recorded.lock().reads),
            Self::Off | Self::Playing(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_reads_are_answered_in_the_order_recorded_and_unknown_ones_live() {
        let tape = Tape::recording();
        for n in [1, 2] {
            assert_eq!(tape.read(|| json!(["incr", "x"]), || n), n);
        }
        let tape = Tape::playing(tape.take_reads());
        assert_eq!(tape.read(|| json!(["incr", "x"]), || 70), 1);
        assert_eq!(tape.read(|| json!(["incr", "y"]), || 71), 71);
        assert_eq!(tape.read(|| json!(["incr", "x"]), || 72), 2);
        assert_eq!(tape.read(|| json!(["incr", "x"]), || 73), 73);
    }

    #[test]
    fn a_call_that_reads_too_much_is_not_recorded_to_its_end() {
        let tape = Tape::recording();
        for _ in 0..2 {
            tape.read(|| json!(["agents"]), || "x".repeat(MAX_BYTES / 2));
            assert!(!tape.overflowed() || tape.take_reads().len() == 1);
        }
        assert!(tape.overflowed());
    }
}
