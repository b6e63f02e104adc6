//! One line of the table: what was measured on which side, and whether it is good enough.

use serde::{Deserialize, Serialize};

use super::spread::Spread;

/// What a line's result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Gateway over reference.
    Ratio,
    /// Gateway minus reference, in the unit of the two.
    Difference,
    /// The gateway's own figure.
    Absolute,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Target {
    limit: f64,
    /// What would be more than good enough.
    beyond: Option<f64>,
    at_least: bool,
}

impl Target {
    pub(crate) const fn at_most(limit: f64) -> Self {
        Self { limit, beyond: None, at_least: false }
    }

    pub(crate) const fn at_least(limit: f64) -> Self {
        Self { limit, beyond: None, at_least: true }
    }

    pub(crate) const fn beyond(self, beyond: f64) -> Self {
        Self { beyond: Some(beyond), ..self }
    }

    fn verdict(self, result: f64) -> &'static str {
        let holds = |limit| if self.at_least { result >= limit } else { result <= limit };
        match (holds(self.limit), self.beyond.is_some_and(holds)) {
            (false, _) => "missed",
            (true, false) => "met",
            (true, true) => "beyond",
        }
    }

    fn shown(self) -> String {
        let sign = if self.at_least { '≥' } else { '≤' };
        match self.beyond {
            Some(beyond) => format!("{sign} {} ({sign} {beyond})", self.limit),
            None => format!("{sign} {}", self.limit),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) case: u8,
    pub(crate) name: String,
    /// Of the two sides, and of a difference.
    pub(crate) unit: String,
    pub(crate) gateway: f64,
    pub(crate) reference: Option<f64>,
    pub(crate) kind: Kind,
    pub(crate) result: Spread,
    pub(crate) target: Option<Target>,
    /// The gateway's figure over that of the second gateway.
    pub(crate) against: Option<Spread>,
    /// What is to be known beside the figures.
    pub(crate) note: Option<String>,
}

/// What the sides' runs came to, a figure for each round.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) gateway: Vec<f64>,
    pub(crate) reference: Vec<f64>,
    /// Empty without a second gateway.
    pub(crate) against: Vec<f64>,
}

impl Row {
    /// A line of figures that were measured in turns.
    pub(crate) fn new(case: u8, name: &str, unit: &str, kind: Kind, figures: &Figures) -> Self {
        let Figures { gateway, reference, against } = figures;
        let pairs = || gateway.iter().zip(reference);
        let result = match kind {
            Kind::Ratio => Spread::of(pairs().map(|(gateway, reference)| gateway / reference)),
            Kind::Difference => Spread::of(pairs().map(|(gateway, reference)| gateway - reference)),
            Kind::Absolute => Spread::of(gateway.iter().copied()),
        };
        let median = |figures: &[f64]| {
            (!figures.is_empty()).then(|| Spread::of(figures.iter().copied()).median)
        };
        Self {
            case,
            name: name.to_owned(),
            unit: unit.to_owned(),
            gateway: Spread::of(gateway.iter().copied()).median,
            reference: median(reference),
            kind,
            result,
            target: None,
            against: (!against.is_empty())
                .then(|| Spread::of(gateway.iter().zip(against).map(|(one, other)| one / other))),
            note: None,
        }
    }

    pub(crate) fn target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// The cells of the table, without those of comparisons.
    pub(crate) fn cells(&self) -> Vec<String> {
        let unit = &self.unit;
        let value = |value: f64| format!("{} {unit}", figure(value));
        let result = |value: f64| match self.kind {
            Kind::Ratio => format!("{value:.2}"),
            Kind::Difference => format!("{value:+.2}"),
            Kind::Absolute => figure(value),
        };
        let Spread { median, min, max } = self.result;
        vec![
            self.case.to_string(),
            self.name.clone(),
            value(self.gateway),
            self.reference.map_or_else(|| "–".into(), value),
            result(median),
            format!("{} … {}", result(min), result(max)),
            self.target.map_or_else(|| "–".into(), Target::shown),
            self.target.map_or("–", |target| target.verdict(median)).into(),
        ]
    }
}

/// With three digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
