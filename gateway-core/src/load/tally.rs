//! What happened: counts, latencies, errors. Each worker has a tally of its own; they are added up
//! in the end, and once a second for whoever watches.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    message::Refusal,
    opening::UpgradeError,
    register::{SetupError, Took},
    wire::Lost,
};

/// Significant digits of latencies.
const DIGITS: u8 = 3;

/// Errors are counted all and told as examples.
const EXAMPLES: usize = 4;

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new(DIGITS).expect("a precision that exists"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        // It resizes itself; only a failure to do so could be an error.
        let _ = self.0.record(latency.as_nanos().try_into().unwrap_or(u64::MAX / 2));
    }

    fn add(&mut self, other: &Self) {
        let _ = self.0.add(&other.0);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds; 0 when nothing was recorded.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        micros(self.0.value_at_quantile(quantile) as f64)
    }

    pub(super) fn mean(&self) -> f64 {
        micros(self.0.mean())
    }

    pub(super) fn max(&self) -> f64 {
        micros(self.0.max() as f64)
    }
}

/// Nanoseconds as microseconds, to a hundredth.
fn micros(nanos: f64) -> f64 {
    (nanos / 10.0).round() / 100.0
}

/// One worker's, or all of them together.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// What the mode counts, within the measured time.
    pub(super) messages: u64,
    pub(super) latency: Latencies,
    /// How late the generator itself was in sending (rate).
    pub(super) lateness: Latencies,
    /// Parts of registrations.
    pub(super) connect: Latencies,
    pub(super) proof: Latencies,
    pub(super) signing: Latencies,
    pub(super) registrations: u64,
    /// All messages ever sent, and those whose end is known.
    pub(super) sent: u64,
    pub(super) settled: u64,
    pub(super) errors: Errors,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latencies = Latencies::new;
        Self {
            messages: 0,
            latency: latencies(),
            lateness: latencies(),
            connect: latencies(),
            proof: latencies(),
            signing: latencies(),
            registrations: 0,
            sent: 0,
            settled: 0,
            errors: Errors::default(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.latency.add(&other.latency);
        self.lateness.add(&other.lateness);
        self.connect.add(&other.connect);
        self.proof.add(&other.proof);
        self.signing.add(&other.signing);
        self.registrations += other.registrations;
        self.sent += other.sent;
        self.settled += other.settled;
        self.errors.add(&other.errors);
    }

    pub(super) fn registered(&mut self, took: Took) {
        self.registrations += 1;
        self.connect.record(took.connect);
        self.proof.record(took.proof);
        self.signing.record(took.signing);
    }
}

/// Errors by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors {
    refused: BTreeMap<String, u64>,
    kinds: BTreeMap<&'static str, u64>,
    examples: Vec<String>,
}

/// Kinds that are always shown, at 0 if need be.
const ALWAYS: [&str; 2] = ["connect", "closed"];

impl Errors {
    pub(super) fn refusal(&mut self, refusal: &Refusal) {
        *self.refused.entry(refusal.name().to_owned()).or_default() += 1;
        self.example(|| format!("the server refused a message: {refusal}"));
    }

    pub(super) fn setup(&mut self, error: &SetupError) {
        match error {
            SetupError::Refused(refusal) => {
                *self.refused.entry(refusal.name().to_owned()).or_default() += 1;
            }
            SetupError::Upgrade(UpgradeError::Connect { .. }) => self.count("connect", 1),
            SetupError::Upgrade(UpgradeError::Lost(lost)) | SetupError::Lost(lost) => {
                self.count(kind(lost), 1);
            }
            SetupError::Upgrade(_) => self.count("upgrade", 1),
            SetupError::OutOfTurn(_) => self.count("out_of_turn", 1),
            SetupError::Timeout(_) => self.count("timeout", 1),
        }
        self.example(|| error.to_string());
    }

    pub(super) fn lost(&mut self, lost: &Lost) {
        self.count(kind(lost), 1);
        self.example(|| lost.to_string());
    }

    /// Messages of which nothing was heard again.
    pub(super) fn missing(&mut self, count: u64) {
        self.count("missing", count);
    }

    /// A step that took too long.
    pub(super) fn timeout(&mut self, what: &str) {
        self.count("timeout", 1);
        self.example(|| what.to_owned());
    }

    fn count(&mut self, kind: &'static str, count: u64) {
        if count > 0 {
            *self.kinds.entry(kind).or_default() += count;
        }
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            let text = text();
            if !self.examples.contains(&text) {
                self.examples.push(text);
            }
        }
    }

    fn add(&mut self, other: &Self) {
        for (name, count) in &other.refused {
            *self.refused.entry(name.clone()).or_default() += count;
        }
        for (kind, count) in &other.kinds {
            self.count(kind, *count);
        }
        for example in &other.examples {
            self.example(|| example.clone());
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.refused.values().chain(self.kinds.values()).sum()
    }

    /// `3 refused (queue_full), 1 closed`.
    pub(super) fn summary(&self) -> String {
        let refused = self.refused.iter().map(|(name, count)| format!("{count} refused ({name})"));
        let kinds = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
        let all: Vec<_> = refused.chain(kinds).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    }

    pub(super) fn examples(&self) -> &[String] {
        &self.examples
    }
}

fn kind(lost: &Lost) -> &'static str {
    match lost {
        Lost::Closed { .. } | Lost::Ended => "closed",
        Lost::Io(_) => "io",
        Lost::Broken(_) => "framing",
    }
}

impl Serialize for Errors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("refused", &self.refused)?;
        for kind in ALWAYS {
            map.serialize_entry(kind, &self.kinds.get(kind).copied().unwrap_or(0))?;
        }
        for (kind, count) in self.kinds.iter().filter(|(kind, _)| !ALWAYS.contains(kind)) {
            map.serialize_entry(kind, count)?;
        }
        map.serialize_entry("examples", &self.examples)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut all = Tally::new();
        for millis in [1, 3] {
            let mut tally = Tally::new();
            tally.messages = 1;
            tally.latency.record(Duration::from_millis(millis));
            tally.errors.missing(millis);
            tally.errors.missing(0);
            all.add(&tally);
        }
        assert_eq!((all.messages, all.latency.count()), (2, 2));
        let off = (all.latency.mean() - 2_000.0).abs();
        assert!(off < 3.0, "{}", all.latency.mean());
        assert_eq!(all.errors.summary(), "4 missing");
    }

    #[test]
    fn errors_are_counted_by_kind_and_told_by_example() {
        let mut errors = Errors::default();
        assert_eq!(errors.summary(), "none");
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            errors.setup(&UpgradeError::Connect { error: refused() }.into());
        }
        errors.lost(&Lost::Closed { code: 4003, reason: "replaced by a newer session".into() });
        let text = br#"{"payload":{"code":"CONNECTION_REFUSED","details":{"reason":"denied"},"message":"no"},"type":"ERROR"}"#;
        errors.refusal(&Refusal::read(text).unwrap());
        assert_eq!(errors.total(), 5);
        assert_eq!(errors.summary(), "1 refused (denied), 1 closed, 3 connect");
        let json = serde_json::to_value(&errors).unwrap();
        assert_eq!(json["refused"]["denied"], 1);
        assert_eq!(json["connect"], 3);
        assert_eq!(
            json["examples"],
            serde_json::json!([
                "cannot connect: connection refused",
                "the server closed the connection: 4003 replaced by a newer session",
                "the server refused a message: CONNECTION_REFUSED (denied): no",
            ])
        );
    }
}
