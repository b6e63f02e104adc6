//! The same tests with a cluster switched on: with `CONEXUS_TEST_CLUSTER`, the URL of a Redis, every
//! gateway is the only node of a cluster on it; `tests/run` does so. For agents nothing is different, but that
//! a newer registration may be faster than an older one's directory, and a PONG than a refusal.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use conexus_gateway::config::Settings;
use tokio::process::Command;

pub(crate) fn is_on() -> bool {
    env::var_os("CONEXUS_TEST_CLUSTER").is_some()
}

/// The URL, and the prefix of a cluster that nobody else is in.
fn cluster() -> Option<(String, String)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let url = env::var("CONEXUS_TEST_CLUSTER").ok()?;
    let random: u64 = rand::random();
    Some((url, format!("test-{random:016x}-{}", NEXT.fetch_add(1, Relaxed))))
}

/// Makes a gateway of this process a node; whether it is to be one.
pub(crate) fn join(settings: &mut Settings) -> bool {
    let Some((url, prefix)) = cluster() else { return false };
    settings.cluster_redis.url = Some(url);
    settings.cluster.prefix = prefix;
    true
}

/// The same of a process, where its arguments do not say otherwise.
pub(crate) fn have_joined(command: &mut Command) {
    if let Some((url, prefix)) = cluster() {
        let settings = [("CONEXUS_CLUSTER__REDIS__URL", url), ("CONEXUS_CLUSTER__PREFIX", prefix)];
        command.envs(settings);
    }
}
