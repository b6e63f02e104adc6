//! What a look at the gateway finds wrong with it.

mod cluster;

use std::fmt::Display;

use super::{
    problems::{Finding, Growth, Now, Problem, ProblemKind, Problems},
    process::ProcessUsage,
};
use crate::{
    config::{FailMode, Mode},
    core::Core,
    hooks::{BreakerState, HookStatus, Status},
    phase::Phase,
    presence::survey::{FullMailbox, SlowReader, Survey},
    tls::Concern,
};

/// What there is to judge by.
pub(crate) struct Evidence<'a> {
    pub(crate) core: &'a Core,
    pub(crate) status: &'a Status,
    pub(crate) survey: &'a Survey,
    pub(crate) process: &'a ProcessUsage,
    pub(crate) lines_dropped: u64,
    pub(crate) now: Now,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Problems,
    growth: Growth,
    /// When this was last updated.
    looked_ms: Option<i64>,
}

/// One whose files were refused is only bad once the one in use ends.
fn certificate(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let Some(tls) = &evidence.core.tls else { return };
    let (facts, now) = (tls.facts(), evidence.now.wall_ms.div_euclid(1000));
    if let (Some(concern), Some(text)) = (facts.concern(now), facts.warning(now)) {
        let finding = Finding::new(ProblemKind::Certificate, "tls.certificate", text);
        found.push(match concern {
            Concern::EndsSoon => finding.mild(),
            Concern::NotYet | Concern::EndsVerySoon | Concern::Expired => finding,
        });
    }
    if let Some(refusal) = tls.refusal() {
        let text =
            format!("the files were not taken over, {facts} stays in use: {}", refusal.reason);
        let finding = Finding::new(ProblemKind::Certificate, "tls reload", text);
        found.push(finding.mild().since(refusal.at_ms));
    }
}

impl Findings {
    /// What is wrong by this evidence, and still by earlier one.
    pub(crate) fn update(&mut self, evidence: &Evidence<'_>) -> Vec<Problem> {
        let mut found = Vec::new();
        self.hooks(evidence, &mut found);
        agents(evidence, &mut found);
        self.cut_off(evidence, &mut found);
        self.drops(evidence, &mut found);
        self.limits(evidence, &mut found);
        certificate(evidence, &mut found);
        cluster::look(evidence, &mut found);
        if evidence.core.phase() != Phase::Running {
            let text = "no new sessions; agents are told to come back";
            found.push(Finding::new(ProblemKind::Draining, &*evidence.core.node_id, text));
        }
        self.growth.forget(evidence.now);
        self.problems.update(evidence.now, found);
        self.looked_ms = Some(evidence.now.wall_ms);
        self.problems.list()
    }

    fn hooks(&mut self, evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
        let Status { chains, generation, refusal, pool, chores, .. } = evidence.status;
        for (point, hooks) in chains {
            for (place, hook) in hooks.iter().enumerate() {
                let subject = format!("{} at {point}", hook.hook);
                // Counts begin anew with a generation.
                let counter = format!("{}/{point}/{place}/{}", generation.number, hook.hook);
                let (faults, last) = faults(hook);
                // One that was brought back has had its faults before.
                let is_new = self.looked_ms.is_none_or(|looked| looked <= generation.since_ms);
                let from = if is_new { 0 } else { faults };
                let failing = self.growth.of(&counter, from, faults, evidence.now);
                if hook.breaker != BreakerState::Closed {
                    let what = match (hook.mode, hook.on_error) {
                        (Mode::Shadow, _) => "it is in shadow mode, so nothing hangs on it",
                        (_, FailMode::Closed) => "what it should decide is denied",
                        (_, FailMode::Open) => "it counts as having said nothing",
                    };
                    let text = format!("failed too often ({last}) and is not asked: {what}");
                    let finding = Finding::new(ProblemKind::HookQuarantined, subject, text);
                    found.push(match hook.mode {
                        Mode::Shadow => finding.mild(),
                        _ => finding,
                    });
                } else if let Some(since) = failing {
                    let text = format!("fails: {last} in this generation");
                    let finding = Finding::new(ProblemKind::HookFailing, subject, text);
                    found.push(finding.since(since));
                }
            }
        }
        if let Some(refusal) = refusal {
            let reason = refusal.reasons.first().map_or("", String::as_str);
            let text = format!(
                "the last candidate was refused, generation {} runs on: {reason}",
                generation.number
            );
            let finding = Finding::new(ProblemKind::ReloadRefused, "policy", text);
            found.push(finding.since(refusal.at_ms));
        }
        for (which, usage) in [("pool of decisions", pool), ("pool of chores", chores)] {
            if usage.lost > 0 {
                let text = format!("{} threads are in calls that do not return", usage.lost);
                found.push(Finding::new(ProblemKind::ThreadsLost, which, text));
            }
        }
    }

    /// Agents that were too slow and are gone for it: there is no session left to name.
    fn cut_off(&mut self, evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
        let ended = evidence.core.router.telemetry.sessions.ended.get("too_slow");
        if let Some(since) = self.growth.of("too_slow", 0, ended, evidence.now) {
            let text = format!(
                "{ended} sessions were closed since their agents did not read; the history names them"
            );
            let finding = Finding::new(ProblemKind::SlowReader, "closed sessions", text);
            found.push(finding.since(since));
        }
    }

