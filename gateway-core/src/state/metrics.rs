//! The counters that hooks keep for operators, by instance and name.
//!
//! Bounded, since the names come from scripts: a name made from an agent's DID would otherwise be a
//! leak. Counting takes a read lock and an addition.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use conexus_plugin_api::host::StateError;
use parking_lot::RwLock;

/// The most names of one instance.
pub const MAX_METRICS: usize = 256;
/// The longest name, in bytes.
pub const MAX_METRIC_NAME: usize = 64;

type Counters = RwLock<HashMap<Box<str>, AtomicI64>>;

/// All counters of one gateway. Cheap to clone; clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<RwLock<HashMap<Arc<str>, Arc<Counters>>>>);

/// One counter at one moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema)]
pub struct Counter {
    /// Whose it is.
    #[schema(value_type = String)]
    pub instance: Arc<str>,
    /// What it is called.
    #[schema(value_type = String)]
    pub name: Box<str>,
    /// What was added up, within the range of 64 bits.
    pub value: i64,
}

/// The counters of one instance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InstanceMetrics(Arc<Counters>);

impl Metrics {
    /// The counters of an instance; the same name gives the same ones.
    #[must_use]
    pub fn instance(&self, name: &str) -> InstanceMetrics {
        if let Some(counters) = self.0.read().get(name) {
            return InstanceMetrics(Arc::clone(counters));
        }
        InstanceMetrics(Arc::clone(self.0.write().entry(name.into()).or_default()))
    }

    /// Forgets the counters of instances that are gone.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.0.write().retain(|instance, _| keep(instance));
    }

    /// All counters, by instance and name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Counter> {
        let mut all = Vec::new();
        for (instance, counters) in self.0.read().iter() {
            all.extend(counters.read().iter().map(|(name, value)| Counter {
                instance: Arc::clone(instance),
                name: name.clone(),
                value: value.load(Relaxed),
            }));
        }
        all.sort();
        all
    }
}

impl InstanceMetrics {
    /// Adds to a counter; the first time makes it.
    ///
    /// # Errors
    /// [`StateError::TooLong`] for a name that is not 1 to [`MAX_METRIC_NAME`] of a-z, 0-9 and "_",
    /// [`StateError::Full`] for a new name beyond [`MAX_METRICS`].
    pub fn add(&self, name: &str, by: i64) -> Result<(), StateError> {
        if let Some(counter) = self.0.read().get(name) {
            add(counter, by);
            return Ok(());
        }
        if !is_metric_name(name) {
            return Err(StateError::TooLong);
        }
        let mut counters = self.0.write();
        if counters.len() >= MAX_METRICS && !counters.contains_key(name) {
            return Err(StateError::Full);
        }
        add(counters.entry(name.into()).or_default(), by);
        Ok(())
    }
}

/// Stops at the ends of the range rather than begin anew at the other.
fn add(counter: &AtomicI64, by: i64) {
    let sum = |value: i64| Some(value.saturating_add(by));
    // Always `Ok`: the closure never gives `None`.
    let _ = counter.fetch_update(Relaxed, Relaxed, sum);
}

fn is_metric_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=MAX_METRIC_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_by_instance_and_name() {
        let metrics = Metrics::default();
        metrics.instance("b").add("seen", 2).unwrap();
        metrics.instance("a").add("seen", 1).unwrap();
        metrics.instance("b").add("seen", 3).unwrap();
        metrics.instance("b").add("kept", -1).unwrap();
        let shown: Vec<_> = metrics
            .snapshot()
            .into_iter()
            .map(|counter| format!("{}.{}={}", counter.instance, counter.name, counter.value))
            .collect();
        assert_eq!(shown, ["a.seen=1", "b.kept=-1", "b.seen=5"]);
        metrics.retain(|instance| instance == "a");
        assert_eq!(metrics.snapshot().len(), 1);
    }

    #[test]
    fn names_beyond_the_bound_are_refused_and_known_ones_go_on() {
        let counters = Metrics::default().instance("a");
        for index in 0..MAX_METRICS {
            counters.add(&format!("n{index}"), 1).unwrap();
        }
        assert_eq!(counters.add("one_more", 1), Err(StateError::Full));
        assert_eq!(counters.add("n7", 1), Ok(()));
    }

    #[test]
    fn odd_names_are_refused() {
        let counters = Metrics::default().instance("a");
        for name in ["", "Seen", "a b", "a-b", "ä", &"x".repeat(65)] {
            assert_eq!(counters.add(name, 1), Err(StateError::TooLong), "{name:?}");
        }
        assert_eq!(counters.add(&"x".repeat(64), 1), Ok(()));
    }

    #[test]
    fn a_counter_stops_at_the_end_of_its_range() {
        let metrics = Metrics::default();
        metrics.instance("a").add("n", i64::MAX).unwrap();
        metrics.instance("a").add("n", 1).unwrap();
        assert_eq!(metrics.snapshot()[0].value, i64::MAX);
    }
}
