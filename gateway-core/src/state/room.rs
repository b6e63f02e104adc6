//! How much there is, and how much there may be: the counts that all shards share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use conexus_plugin_api::host::StateError;

/// How full a [`Store`](super::Store) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, utoipa::ToSchema)]
#[schema(as = StateUsage)]
pub struct Usage {
    /// Entries, rate limits in use among them.
    pub entries: usize,
    /// Bytes of keys and values. What an entry costs beside them (about 120 bytes) is not counted.
    pub bytes: usize,
    /// Operations refused as full, ever.
    pub refusals: u64,
}

/// Room is taken before an entry is made and given back after it is gone, so the bounds hold at
/// every moment. Changes of numbers and equally long values do not come by here.
pub(super) struct Room {
    max_entries: usize,
    max_bytes: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    refusals: AtomicU64,
}

impl Room {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            max_entries,
            max_bytes,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            refusals: AtomicU64::new(0),
        }
    }

    /// Takes room for an entry of so many bytes, or none at all.
    pub(super) fn take_entry(&self, bytes: usize) -> Result<(), StateError> {
        take(&self.entries, 1, self.max_entries)?;
        self.take_bytes(bytes).inspect_err(|_| {
            self.entries.fetch_sub(1, Relaxed);
        })
    }

    pub(super) fn take_bytes(&self, bytes: usize) -> Result<(), StateError> {
        take(&self.bytes, bytes, self.max_bytes)
    }

    pub(super) fn give_entry(&self, bytes: usize) {
        self.entries.fetch_sub(1, Relaxed);
        self.give_bytes(bytes);
    }

    pub(super) fn give_bytes(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            entries: self.entries.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
        }
    }
}

fn take(count: &AtomicUsize, more: usize, most: usize) -> Result<(), StateError> {
    let sum = |present: usize| present.checked_add(more).filter(|sum| *sum <= most);
    count.fetch_update(Relaxed, Relaxed, sum).map(|_| ()).map_err(|_| StateError::Full)
}
