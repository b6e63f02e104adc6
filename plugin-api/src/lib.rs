//! The hook contract of the Conexus gateway: what a native plugin implements.

#![warn(missing_docs)]
#![deny(unsafe_code)]

mod agent;
#[cfg(feature = "host")]
pub mod host;
mod point;
mod verdict;

pub use agent::{Agent, AgentFilter, MAX_AGENTS, Metadata};
pub use point::{Point, PointKind, PointSet};
pub use verdict::{Answer, DenyCode, MAX_COPIES, Set, Verdict};
