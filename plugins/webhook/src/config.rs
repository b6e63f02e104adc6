//! The configuration, and what is wrong with it.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use serde::Deserialize;
use url::{Host, Url};

/// See the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub(crate) url: String,
    #[serde(
        default = "two_seconds",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub(crate) timeout: Duration,
    #[serde(default = "four")]
    pub(crate) threads: usize,
    #[serde(default = "waiting")]
    pub(crate) queue: usize,
    #[serde(default = "response_bytes")]
    pub(crate) response_bytes: ByteSize,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) proxy: Option<String>,
    #[serde(default)]
    pub(crate) send_credentials: bool,
    #[serde(default)]
    pub(crate) send_payload: bool,
    pub(crate) cache: Option<CacheConfig>,
    #[serde(default)]
    pub(crate) circuit: CircuitConfig,
}

/// `cache`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheConfig {
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub(crate) ttl: Duration,
    #[serde(default = "ten_thousand")]
    pub(crate) entries: usize,
    #[serde(default = "everything")]
    pub(crate) key: Vec<Part>,
}

/// `circuit`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CircuitConfig {
    pub(crate) failures: u32,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub(crate) open: Duration,
}

/// A part of a request that a decision may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Did,
    Address,
    Metadata,
    Labels,
    RateClass,
    Type,
    To,
    Target,
}

impl Config {
    /// The service's URL, after a look at everything that types cannot say.
    pub(crate) fn check(&self) -> Result<Url, String> {
        let url = Url::parse(&self.url).map_err(|error| format!("`url`: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("`url` is neither http nor https".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("`url` has a user or password in it; use `token_file`".into());
        }
        if self.send_credentials && url.scheme() != "https" && !is_this_machine(&url) {
            return Err("`send_credentials` needs an https `url`: credentials would be readable \
                        on the way"
                .into());
        }
        bounds("threads", self.threads, 1024)?;
        bounds("queue", self.queue, 1 << 20)?;
        if self.timeout.is_zero() {
            return Err("`timeout` is zero".into());
        }
        if let Some(CacheConfig { ttl, entries, key }) = &self.cache {
            bounds("cache.entries", *entries, 1 << 24)?;
            if ttl.is_zero() {
                return Err("`cache.ttl` is zero; leave `cache` out for none".into());
            }
            if key.is_empty() {
                return Err("`cache.key` is empty: all agents would get one answer".into());
            }
        }
        if self.circuit.failures == 0 {
            return Err("`circuit.failures` is 0: the circuit would always be open".into());
        }
        Ok(url)
    }
}

fn bounds(key: &str, value: usize, max: usize) -> Result<(), String> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("`{key}` is not from 1 to {max}"))
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    }
}

impl Default for CircuitConfig {
    fn default() -> Self {
        Self { failures: 5, open: Duration::from_secs(10) }
    }
}

fn everything() -> Vec<Part> {
    use Part::{Address, Did, Labels, Metadata, RateClass, Target, To, Type};
    vec![Did, Address, Metadata, Labels, RateClass, Type, To, Target]
}

const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

const fn four() -> usize {
    4
}

const fn waiting() -> usize {
    256
}

const fn ten_thousand() -> usize {
    10_000
}

const fn response_bytes() -> ByteSize {
    ByteSize::kib(64)
}
