//! A circuit breaker: a service that fails again and again is left alone for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Circuit {
    failures: u32,
    open_ms: i64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until_ms: Option<i64>,
    /// One request tries whether the service is back.
    trying: bool,
}

/// The right to one request. Dropped without a word it counts as neither.
#[derive(Debug)]
pub(crate) struct Permit {
    circuit: Arc<Circuit>,
    trying: bool,
}

impl Circuit {
    pub(crate) fn new(failures: u32, open_ms: i64) -> Arc<Self> {
        Arc::new(Self { failures, open_ms, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to a request, unless the circuit is open.
    pub(crate) fn enter(self: &Arc<Self>, now_ms: i64) -> Option<Permit> {
        let mut state = self.state();
        let trying = match state.open_until_ms {
            None => false,
            Some(until_ms) if now_ms < until_ms || state.trying => return None,
            Some(_) => true,
        };
        state.trying |= trying;
        Some(Permit { circuit: Arc::clone(self), trying })
    }
}

impl Permit {
    /// It went well; whether that closed the circuit.
    pub(crate) fn succeeded(self) -> bool {
        let mut state = self.circuit.state();
        state.failures = 0;
        state.open_until_ms.take().is_some()
    }

    /// It failed; whether that opened the circuit, for the first time in a row.
    pub(crate) fn failed(self, now_ms: i64) -> bool {
        let mut state = self.circuit.state();
        state.failures = state.failures.saturating_add(1);
        if !self.trying && state.failures < self.circuit.failures {
            return false;
        }
        let until_ms = now_ms.saturating_add(self.circuit.open_ms);
        state.open_until_ms.replace(until_ms).is_none()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.trying {
            self.circuit.state().trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_try() {
        let circuit = Circuit::new(2, 100);
        assert!(!circuit.enter(0).unwrap().failed(0));
        assert!(!circuit.enter(0).unwrap().succeeded());
        assert!(!circuit.enter(0).unwrap().failed(0));
        assert!(circuit.enter(0).unwrap().failed(0));
        assert!(circuit.enter(99).is_none());
        let permit = circuit.enter(100).unwrap();
        assert!(circuit.enter(100).is_none());
        assert!(!permit.failed(100));
        assert!(circuit.enter(199).is_none());
        assert!(circuit.enter(200).unwrap().succeeded());
        assert!(!circuit.enter(200).unwrap().failed(200));
        assert!(circuit.enter(200).is_some());
    }

    #[test]
    fn a_try_that_comes_to_nothing_makes_room_for_another() {
        let circuit = Circuit::new(1, 100);
        circuit.enter(0).unwrap().failed(0);
        drop(circuit.enter(100).unwrap());
        assert!(circuit.enter(100).is_some());
    }
}
