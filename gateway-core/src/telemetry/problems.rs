//! What is wrong right now: since when, for whom, and where the handle is.
//!
//! [`Problems::update`] gets what a look at the gateway found and remembers since when. One that is
//! gone stays for a moment, so that what comes and goes within seconds can be seen at all.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Moment;

/// A problem that is not found any more is shown for so much longer.
const LINGER: Duration = Duration::from_secs(5);
/// The most that are remembered.
const MOST: usize = 200;
/// Something that happens at moments is a problem for so long after it did.
pub(crate) const LATELY: Duration = Duration::from_secs(60);

/// A moment as it is shown, and as it is compared: the wall clock may be set back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall_ms: i64,
    pub(crate) moment: Moment,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Agents suffer from it.
    Critical,
    /// They may soon, or somebody else does.
    Warning,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProblemKind {
    /// A hook failed too often and is not asked.
    HookQuarantined,
    /// A hook has failed within the last minute.
    HookFailing,
    /// An agent does not take what is sent to it.
    SlowReader,
    /// A mailbox has no room.
    MailboxFull,
    /// The last candidate for a generation was refused.
    ReloadRefused,
    /// `limits.connections` are open, or nearly so.
    ConnectionsFull,
    /// The certificate of [tls] expires soon, has expired, or could not be reloaded.
    Certificate,
    /// Nearly as many files are open as the process may have.
    FilesLow,
    /// Observers were not told of everything.
    ObserversDropped,
    /// The decision log misses decisions.
    DecisionsDropped,
    /// The log misses lines.
    LogDropped,
    /// Threads were lost to hooks that do not return.
    ThreadsLost,
    /// The state of hooks has no room.
    StateFull,
    /// This node is not part of its cluster right now.
    ClusterApart,
    /// Two nodes of the cluster call themselves the same.
    NodeIdTwice,
    /// Nodes of the cluster run different versions.
    NodeVersion,
    /// Nearly as much is under way to another node as may be.
    NodeQueueFull,
    /// The gateway is about to stop.
    Draining,
}

impl ProblemKind {
    pub(crate) const ALL: [Self; 18] = [
        Self::HookQuarantined,
        Self::HookFailing,
        Self::SlowReader,
        Self::MailboxFull,
        Self::ReloadRefused,
        Self::ConnectionsFull,
        Self::Certificate,
        Self::FilesLow,
        Self::ObserversDropped,
        Self::DecisionsDropped,
        Self::LogDropped,
        Self::ThreadsLost,
        Self::StateFull,
        Self::ClusterApart,
        Self::NodeIdTwice,
        Self::NodeVersion,
        Self::NodeQueueFull,
        Self::Draining,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::HookQuarantined => "hook_quarantined",
            Self::HookFailing => "hook_failing",
            Self::SlowReader => "slow_reader",
            Self::MailboxFull => "mailbox_full",
            Self::ReloadRefused => "reload_refused",
            Self::ConnectionsFull => "connections_full",
            Self::Certificate => "certificate",
            Self::FilesLow => "files_low",
            Self::ObserversDropped => "observers_dropped",
            Self::DecisionsDropped => "decisions_dropped",
            Self::LogDropped => "log_dropped",
            Self::ThreadsLost => "threads_lost",
            Self::StateFull => "state_full",
            Self::ClusterApart => "cluster_apart",
            Self::NodeIdTwice => "node_id_twice",
            Self::NodeVersion => "node_version",
            Self::NodeQueueFull => "node_queue_full",
            Self::Draining => "draining",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::HookQuarantined
            | Self::MailboxFull
            | Self::ConnectionsFull
            | Self::Certificate
            | Self::FilesLow
            | Self::StateFull
            | Self::ClusterApart
            | Self::NodeVersion
            | Self::NodeQueueFull => Severity::Critical,
            _ => Severity::Warning,
        }
    }

    /// The page of the dashboard where something can be done about it.
    const fn page(self) -> &'static str {
        match self {
            Self::HookQuarantined | Self::HookFailing | Self::ReloadRefused | Self::ThreadsLost => {
                "#/hooks"
            }
            Self::SlowReader | Self::MailboxFull => "#/agents",
            Self::DecisionsDropped => "#/decisions",
            Self::LogDropped
            | Self::Certificate
            | Self::FilesLow
            | Self::ConnectionsFull
            | Self::StateFull => "#/config",
            Self::ObserversDropped => "#/hooks",
            Self::ClusterApart
            | Self::NodeIdTwice
            | Self::NodeVersion
            | Self::NodeQueueFull
            | Self::Draining => "#/nodes",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What it is.
    pub(crate) kind: ProblemKind,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// Whom or what it is about: a DID, a hook at a point, a setting.
    pub(crate) subject: String,
    /// For people.
    pub(crate) text: String,
    /// Since when, in Unix milliseconds.
    pub(crate) since_ms: i64,
    /// Where in the dashboard something can be done about it.
    pub(crate) link: String,
}

