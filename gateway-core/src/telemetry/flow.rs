//! Who talks to whom: samples of messages, added up each second.
//!
//! A message leaves a sample while somebody looks and the budget lasts, else a tick of a counter, so
//! that the picture can say which share it shows. Delivered messages and the others have budgets of
//! their own: a few refusals are not to drown among many that went well.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use conexus_protocol::{AgentId, AgentKey, MessageType};
use parking_lot::Mutex;
use serde::Serialize;

use super::events::{Budget, Outcome, Passing};
use crate::striped::Striped;

/// Samples of each kind until the budget is filled up again, ten times in a second: which also
/// bounds the edges of a picture.
const SAMPLES: i32 = 20;

/// How a sampled message ended, in the order in which edges count.
#[derive(Debug)]
struct Sample {
    from: AgentId,
    to: Option<AgentKey>,
    kind: MessageType,
    outcome: Outcome,
}

#[derive(Debug, Default)]
struct Skipped {
    delivered: AtomicU64,
    others: AtomicU64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Flow {
    delivered: Budget,
    others: Budget,
    skipped: Striped<Skipped>,
    samples: Mutex<Vec<Sample>>,
}

/// The picture of one second.
#[derive(Debug, Default, Serialize)]
pub(super) struct Picture {
    edges: Vec<Edge>,
    /// Whether there were more messages than samples.
    sampled: bool,
    /// Which share of the messages that were delivered is in it.
    share: f64,
    /// Which share of the others is in it.
    others_share: f64,
}

#[derive(Debug, Default, Serialize)]
struct Edge {
    from: String,
    to: String,
    #[serde(rename = "type")]
    kind: &'static str,
    delivered: u64,
    held: u64,
    refused: BTreeMap<&'static str, u64>,
}

impl Flow {
    /// Begins anew: what is left is of another time.
    pub(super) fn begin(&self) {
        self.samples.lock().clear();
        self.take_skipped();
        self.refill();
    }

    pub(super) fn refill(&self) {
        self.delivered.fill(SAMPLES);
        self.others.fill(SAMPLES);
    }

    pub(super) fn sample(&self, message: &Passing<'_>, outcome: Outcome) {
        let is_delivered = matches!(outcome, Outcome::Delivered(_));
        let budget = if is_delivered { &self.delivered } else { &self.others };
        if !budget.take() {
            let skipped = self.skipped.mine();
            let counter = if is_delivered { &skipped.delivered } else { &skipped.others };
            counter.fetch_add(1, Relaxed);
            return;
        }
        let (from, to) = (message.sender.agent.clone(), message.to);
        self.samples.lock().push(Sample { from, to, kind: message.kind, outcome });
    }

    /// The picture of what was sampled since the last one; `spell` says how an agent writes its
    /// name.
    pub(super) fn sum_up(&self, spell: impl Fn(AgentKey) -> String) -> Picture {
        let samples = std::mem::take(&mut *self.samples.lock());
        let (delivered_skipped, others_skipped) = self.take_skipped();
        let delivered =
            samples.iter().filter(|s| matches!(s.outcome, Outcome::Delivered(_))).count();
        let others = samples.len() - delivered;
        let mut edges = HashMap::<_, Edge>::new();
        for Sample { from, to, kind, outcome } in samples {
            let edge = edges.entry((from.key(), to, kind.index())).or_insert_with(|| Edge {
                from: from.as_str().to_owned(),
                to: to.map(&spell).unwrap_or_default(),
                kind: kind.as_str(),
                ..Edge::default()
            });
            match outcome {
                Outcome::Delivered(_) => edge.delivered += 1,
                Outcome::Held => edge.held += 1,
                Outcome::Refused(reason) => {
                    let reason = reason.map_or("gone", |reason| reason.as_str());
                    *edge.refused.entry(reason).or_default() += 1;
                }
            }
        }
        Picture {
            edges: edges.into_values().collect(),
            sampled: delivered_skipped + others_skipped > 0,
            share: share(delivered, delivered_skipped),
            others_share: share(others, others_skipped),
        }
    }

    fn take_skipped(&self) -> (u64, u64) {
        let sum = |of: fn(&Skipped) -> &AtomicU64| {
            self.skipped.all().map(|skipped| of(skipped).swap(0, Relaxed)).sum()
        };
        (sum(|skipped| &skipped.delivered), sum(|skipped| &skipped.others))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is a rough figure")]
fn share(sampled: usize, skipped: u64) -> f64 {
    let sampled = sampled as u64;
    if skipped == 0 { 1.0 } else { sampled as f64 / (sampled + skipped) as f64 }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::RefusalReason;

    use super::*;
    use crate::session::handle::tests::session;

    #[test]
    fn delivered_messages_and_others_have_budgets_of_their_own() {
        let (sender, target) = (session(), session());
        let flow = Flow::default();
        flow.begin();
        let sample = |outcome| {
            let (kind, to) = (MessageType::Offer, Some(target.agent.key()));
            let (text, number, read_at) = ("", 1, None);
            flow.sample(&Passing { kind, text, sender: &sender, number, to, read_at }, outcome);
        };
        for _ in 0..4 * SAMPLES {
            sample(Outcome::Delivered(None));
        }
        sample(Outcome::Held);
        sample(Outcome::Refused(Some(RefusalReason::QueueFull)));
        sample(Outcome::Refused(None));
        let picture = flow.sum_up(|key| key.did());
        assert_eq!((picture.sampled, picture.share, picture.others_share), (true, 0.25, 1.0));
        let [edge] = &picture.edges[..] else { panic!("one edge: {picture:?}") };
        assert_eq!((&*edge.from, &*edge.to), (sender.agent.as_str(), target.agent.as_str()));
        assert_eq!((edge.delivered, edge.held), (SAMPLES.cast_unsigned().into(), 1));
        assert_eq!(edge.refused, [("gone", 1), ("queue_full", 1)].into());

        let empty = flow.sum_up(|key| key.did());
        assert_eq!((empty.edges.len(), empty.sampled, empty.share), (0, false, 1.0));
        sample(Outcome::Delivered(None));
        flow.refill();
        sample(Outcome::Delivered(None));
        assert_eq!(flow.sum_up(|key| key.did()).share, 0.5);
    }

    #[test]
    fn samples_of_an_earlier_time_are_forgotten() {
        let sender = session();
        let flow = Flow::default();
        flow.begin();
        let (kind, text, number) = (MessageType::Offer, "", 1);
        let message = Passing { kind, text, sender: &sender, number, to: None, read_at: None };
        for _ in 0..2 * SAMPLES {
            flow.sample(&message, Outcome::Held);
        }
        flow.begin();
        let picture = flow.sum_up(|key| key.did());
        assert_eq!((picture.edges.len(), picture.sampled), (0, false));
    }
}