    fn drops(&mut self, evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
        let status = evidence.status;
        let drops = [
            (
                ProblemKind::ObserversDropped,
                "policy.observer_queue",
                status.observers_dropped,
                "events that observers were not told: they do not keep up",
            ),
            (
                ProblemKind::DecisionsDropped,
                "telemetry.decision_log",
                status.decisions_dropped,
                "decisions that were not recorded: the disk is full or does not keep up",
            ),
            (
                ProblemKind::LogDropped,
                "log",
                evidence.lines_dropped,
                "lines of the log that were dropped: nobody took them, or the disk is full",
            ),
            (
                ProblemKind::StateFull,
                "state",
                status.state.refusals,
                "refusals since the state of hooks has no room (state.max_entries, max_bytes)",
            ),
        ];
        for (kind, subject, total, what) in drops {
            if let Some(since) = self.growth.of(kind.name(), 0, total, evidence.now) {
                found.push(Finding::new(kind, subject, format!("{total} {what}")).since(since));
            }
        }
    }

    fn limits(&mut self, evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
        let sessions = &evidence.core.router.telemetry.sessions;
        let most = evidence.core.settings.limits.connections as u64;
        let turned_away = sessions.connections_refused.get("connections_full");
        let since = self.growth.of("connections_full", 0, turned_away, evidence.now);
        if nearly(sessions.connections(), most) || since.is_some() {
            let text = format!(
                "{} of {most} connections are open, {turned_away} were turned away so far",
                sessions.connections()
            );
            let finding = Finding::new(ProblemKind::ConnectionsFull, "limits.connections", text);
            found.push(since.map_or(finding.clone(), |since| finding.since(since)));
        }
        let (open, most) = (evidence.process.open_fds, evidence.process.max_fds);
        if nearly(open, most) {
            let text = format!("{open} of {most} files are open; raise the limit (ulimit -n)");
            found.push(Finding::new(ProblemKind::FilesLow, "open files", text));
        }
        let failures = sessions.accept_failures();
        if let Some(since) = self.growth.of("accept_failures", 0, failures, evidence.now) {
            let text =
                format!("{failures} times a connection could not be accepted; the log says why");
            let finding = Finding::new(ProblemKind::FilesLow, "new connections", text);
            found.push(finding.since(since));
        }
    }
}

fn agents(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let Evidence { core, survey, .. } = evidence;
    for SlowReader { did, messages, bytes, stalled } in &survey.slow_readers {
        let waits = format!("{messages} messages ({}) wait for it", kib(*bytes));
        let text = match stalled {
            Some(since) => {
                let seconds = since.until(core.clock.now()).as_secs();
                format!("takes nothing for {seconds} s: {waits}")
            }
            None => format!("does not keep up: {waits}"),
        };
        let since = stalled.map(|since| core.clock.wall(since).as_unix_millis());
        let finding = Finding::new(ProblemKind::SlowReader, did, text);
        found.push(since.map_or(finding.clone(), |since| finding.since(since)));
    }
    and_more(found, ProblemKind::SlowReader, survey.slow, survey.slow_readers.len());
    let limits = &core.settings.mailbox;
    for FullMailbox { did, messages, bytes } in &survey.full_mailboxes {
        let text = format!(
            "its mailbox has no room: {messages} of {} messages, {} of {}",
            limits.messages_per_agent,
            kib(*bytes),
            kib(limits.bytes_per_agent)
        );
        found.push(Finding::new(ProblemKind::MailboxFull, did, text));
    }
    and_more(found, ProblemKind::MailboxFull, survey.full, survey.full_mailboxes.len());
    if nearly(core.router.presence.postroom.bytes() as u64, limits.total_bytes as u64) {
        let text = format!("all mailboxes together nearly have {}", kib(limits.total_bytes));
        found.push(Finding::new(ProblemKind::MailboxFull, "mailbox.total_bytes", text));
    }
}

/// There are more than are named.
fn and_more(found: &mut Vec<Finding>, kind: ProblemKind, all: u64, named: usize) {
    let more = all.saturating_sub(named as u64);
    if more > 0 {
        found.push(Finding::new(kind, "others", format!("the same is true of {more} more agents")));
    }
}

/// How often a hook failed, and how.
fn faults(hook: &HookStatus) -> (u64, impl Display + use<>) {
    let kinds = hook.counts.faults.iter().map(|(kind, count)| (*kind, *count));
    let kinds = kinds.filter(|(kind, _)| *kind != "quarantined");
    let kinds: Vec<_> = kinds.chain([("overrun", hook.counts.overruns)]).collect();
    let told = kinds.iter().filter(|(_, count)| *count > 0);
    let told: Vec<_> = told.map(|(kind, count)| format!("{count} × {kind}")).collect();
    (kinds.iter().map(|(_, count)| count).sum(), told.join(", "))
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

/// Whether nine tenths of a limit are reached; 0 is none.
fn nearly(count: u64, most: u64) -> bool {
    most > 0 && count.saturating_mul(10) >= most.saturating_mul(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_are_nearly_all_and_no_limit_is_never_reached() {
        assert!(nearly(9, 10) && nearly(11, 10) && !nearly(8, 10) && !nearly(7, 0));
    }

    #[test]
    fn what_is_not_named_is_counted() {
        let mut found = Vec::new();
        and_more(&mut found, ProblemKind::SlowReader, 20, 20);
        assert_eq!(found, []);
        and_more(&mut found, ProblemKind::SlowReader, 27, 20);
        assert_eq!(found[0].text, "the same is true of 7 more agents");
    }
}
