//! What a run came to, as its reader is told.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    time::Duration,
};

/// Of messages and sessions.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) sessions: usize,
    pub(super) codes: BTreeMap<u16, u64>,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) refused: BTreeMap<String, u64>,
    /// Delivered, and refused as `node_unreachable`.
    pub(super) both: u64,
    /// Delivered after that.
    pub(super) late: u64,
    /// Nobody is there who could be told.
    pub(super) sender_gone: u64,
    /// In connections that were dropped by their agents.
    pub(super) unread: u64,
    /// To older sessions from their own nodes, which were in trouble.
    pub(super) local: u64,
    /// The same where the newer session's node came back from trouble, and how long that went on.
    pub(super) returning: u64,
    pub(super) longest_return: Duration,
    /// To older sessions once the newer one was replaced; how much older they were.
    pub(super) inverted: u64,
    pub(super) longest_inversion: Duration,
    /// To older sessions while the newer one's node was lost to the others, or forgotten.
    pub(super) left: u64,
    /// The longest way of a message that arrived, mail included.
    pub(super) slowest: Duration,
    pub(super) violations: Vec<String>,
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { sessions, codes, sent, delivered, refused, both, late, .. } = self;
        let Self { sender_gone, unread, local, returning, longest_return, .. } = self;
        let Self { inverted, longest_inversion, left, slowest, violations, .. } = self;
        writeln!(f, "sessions {sessions}, closed by code {codes:?}")?;
        writeln!(
            f,
            "messages sent {sent}, delivered {delivered}, refused {refused:?}; both {both}, of which \
             {late} came after the refusal; the \
             sender's connection lost {sender_gone}; in connections that were dropped {unread}"
        )?;
        writeln!(
            f,
            "to older sessions from their own node: in trouble {local}, while the newer one's node came \
             back {returning} (for at most {longest_return:?}); after the newer one was replaced \
             {inverted} (older by at most {longest_inversion:?}); from any node while the newer one's was \
             lost {left}; the longest way {slowest:?}"
        )?;
        writeln!(f, "violations {}", violations.len())
    }
}

/// Times of one kind.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort_unstable();
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (Some(most), middle) = (self.0.last(), self.0.get(self.0.len() / 2)) else {
            return f.write_str("never");
        };
        let middle = middle.unwrap_or(most);
        write!(f, "{} times, median {middle:.2?}, at most {most:.2?}", self.0.len())
    }
}
