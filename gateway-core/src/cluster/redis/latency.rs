//! How long the last few operations took.

use std::time::Duration;

use parking_lot::Mutex;

/// As many as an operator's look is about.
const KEPT: usize = 256;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Latency(Mutex<Ring>);

#[derive(Debug)]
struct Ring {
    /// In microseconds.
    took: Vec<u32>,
    next: usize,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Mutex::new(Ring { took: Vec::with_capacity(KEPT), next: 0 }))
    }
}

impl Latency {
    pub(super) fn note(&self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mut ring = self.0.lock();
        let Ring { took, next } = &mut *ring;
        match took.get_mut(*next) {
            Some(oldest) => *oldest = micros,
            None => took.push(micros),
        }
        *next = (*next + 1) % KEPT;
    }

    /// Half of them took no longer than the first; the second is the slowest.
    pub(super) fn look(&self) -> Option<(Duration, Duration)> {
        let mut took = self.0.lock().took.clone();
        let middle = took.len().checked_sub(1)? / 2;
        let slowest = *took.iter().max()?;
        let (_, half, _) = took.select_nth_unstable(middle);
        Some((Duration::from_micros((*half).into()), Duration::from_micros(slowest.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept() {
        let latency = Latency::default();
        assert_eq!(latency.look(), None);
        latency.note(Duration::from_secs(5));
        assert_eq!(latency.look(), Some((Duration::from_secs(5), Duration::from_secs(5))));
        for micros in 1..=256 {
            latency.note(Duration::from_micros(micros));
        }
        assert_eq!(latency.look(), Some((Duration::from_micros(128), Duration::from_micros(256))));
    }
}
