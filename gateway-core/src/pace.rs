//! At most one line a second about what anybody may cause as often as they like.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// See the [module](self). One for each kind of line.
#[derive(Debug, Default)]
pub(crate) struct OncePerSecond(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    kept_back: u64,
}

impl OncePerSecond {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State { said: None, kept_back: 0 }))
    }

    /// Whether it is time for a line; then how many were kept back since the last one.
    pub(crate) fn due(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let now = Instant::now();
        if state.said.is_some_and(|said| now < said + INTERVAL) {
            state.kept_back += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_tells_how_many_there_would_have_been() {
        let pace = OncePerSecond::default();
        assert_eq!(pace.due(), Some(0));
        assert_eq!((pace.due(), pace.due()), (None, None));
        tokio::time::advance(INTERVAL).await;
        assert_eq!((pace.due(), pace.due()), (Some(2), None));
    }
}