/// What a look at the gateway found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: ProblemKind,
    pub(crate) subject: String,
    pub(crate) text: String,
    /// Since when, where that is known.
    pub(crate) since_ms: Option<i64>,
    severity: Severity,
}

impl Finding {
    pub(crate) fn new(
        kind: ProblemKind,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let (subject, text) = (subject.into(), text.into());
        Self { kind, subject, text, since_ms: None, severity: kind.severity() }
    }

    /// Nobody suffers from it.
    pub(crate) fn mild(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    pub(crate) fn since(mut self, at_ms: i64) -> Self {
        self.since_ms = Some(at_ms);
        self
    }
}

#[derive(Debug)]
struct Known {
    problem: Problem,
    seen: Moment,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Problems(BTreeMap<(ProblemKind, String), Known>);

impl Problems {
    /// Takes over what was found just now.
    pub(crate) fn update(&mut self, now: Now, findings: Vec<Finding>) {
        for Finding { kind, subject, text, since_ms, severity } in findings {
            let key = (kind, subject);
            if let Some(known) = self.0.get_mut(&key) {
                (known.problem.text, known.problem.severity) = (text, severity);
                known.seen = now.moment;
                continue;
            }
            if self.0.len() >= MOST {
                continue;
            }
            let link = match kind {
                ProblemKind::SlowReader | ProblemKind::MailboxFull if key.1.starts_with("did:") => {
                    format!("{}/{}", kind.page(), key.1)
                }
                // Those of whom there is no session any more.
                ProblemKind::SlowReader => "#/history".to_owned(),
                _ => kind.page().to_owned(),
            };
            let problem = Problem {
                kind,
                severity,
                subject: key.1.clone(),
                text,
                since_ms: since_ms.unwrap_or(now.wall_ms),
                link,
            };
            self.0.insert(key, Known { problem, seen: now.moment });
        }
        self.0.retain(|_, known| known.seen.until(now.moment) <= LINGER);
    }

    /// The worst first, and of those the oldest.
    pub(crate) fn list(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = self.0.values().map(|known| known.problem.clone()).collect();
        problems.sort_by_key(|problem| (problem.severity, problem.since_ms));
        problems
    }
}

/// Totals that should not grow: for each, when it last did.
#[derive(Debug, Default)]
pub(crate) struct Growth(BTreeMap<String, Grown>);

#[derive(Debug)]
struct Grown {
    total: u64,
    /// Since when it has been growing, as it is shown, and when it last did, if it has lately.
    lately: Option<(i64, Moment)>,
    looked: Moment,
}

impl Growth {
    /// Notes a total; since when it has been growing, if it has [lately](LATELY). A total that went
    /// back is another one. One that is first seen has grown from `from`.
    pub(crate) fn of(&mut self, what: &str, from: u64, total: u64, now: Now) -> Option<i64> {
        let grown = match self.0.get_mut(what) {
            Some(grown) => grown,
            None => {
                let first = Grown { total: from, lately: None, looked: now.moment };
                self.0.entry(what.to_owned()).or_insert(first)
            }
        };
        if total > grown.total {
            let since = grown.lately.map_or(now.wall_ms, |(since, _)| since);
            grown.lately = Some((since, now.moment));
        }
        (grown.total, grown.looked) = (total, now.moment);
        grown.lately = grown.lately.filter(|(_, last)| last.until(now.moment) < LATELY);
        grown.lately.map(|(since, _)| since)
    }

