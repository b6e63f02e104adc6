//! The state that hooks keep in the gateway: key-value entries with a time to live, counters, rate
//! limits, and the metrics that they count for operators.
//!
//! Its one idea: there is no clock in here. Every operation is told the time, so that a replay or a
//! test sees exactly what the gateway saw. What has expired is absent from that very moment, and its
//! room is given back by later operations, a few entries each. At the bound nothing is evicted: what
//! does not fit is refused, and what is there can still be changed unless it grows.
//! `hooks` gives each instance a [`Namespace`] of one [`Store`], which outlives generations.

pub(crate) mod gcra;
mod metrics;
mod room;
mod shard;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use ahash::RandomState;
use conexus_plugin_api::host::{StateError, Value};
use parking_lot::Mutex;

use self::{
    gcra::Rate,
    room::Room,
    shard::{Cell, Content, Expiry, Kind, Probe, Shard},
};
pub use self::{
    metrics::{Counter, InstanceMetrics, MAX_METRIC_NAME, MAX_METRICS, Metrics},
    room::Usage,
};
use crate::config::StateSettings;

/// Enough that threads seldom meet, and that a sweep over one is short at a million entries.
const SHARDS: usize = 256;

/// Expired entries are looked for at this many per operation: more than one operation can make.
const SWEPT_PER_OPERATION: usize = 3;

/// All state of one gateway. Cheap to clone; clones are the same state.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

struct Inner {
    shards: Box<[Slot]>,
    room: Room,
    max_key_bytes: usize,
    max_value_bytes: usize,
    hasher: RandomState,
    /// Numbers are shorter to keep and to compare than names. Never forgotten: an operator has few.
    namespaces: Mutex<HashMap<Box<str>, u32>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("usage", &self.room.usage()).finish_non_exhaustive()
    }
}

/// A shard on cache lines of its own.
#[repr(align(128))]
struct Slot {
    /// No entry here expires before this moment; readable without the lock.
    earliest: AtomicI64,
    shard: Mutex<Shard>,
}

impl Store {
    /// An empty state within these bounds.
    #[must_use]
    pub fn new(limits: &StateSettings) -> Self {
        let slot = || Slot { earliest: AtomicI64::new(Expiry::NEVER.0), shard: Mutex::default() };
        Self(Arc::new(Inner {
            shards: std::iter::repeat_with(slot).take(SHARDS).collect(),
            room: Room::new(limits.max_entries, limits.max_bytes),
            max_key_bytes: limits.max_key_bytes,
            max_value_bytes: limits.max_value_bytes,
            hasher: RandomState::new(),
            namespaces: Mutex::default(),
        }))
    }

    /// The keys of that name's owner. The same name gives the same keys.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Namespace {
        let mut namespaces = self.0.namespaces.lock();
        let next = u32::try_from(namespaces.len()).unwrap_or(u32::MAX);
        let id = match namespaces.get(name) {
            Some(id) => *id,
            None => *namespaces.entry(name.into()).or_insert(next),
        };
        Namespace { store: Arc::clone(&self.0), id }
    }

    /// How full it is. Entries that expired count until their room is given back.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.0.room.usage()
    }

    /// Gives back the room of all that has expired. Nobody has to call this; it makes
    /// [`Self::usage`] exact and returns memory while no hook is asked.
    pub fn sweep(&self, now_ms: i64) {
        for index in 0..SHARDS {
            self.0.sweep_shard(index, now_ms);
        }
    }
}

impl Inner {
    fn probe<'a>(&self, kind: Kind, namespace: u32, key: &'a str) -> Result<Probe<'a>, StateError> {
        if key.len() > self.max_key_bytes {
            return Err(StateError::TooLong);
        }
        Ok(Probe { hash: self.hasher.hash_one((kind, namespace, key)), kind, namespace, key })
    }

    /// Does something to the shard of a key. Where that finds no room, it is done again for as long
    /// as expired entries give some back; so it must leave things as they were then.
    fn within<T>(
        &self,
        probe: &Probe<'_>,
        now_ms: i64,
        mut operation: impl FnMut(&mut Shard) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        // The map inside a shard uses the lowest and the highest bits.
        let index = (probe.hash >> 32) as usize % SHARDS;
        for _ in 0..=SHARDS {
            let done = self.locked(index, |shard| {
                shard.sweep(now_ms, SWEPT_PER_OPERATION, &self.room);
                operation(shard)
            });
            if !matches!(done, Err(StateError::Full)) {
                return done;
            }
            if !self.reclaim(index, now_ms) {
                break;
            }
        }
        self.room.refused();
        Err(StateError::Full)
    }

    fn locked<T>(&self, index: usize, operation: impl FnOnce(&mut Shard) -> T) -> T {
        let slot = &self.shards[index];
        let mut shard = slot.shard.lock();
        let done = operation(&mut shard);
        slot.earliest.store(shard.earliest().0, Relaxed);
        done
    }

    /// Gives back the room of one shard's expired entries, its own first; whether there were any.
    fn reclaim(&self, first: usize, now_ms: i64) -> bool {
        (0..SHARDS).any(|step| self.sweep_shard((first + step) % SHARDS, now_ms))
    }

    /// Whether it gave room back. Costs next to nothing where nothing can have expired.
    fn sweep_shard(&self, index: usize, now_ms: i64) -> bool {
        Expiry(self.shards[index].earliest.load(Relaxed)).is_over(now_ms)
            && self.locked(index, |shard| shard.sweep_whole(now_ms, &self.room))
    }
}

