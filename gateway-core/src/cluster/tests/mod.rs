//! Clusters within one process, over an engine in memory: nodes without sockets, by a clock that
//! stands still until everybody waits.

mod leases;
mod moves;
pub(crate) mod node;
mod pair;
mod policy;
mod random;
mod rules;
