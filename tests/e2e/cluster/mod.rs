//! Several gateways that are one through a Redis: real processes, a real `redis-server`, and networks
//! that fail.

mod chaos;
mod desk;
mod faults;
mod lists;
mod membership;
mod moving;
mod nodes;
mod presence;
mod skew;
mod state;
mod takeover;
mod talking;
mod told;

use std::time::Duration;

/// How long a node that is not heard of counts as there. Short, since tests wait for its end; not so
/// short that a busy machine ends it.
const LEASE: Duration = Duration::from_millis(1500);
