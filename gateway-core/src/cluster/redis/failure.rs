//! Why a link has failed: once, for all that use it.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::cluster::backplane::Away;

/// See the [module](self). Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    why: OnceLock<Away>,
    failed: CancellationToken,
}

impl Failure {
    /// The first reason counts: what fails afterwards fails because of it.
    pub(super) fn fail(&self, why: Away) -> Away {
        let first = self.0.why.get_or_init(|| why).clone();
        self.0.failed.cancel();
        first
    }

    pub(super) fn get(&self) -> Option<&Away> {
        self.0.why.get()
    }

    /// Waits until there is one.
    pub(super) async fn failed(&self) -> Away {
        loop {
            self.0.failed.cancelled().await;
            // Set before the token is cancelled.
            if let Some(why) = self.get() {
                return why.clone();
            }
        }
    }
}
