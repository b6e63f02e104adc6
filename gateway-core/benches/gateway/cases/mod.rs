//! What is measured, and what is good enough.
//!
//! The relay does less than the gateway has to; "beyond" a target is where the gateway would have
//! to be for the difference not to matter, or to be made up for elsewhere.

mod cluster;
mod flood;
mod hooks;
mod listing;
mod memory;
mod pace;
mod presence;
mod registration;
mod routing;
mod start;
mod watched;

use super::{row::Row, trial::Bench};

/// Something measured. Its numbers are those of the rows that come of it.
pub(crate) struct Case {
    pub(crate) numbers: &'static [u8],
    /// Whether a quick run has it.
    pub(crate) essential: bool,
    pub(crate) measure: fn(&Bench) -> Vec<Row>,
}

pub(crate) const ALL: [Case; 19] = [
    Case { numbers: &[1], essential: true, measure: routing::one_by_one },
    Case { numbers: &[2, 6], essential: true, measure: routing::window },
    Case { numbers: &[3], essential: false, measure: routing::crowds },
    Case { numbers: &[4], essential: true, measure: routing::signed },
    Case { numbers: &[5], essential: false, measure: hooks::measure },
    Case { numbers: &[7], essential: false, measure: pace::measure },
    Case { numbers: &[8], essential: true, measure: memory::measure },
    Case { numbers: &[9], essential: true, measure: registration::measure },
    Case { numbers: &[10], essential: false, measure: listing::measure },
    Case { numbers: &[11], essential: true, measure: start::measure },
    Case { numbers: &[12], essential: false, measure: watched::cost },
    Case { numbers: &[13], essential: false, measure: watched::latency },
    Case { numbers: &[14], essential: false, measure: presence::measure },
    Case { numbers: &[15], essential: false, measure: memory::encrypted },
    Case { numbers: &[16], essential: false, measure: flood::measure },
    Case { numbers: &[17], essential: false, measure: cluster::cost },
    Case { numbers: &[18], essential: false, measure: cluster::latency },
    Case { numbers: &[19], essential: false, measure: cluster::growth },
    Case { numbers: &[20], essential: false, measure: cluster::leases },
];