/// The keys of one owner. Cheap to clone. Every operation is told the time in Unix milliseconds; a
/// clock that goes back makes entries live longer and harms nothing.
#[derive(Clone, Debug)]
pub struct Namespace {
    store: Arc<Inner>,
    id: u32,
}

impl Namespace {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StateError::TooLong`].
    pub fn get(&self, now_ms: i64, key: &str) -> Result<Option<Value>, StateError> {
        let probe = self.store.probe(Kind::Value, self.id, key)?;
        self.store.within(&probe, now_ms, |shard| {
            Ok(shard.find(&probe, now_ms, &self.store.room).and_then(|cell| cell.value().cloned()))
        })
    }

    /// Sets a value, for a time or for good.
    ///
    /// # Errors
    /// [`StateError::Full`], [`StateError::TooLong`].
    pub fn set(
        &self,
        now_ms: i64,
        key: &str,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<(), StateError> {
        let probe = self.probe_for(key, &value)?;
        let cell = Cell::of(value, Expiry::after(now_ms, ttl));
        self.store
            .within(&probe, now_ms, |shard| shard.put(&probe, now_ms, &cell, &self.store.room))
    }

    /// Removes a value; whether there was one.
    ///
    /// # Errors
    /// [`StateError::TooLong`].
    pub fn delete(&self, now_ms: i64, key: &str) -> Result<bool, StateError> {
        let probe = self.store.probe(Kind::Value, self.id, key)?;
        self.store.within(&probe, now_ms, |shard| {
            Ok(shard.find(&probe, now_ms, &self.store.room).is_some()
                && shard.remove(&probe, &self.store.room))
        })
    }

    /// Adds to a number (0 where there is none) and gives the sum. `ttl` counts from when the entry
    /// was made.
    ///
    /// # Errors
    /// [`StateError::NotANumber`], [`StateError::Overflow`], [`StateError::Full`],
    /// [`StateError::TooLong`].
    pub fn incr(
        &self,
        now_ms: i64,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<i64, StateError> {
        let probe = self.probe_for(key, &Value::Int(by))?;
        let room = &self.store.room;
        self.store.within(&probe, now_ms, |shard| match shard.find(&probe, now_ms, room) {
            Some(Cell { content: Content::Value(Value::Int(number)), .. }) => {
                *number = number.checked_add(by).ok_or(StateError::Overflow)?;
                Ok(*number)
            }
            Some(_) => Err(StateError::NotANumber),
            None => {
                let cell = Cell::of(Value::Int(by), Expiry::after(now_ms, ttl));
                shard.put(&probe, now_ms, &cell, room).map(|()| by)
            }
        })
    }

    /// Sets a value if the present one is `expected` (`None`: there is none); whether it did.
    ///
    /// # Errors
    /// [`StateError::Full`], [`StateError::TooLong`].
    pub fn cas(
        &self,
        now_ms: i64,
        key: &str,
        expected: Option<&Value>,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError> {
        let probe = self.probe_for(key, &value)?;
        let room = &self.store.room;
        let cell = Cell::of(value, Expiry::after(now_ms, ttl));
        self.store.within(&probe, now_ms, |shard| {
            let present = shard.find(&probe, now_ms, room).and_then(|cell| cell.value());
            if present != expected {
                return Ok(false);
            }
            shard.put(&probe, now_ms, &cell, room).map(|()| true)
        })
    }

    /// Gives a value another time to live (`None`: for good); whether there was one.
    ///
    /// # Errors
    /// [`StateError::TooLong`].
    pub fn expire(
        &self,
        now_ms: i64,
        key: &str,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError> {
        let probe = self.store.probe(Kind::Value, self.id, key)?;
        let expiry = Expiry::after(now_ms, ttl);
        self.store.within(&probe, now_ms, |shard| {
            Ok(shard.set_expiry(&probe, now_ms, expiry, &self.store.room))
        })
    }

    /// Whether one more is within `count` per `per`, evenly spread with a burst of `count`; counts
    /// it if so. The keys of rate limits are apart from those of values. One takes an entry until
    /// its burst is whole again.
    ///
    /// # Errors
    /// [`StateError::BadRate`], [`StateError::Full`], [`StateError::TooLong`].
    pub fn rate_limit(
        &self,
        now_ms: i64,
        key: &str,
        count: u32,
        per: Duration,
    ) -> Result<bool, StateError> {
        let rate = Rate::new(count, per).ok_or(StateError::BadRate)?;
        let probe = self.store.probe(Kind::Rate, self.id, key)?;
        let room = &self.store.room;
        self.store.within(&probe, now_ms, |shard| {
            let taken = match shard.find(&probe, now_ms, room) {
                Some(Cell { content: Content::Rate(whole_at), .. }) => Some(*whole_at),
                _ => None,
            };
            let (admitted, whole_at) = rate.admit(taken, now_ms);
            if taken != Some(whole_at) {
                shard.put(&probe, now_ms, &Cell::rate(whole_at), room)?;
            }
            Ok(admitted)
        })
    }

    fn probe_for<'a>(&self, key: &'a str, value: &Value) -> Result<Probe<'a>, StateError> {
        let probe = self.store.probe(Kind::Value, self.id, key)?;
        let fits = value.size() <= self.store.max_value_bytes;
        if fits { Ok(probe) } else { Err(StateError::TooLong) }
    }
}

#[cfg(test)]
mod tests;
