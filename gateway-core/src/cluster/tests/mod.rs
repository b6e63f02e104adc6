//! Clusters within one process, over an engine in memory: nodes without sockets, by a clock that
//! stands still until everybody waits.

mod moves;
pub(crate) mod node;
mod policy;
mod random;
mod rules;
