//! One shard: a map, and the cursor of its sweep.
//!
//! The map keeps its entries in one array, so that a sweep is a walk along it that can stop
//! anywhere. `earliest` is a moment before which nothing here expires: until then there is nothing to
//! sweep. A pass of the sweep gathers the next one from all that it leaves in place.

use std::{
    hash::{BuildHasherDefault, Hash, Hasher},
    time::Duration,
};

use conexus_plugin_api::host::{StateError, Value};
use indexmap::{Equivalent, IndexMap};

use super::{gcra::WholeAt, room::Room};

/// What kind of entry a key is for: the same text may stand for one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Value,
    Rate,
}

/// A key to look for, hashed once.
pub(super) struct Probe<'a> {
    pub(super) hash: u64,
    pub(super) kind: Kind,
    pub(super) namespace: u32,
    pub(super) key: &'a str,
}

struct Key {
    hash: u64,
    namespace: u32,
    kind: Kind,
    text: Box<str>,
}

impl Hash for Probe<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.namespace, &self.text) == (other.kind, other.namespace, &other.text)
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Probe<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        (self.kind, self.namespace, self.key) == (key.kind, key.namespace, &*key.text)
    }
}

/// Passes on the hash that a key already has.
#[derive(Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.is_empty(), "keys write their hash alone");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The millisecond from which on an entry is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expiry(pub(super) i64);

impl Expiry {
    pub(super) const NEVER: Self = Self(i64::MAX);

    /// What is left of a millisecond counts as a whole one, so that only no time at all is none.
    pub(super) fn after(now_ms: i64, ttl: Option<Duration>) -> Self {
        let Some(ttl) = ttl else { return Self::NEVER };
        let millis = ttl.as_nanos().div_ceil(1_000_000);
        Self(now_ms.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    pub(super) fn is_over(self, now_ms: i64) -> bool {
        self != Self::NEVER && self.0 <= now_ms
    }
}

#[derive(Clone)]
pub(super) enum Content {
    Value(Value),
    Rate(WholeAt),
}

/// An entry but for its key.
#[derive(Clone)]
pub(super) struct Cell {
    pub(super) content: Content,
    expiry: Expiry,
}

impl Cell {
    pub(super) const fn of(value: Value, expiry: Expiry) -> Self {
        Self { content: Content::Value(value), expiry }
    }

    pub(super) const fn rate(whole_at: WholeAt) -> Self {
        Self { content: Content::Rate(whole_at), expiry: Expiry(whole_at.as_millis()) }
    }

    pub(super) const fn value(&self) -> Option<&Value> {
        match &self.content {
            Content::Value(value) => Some(value),
            Content::Rate(_) => None,
        }
    }

    fn size(&self) -> usize {
        self.value().map_or(size_of::<WholeAt>(), Value::size)
    }
}

pub(super) struct Shard {
    cells: IndexMap<Key, Cell, BuildHasherDefault<Hashed>>,
    earliest: Expiry,
    /// Where the pass goes on.
    cursor: usize,
    /// The earliest expiry of all that the pass has left behind it.
    passed: Expiry,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            cells: IndexMap::default(),
            earliest: Expiry::NEVER,
            cursor: 0,
            passed: Expiry::NEVER,
        }
    }
}

impl Shard {
    /// A moment before which nothing here expires.
    pub(super) const fn earliest(&self) -> Expiry {
        self.earliest
    }

    /// The entry of a key. One that expired is removed on the way.
    pub(super) fn find(
        &mut self,
        probe: &Probe<'_>,
        now_ms: i64,
        room: &Room,
    ) -> Option<&mut Cell> {
        let index = self.cells.get_index_of(probe)?;
        if self.cells[index].expiry.is_over(now_ms) {
            self.remove_at(index, room);
            return None;
        }
        Some(&mut self.cells[index])
    }

    /// Makes or replaces the entry of a key. One that expires at once leaves none.
    pub(super) fn put(
        &mut self,
        probe: &Probe<'_>,
        now_ms: i64,
        cell: &Cell,
        room: &Room,
    ) -> Result<(), StateError> {
        if cell.expiry.is_over(now_ms) {
            self.remove(probe, room);
            return Ok(());
        }
        match self.find(probe, now_ms, room) {
            Some(present) => {
                let (before, after) = (present.size(), cell.size());
                if after > before {
                    room.take_bytes(after - before)?;
                } else {
                    room.give_bytes(before - after);
                }
                *present = cell.clone();
            }
            None => {
                room.take_entry(probe.key.len().saturating_add(cell.size()))?;
                let Probe { hash, kind, namespace, key } = *probe;
                self.cells.insert(Key { hash, namespace, kind, text: key.into() }, cell.clone());
            }
        }
        self.note(cell.expiry);
        Ok(())
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, probe: &Probe<'_>, room: &Room) -> bool {
        let index = self.cells.get_index_of(probe);
        index.inspect(|index| self.remove_at(*index, room)).is_some()
    }

    /// Gives an entry another expiry; whether there is one.
    pub(super) fn set_expiry(
        &mut self,
        probe: &Probe<'_>,
        now_ms: i64,
        expiry: Expiry,
        room: &Room,
    ) -> bool {
        let Some(cell) = self.find(probe, now_ms, room) else { return false };
        cell.expiry = expiry;
        if expiry.is_over(now_ms) {
            self.remove(probe, room);
        } else {
            self.note(expiry);
        }
        true
    }

    /// Goes on with the pass for a few entries, if anything can have expired.
    pub(super) fn sweep(&mut self, now_ms: i64, steps: usize, room: &Room) {
        if !self.earliest.is_over(now_ms) {
            return;
        }
        for _ in 0..steps {
            self.step(now_ms, room);
            if self.cursor >= self.cells.len() {
                self.end_pass();
                return;
            }
        }
    }

    /// One whole pass; whether it found anything.
    pub(super) fn sweep_whole(&mut self, now_ms: i64, room: &Room) -> bool {
        let before = self.cells.len();
        (self.cursor, self.passed) = (0, Expiry::NEVER);
        while self.cursor < self.cells.len() {
            self.step(now_ms, room);
        }
        self.end_pass();
        if self.cells.len() < self.cells.capacity() / 4 {
            self.cells.shrink_to(self.cells.len() * 2);
        }
        self.cells.len() < before
    }

    fn step(&mut self, now_ms: i64, room: &Room) {
        let Some((_, cell)) = self.cells.get_index(self.cursor) else { return };
        if cell.expiry.is_over(now_ms) {
            self.remove_at(self.cursor, room);
        } else {
            self.passed = self.passed.min(cell.expiry);
            self.cursor += 1;
        }
    }

    fn end_pass(&mut self) {
        (self.earliest, self.cursor, self.passed) = (self.passed, 0, Expiry::NEVER);
    }

    /// Takes note of an expiry, which may be earlier than all others, on either side of the cursor.
    fn note(&mut self, expiry: Expiry) {
        self.earliest = self.earliest.min(expiry);
        self.passed = self.passed.min(expiry);
    }

    fn remove_at(&mut self, index: usize, room: &Room) {
        if let Some((key, cell)) = self.cells.swap_remove_index(index) {
            room.give_entry(key.text.len().saturating_add(cell.size()));
        }
        // The last entry took its place, maybe from before the cursor to behind it.
        if index < self.cursor
            && let Some((_, moved)) = self.cells.get_index(index)
        {
            self.passed = self.passed.min(moved.expiry);
        }
    }
}
