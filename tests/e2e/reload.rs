//! New policy while the gateway runs: under traffic, by what happens to files, and with plugins.
//!
//! `RELOADS` (100) and `PLUGIN_SWAPS` (20) say how many; the full size is
//! `RELOADS=1000 PLUGIN_SWAPS=100 cargo nextest run -p conexus-gateway --test e2e reload --no-capture`.

mod plugins;
mod traffic;
mod under_traffic;
mod watching;

use std::env;

/// A number from the environment.
fn size(name: &str, default: u64) -> u64 {
    env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}
