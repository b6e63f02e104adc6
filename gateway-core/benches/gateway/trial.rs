//! Sides that take turns, so that a machine whose speed wanders is as fast for one as for the other.

use std::path::PathBuf;

use super::{
    cases::Case,
    load::{Load, Report},
    options::{Options, Profile},
    relay::Mode,
    row::{Figures, Row},
    server::{Config, Gateway, Server, Subject},
};

/// What is asked for, at hand for all cases.
pub(crate) struct Bench {
    pub(crate) profile: Profile,
    cases: Vec<u8>,
    gateway: PathBuf,
    against: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn new(options: &Options) -> Self {
        let absolute = |path: &PathBuf| {
            // Servers have a folder of their own.
            path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let own = PathBuf::from(env!("CARGO_BIN_EXE_conexus"));
        Self {
            profile: options.profile(),
            cases: options.cases.clone(),
            gateway: options.gateway.as_ref().map_or(own, absolute),
            against: options.against.as_ref().map(absolute),
        }
    }

    pub(crate) fn wants(&self, case: &Case) -> bool {
        match &*self.cases {
            [] => case.essential || self.profile != Profile::Quick,
            cases => case.numbers.iter().any(|number| cases.contains(number)),
        }
    }

    /// One case may measure for two.
    pub(crate) fn shows(&self, row: &Row) -> bool {
        self.cases.is_empty() || self.cases.contains(&row.case)
    }

    /// The gateway, and the other one if there is one.
    pub(crate) fn gateways(&self, config: &Config) -> Vec<Subject> {
        let binaries = [Some(&self.gateway), self.against.as_ref()];
        let gateway = |binary: &PathBuf| {
            Subject::Gateway(Gateway { binary: binary.clone(), config: config.clone() })
        };
        binaries.into_iter().flatten().map(gateway).collect()
    }

    /// The gateway's binary.
    pub(crate) fn binary(&self) -> &PathBuf {
        &self.gateway
    }

    /// The other gateway's.
    pub(crate) fn other(&self) -> Option<&PathBuf> {
        self.against.as_ref()
    }

    /// For as long as the profile has it.
    pub(crate) fn timed(&self, load: Load) -> Load {
        let (warmup, seconds) = self.profile.seconds();
        load.with("warmup", warmup).with("seconds", seconds)
    }

    /// Puts a load on gateway and relay in turns.
    pub(crate) fn compare(&self, what: &str, config: &Config, relay: Mode, load: &Load) -> Trial {
        let mut sides = self.gateways(config);
        sides.insert(1, Subject::Relay(relay));
        let mut reports = self.turns(what, &sides, load).into_iter();
        Trial {
            gateway: reports.next().expect("a gateway"),
            reference: reports.next().expect("a relay"),
            against: reports.next().unwrap_or_default(),
        }
    }

    /// Puts a load on each of these in turns, on a fresh process each time.
    pub(crate) fn turns(&self, what: &str, sides: &[Subject], load: &Load) -> Vec<Vec<Report>> {
        let mut reports: Vec<Vec<_>> = sides.iter().map(|_| Vec::new()).collect();
        for round in 1..=self.profile.rounds() {
            eprintln!("{what}: round {round} of {}", self.profile.rounds());
            for (side, reports) in sides.iter().zip(&mut reports) {
                reports.push(load.run(&Server::start(side)));
            }
        }
        reports
    }
}

/// What came of it, a report for each round.
pub(crate) struct Trial {
    pub(crate) gateway: Vec<Report>,
    pub(crate) reference: Vec<Report>,
    against: Vec<Report>,
}

impl Trial {
    pub(crate) fn figures(&self, figure: impl Fn(&Report) -> f64) -> Figures {
        let of = |reports: &[Report]| reports.iter().map(&figure).collect();
        Figures {
            gateway: of(&self.gateway),
            reference: of(&self.reference),
            against: of(&self.against),
        }
    }
}