    /// Forgets totals that nobody has asked for lately.
    pub(crate) fn forget(&mut self, now: Now) {
        self.0.retain(|_, grown| grown.looked.until(now.moment) <= LATELY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(did: &str) -> Finding {
        Finding::new(ProblemKind::SlowReader, did, "3 messages wait")
    }

    /// So many milliseconds after the start, at the same time by the wall clock.
    fn at(millis: u64) -> Now {
        Now { wall_ms: millis.cast_signed(), moment: Moment::from_millis(millis) }
    }

    const LINGER_MS: u64 = 5_000;

    #[test]
    fn a_problem_is_known_since_it_was_first_found_and_stays_for_a_moment() {
        let mut problems = Problems::default();
        problems.update(at(1_000), vec![slow("did:key:a")]);
        problems.update(at(2_000), vec![slow("did:key:a")]);
        let [problem] = &problems.list()[..] else { panic!("one problem") };
        assert_eq!((problem.since_ms, problem.link.as_str()), (1_000, "#/agents/did:key:a"));
        problems.update(at(2_000 + LINGER_MS), Vec::new());
        assert_eq!(problems.list().len(), 1);
        problems.update(at(2_001 + LINGER_MS), Vec::new());
        assert_eq!(problems.list(), []);
        problems.update(at(9_000), vec![slow("did:key:a")]);
        assert_eq!(problems.list()[0].since_ms, 9_000, "it is a new one");
    }

    #[test]
    fn the_worst_comes_first() {
        let mut problems = Problems::default();
        problems.update(at(1), vec![slow("did:key:a")]);
        problems.update(at(2), vec![Finding::new(ProblemKind::MailboxFull, "did:key:b", "")]);
        problems.update(at(3), vec![Finding::new(ProblemKind::HookQuarantined, "x", "").since(1)]);
        let kinds: Vec<_> = problems.list().iter().map(|problem| problem.kind).collect();
        use ProblemKind::*;
        assert_eq!(kinds, [HookQuarantined, MailboxFull, SlowReader]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut problems = Problems::default();
        problems.update(at(1), (0..2 * MOST).map(|n| slow(&n.to_string())).collect());
        assert_eq!(problems.list().len(), MOST);
    }

    #[test]
    fn growth_is_told_for_a_minute_from_when_it_began() {
        let mut growth = Growth::default();
        let mut of = |total, millis| growth.of("dropped", 0, total, at(millis));
        assert_eq!(of(0, 1_000), None);
        assert_eq!(of(2, 2_000), Some(2_000));
        assert_eq!(of(5, 30_000), Some(2_000));
        assert_eq!(of(5, 89_999), Some(2_000));
        assert_eq!(of(5, 90_000), None);
        assert_eq!(of(1, 91_000), None, "counted anew");
        growth.forget(at(151_001));
        assert_eq!(growth.of("dropped", 0, 1, at(152_000)), Some(152_000));
        assert_eq!(growth.of("other", 7, 7, at(152_000)), None, "it was so before");
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_problem_alive() {
        let (mut problems, mut growth) = (Problems::default(), Growth::default());
        let earlier = |millis| Now { wall_ms: -3_600_000, ..at(millis) };
        problems.update(at(1_000), vec![slow("did:key:a")]);
        growth.of("dropped", 0, 1, at(1_000));
        problems.update(earlier(6_001), Vec::new());
        assert_eq!(problems.list(), []);
        assert_eq!(growth.of("dropped", 0, 1, earlier(61_000)), None);
    }

    #[test]
    fn kinds_are_named_as_they_serialize() {
        for kind in ProblemKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
