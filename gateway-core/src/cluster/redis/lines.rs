//! The connections of a link: one, or one to each machine of a Redis Cluster.

use std::collections::HashMap;

use redis::cluster_routing::Slot;

use super::line::Line;
use crate::cluster::backplane::Away;

/// See the [module](self).
#[derive(Debug)]
pub(super) enum Lines {
    Single(Line),
    Cluster { lines: Vec<Line>, slots: HashMap<Slot, usize> },
}

impl Lines {
    /// The connection to where a key or a channel is.
    pub(super) fn to(&self, name: &str) -> Result<&Line, Away> {
        match self {
            Self::Single(line) => Ok(line),
            Self::Cluster { lines, slots } => {
                let index = slots.get(&Slot::for_key(name)).copied();
                index.and_then(|index| lines.get(index)).ok_or_else(|| {
                    Away(format!("no machine of the engine has the slot of {name:?}").into())
                })
            }
        }
    }

    pub(super) fn all(&self) -> &[Line] {
        match self {
            Self::Single(line) => std::slice::from_ref(line),
            Self::Cluster { lines, .. } => lines,
        }
    }
}
