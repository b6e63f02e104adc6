//! What one call may use: operations, time, memory, stack.
//!
//! Rhai asks after every operation whether to go on, and tells nothing but a number; hence the
//! thread's own meter. It counts by itself because Rhai counts anew in callbacks (`filter(|x| …)`).

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rhai::Dynamic;

/// What a call may allocate beyond what it frees, where the allocator tells (jemalloc). One
/// operation may go past it by the largest value that the other limits allow.
pub(super) const MEMORY_BYTES: u64 = 64 << 20;

/// The stack that the deepest of scripts can use. Threads that call scripts should have at least
/// this much; on others each call gets a stack of its own, which takes microseconds. It is address
/// space: what is not used takes no memory.
pub const STACK_BYTES: usize = 64 << 20;

/// A thread of [`STACK_BYTES`] has used some of it by the time it calls a script.
const SPARE_STACK: usize = STACK_BYTES - (4 << 20);

/// The clock is read every so many operations; reading it costs as much as an operation.
const CLOCK_EVERY: u64 = 8;

/// The time for a script's top level, and for all of a policy test.
pub(super) const LOAD_TIME: Duration = Duration::from_secs(2);

/// Why a call was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// More operations than this.
    Operations(u64),
    /// Out of time.
    Deadline,
    /// Too much memory.
    Memory,
}

#[derive(Clone, Copy)]
struct Meter {
    operations: u64,
    max_operations: u64,
    deadline: Option<Instant>,
    memory: u64,
}

thread_local! {
    static METER: Cell<Meter> = const {
        Cell::new(Meter { operations: 0, max_operations: u64::MAX, deadline: None, memory: 0 })
    };
}

/// Runs within a budget. Calls may nest (a policy test calls its policy); each has its own.
pub(super) fn metered<T>(max_operations: u64, deadline: Instant, run: impl FnOnce() -> T) -> T {
    struct Restore(Meter);
    impl Drop for Restore {
        fn drop(&mut self) {
            METER.set(self.0);
        }
    }
    let fresh =
        Meter { operations: 0, max_operations, deadline: Some(deadline), memory: memory::held() };
    let _restore = Restore(METER.replace(fresh));
    stacker::maybe_grow(SPARE_STACK, STACK_BYTES, run)
}

/// After each operation: a reason to stop.
pub(super) fn tick(_rhai_counts: u64) -> Option<Dynamic> {
    let mut meter = METER.get();
    meter.operations += 1;
    METER.set(meter);
    let stopped = if meter.operations > meter.max_operations {
        Stopped::Operations(meter.max_operations)
    } else if memory::held().wrapping_sub(meter.memory).cast_signed() > MEMORY_BYTES.cast_signed() {
        Stopped::Memory
    } else if meter.operations % CLOCK_EVERY == 1
        && meter.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    {
        Stopped::Deadline
    } else {
        return None;
    };
    Some(Dynamic::from(stopped))
}

/// What this thread has allocated and not freed.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
mod memory {
    use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};

    thread_local! {
        static COUNTERS: Option<(ThreadLocal<u64>, ThreadLocal<u64>)> =
            allocatedp::read().ok().zip(deallocatedp::read().ok());
    }

    /// Only differences mean something. Always 0 where another allocator serves.
    pub(super) fn held() -> u64 {
        COUNTERS.with(|counters| {
            counters
                .as_ref()
                .map_or(0, |(allocated, freed)| allocated.get().wrapping_sub(freed.get()))
        })
    }
}

#[cfg(not(all(feature = "jemalloc", target_os = "linux")))]
mod memory {
    pub(super) fn held() -> u64 {
        0
    }
}
