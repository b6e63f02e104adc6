//! What would have been ruled if a hook in shadow mode had been obeyed.
//!
//! For each verdict of a hook in shadow mode that says more than `continue` a fold of its own goes on
//! from there: with that verdict, and with whatever the hooks behind it say that are obeyed. Where it
//! comes to another ruling than the one that was given, that is a *mismatch* of the hook: an agent, or
//! its message, would have fared otherwise. Other hooks in shadow mode stay without effect there, too.
//!
//! A failure is no verdict, so it is none. A hook that is not waited for (`blocking`, or slow lately)
//! is compared with what had been decided before it was asked.

use conexus_plugin_api::{Answer, Point};
use conexus_protocol::RefusalReason;

use super::{
    chain::Entry,
    fold::{Flow, Fold, Terms},
    hook::HookFault,
};
use crate::config::FailMode;

/// What one verdict in shadow mode would have come to, so far.
pub(crate) struct Would {
    pub(super) fold: Fold,
    pub(super) flow: Flow,
}

impl Would {
    /// Whether it comes to another ruling.
    pub(super) fn differs_from(&self, ruling: &Fold, point: Point) -> bool {
        match point {
            // Nothing else counts there.
            Point::Expire => self.fold.clone().into_lease() != ruling.clone().into_lease(),
            _ => self.fold != *ruling,
        }
    }

    /// A hook behind it was obeyed.
    fn follow(&mut self, entry: &Entry, result: &Result<Answer, HookFault>, terms: &Terms) {
        if self.flow == Flow::End {
            return;
        }
        let taken = match result {
            Ok(answer) => self.fold.take(entry.point, answer, terms).ok(),
            Err(_) => None,
        };
        self.flow = match taken {
            Some(flow) => flow,
            None if entry.on_error == FailMode::Closed && entry.point.is_verdict() => {
                self.fold.deny(RefusalReason::PolicyError.into());
                Flow::End
            }
            None => Flow::Next,
        };
    }
}

/// Every verdict in shadow mode on one way, by its place in the chain.
#[derive(Default)]
pub(super) struct Shadows(Vec<(usize, Would)>);

impl Shadows {
    pub(super) fn cast(&mut self, place: usize, would: Would) {
        self.0.push((place, would));
    }

    /// What a hook said that is obeyed.
    pub(super) fn follow(
        &mut self,
        entry: &Entry,
        result: &Result<Answer, HookFault>,
        terms: &Terms,
    ) {
        for (_, would) in &mut self.0 {
            would.follow(entry, result, terms);
        }
    }

    /// The places of the hooks that would have changed the ruling.
    pub(super) fn mismatches(&self, ruling: &Fold, point: Point) -> impl Iterator<Item = usize> {
        let differing = self.0.iter().filter(move |(_, would)| would.differs_from(ruling, point));
        differing.map(|(place, _)| *place)
    }
}
