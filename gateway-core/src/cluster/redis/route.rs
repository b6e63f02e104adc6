//! Which machines of the engine a link goes to.

use std::{collections::HashMap, ops::RangeInclusive};

use futures_util::future::try_join_all;
use redis::{RedisConnectionInfo, Value, cluster_routing::Slot};

use super::{
    address::Address,
    answers::{self, Served},
    dialer::Dialer,
    line::{Line, Shared},
    lines::Lines,
};
use crate::cluster::backplane::Away;

/// How many slots a Redis Cluster has.
const SLOTS: usize = 16384;

/// See the [module](self).
#[derive(Debug)]
pub(super) enum Route {
    Single(Address),
    /// One of several, and Sentinels know which.
    Sentinel {
        sentinels: Vec<Address>,
        who: RedisConnectionInfo,
        master: String,
    },
    /// A Redis Cluster, some of whose machines these are.
    Cluster(Vec<Address>),
}

impl Route {
    pub(super) async fn connect(
        &self,
        dialer: &Dialer,
        who: &RedisConnectionInfo,
        shared: &Shared,
    ) -> Result<Lines, Away> {
        match self {
            Self::Single(address) => Ok(Lines::Single(dialer.dial(address, who, shared).await?)),
            Self::Sentinel { sentinels, who: to_sentinels, master } => {
                let asked = |at| master_by(dialer, at, to_sentinels, master);
                let address = first(sentinels, asked).await?;
                Ok(Lines::Single(dialer.dial(&address, who, shared).await?))
            }
            Self::Cluster(seeds) => {
                let served = first(seeds, |at| slots_by(dialer, at, who)).await?;
                to_each(dialer, who, shared, served).await
            }
        }
    }
}

/// Asks one after the other until one has an answer.
async fn first<'a, T, F>(seeds: &'a [Address], ask: impl Fn(&'a Address) -> F) -> Result<T, Away>
where
    F: Future<Output = Result<T, Away>>,
{
    let mut said = Vec::new();
    for seed in seeds {
        match ask(seed).await {
            Ok(answer) => return Ok(answer),
            Err(Away(why)) => said.push(why),
        }
    }
    Err(Away(said.join("; ").into()))
}

/// Where the master is, as a Sentinel has it.
async fn master_by(
    dialer: &Dialer,
    sentinel: &Address,
    who: &RedisConnectionInfo,
    master: &str,
) -> Result<Address, Away> {
    let line = dialer.dial(sentinel, who, &Shared::aside(dialer.patience)).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    match line.demand(ask).await? {
        Value::Nil => {
            Err(Away(format!("the Sentinel at {sentinel} knows no master {master:?}").into()))
        }
        answer => answers::address(answer).ok_or_else(|| line.garbled("SENTINEL")),
    }
}

/// Who serves which slots, as one of them has it.
async fn slots_by(
    dialer: &Dialer,
    seed: &Address,
    who: &RedisConnectionInfo,
) -> Result<Vec<Served>, Away> {
    let line = dialer.dial(seed, who, &Shared::aside(dialer.patience)).await?;
    let mut ask = redis::cmd("CLUSTER");
    ask.arg("SLOTS");
    let answer = line.demand(ask).await?;
    let served = answers::served(answer, seed).ok_or_else(|| line.garbled("CLUSTER SLOTS"))?;
    let slots = |Served { slots, .. }: &Served| RangeInclusive::clone(slots).count();
    match served.iter().map(slots).sum::<usize>() {
        SLOTS => Ok(served),
        some => {
            let why = format!("the engine at {seed}: {some} of its {SLOTS} slots are served");
            Err(Away(why.into()))
        }
    }
}

/// Connects to each machine that serves slots.
async fn to_each(
    dialer: &Dialer,
    who: &RedisConnectionInfo,
    shared: &Shared,
    served: Vec<Served>,
) -> Result<Lines, Away> {
    let mut machines: Vec<_> = served.iter().map(|served| served.by.clone()).collect();
    machines.sort();
    machines.dedup();
    let dialed = machines.iter().map(|machine| dialer.dial(machine, who, shared));
    let lines: Vec<Line> = try_join_all(dialed).await?;
    let mut slots = HashMap::with_capacity(SLOTS);
    for Served { slots: range, by } in served {
        // All of them are there.
        let index = machines.binary_search(&by).unwrap_or_default();
        slots.extend(range.filter_map(Slot::new).map(|slot| (slot, index)));
    }
    Ok(Lines::Cluster { lines, slots })
}
