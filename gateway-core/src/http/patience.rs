//! How long a connection may take: for its first request, and for all of them. `serve` bounds each by it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{deadline::Deadline, handshake::Failed, proxy_header::HeaderFault};

/// How long a connection may be used for requests, unless an answer puts that off. hyper bounds the wait for a request, not
/// the writing of a response that nobody reads.
pub(crate) const HTTP_LIFETIME: Duration = Duration::from_secs(60);

/// How long an answer that is under way may take once that time is over. What waits for policy is not
/// cut off; whoever does not read loses the place.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Why a connection ended before its peer was done with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unserved {
    #[error(transparent)]
    Tls(Failed),
    #[error(transparent)]
    Http(hyper::Error),
    #[error(transparent)]
    Proxy(#[from] HeaderFault),
    #[error("no request in time (limits.handshake_timeout)")]
    NoRequest,
    #[error("open for too long")]
    TooLong,
}

/// How long a connection may be used: until `handshake_timeout` for its first request, with all that
/// comes before it, and then until its deadline, where it is ended in order ([`GRACE`]).
#[derive(Clone)]
pub(super) struct Patience {
    pub(super) deadline: Deadline,
    /// Until when its requests may be answered, unless an answer puts that off.
    lifetime: Instant,
    has_asked: Arc<AtomicBool>,
}

impl Patience {
    pub(super) fn begun(handshake_timeout: Duration) -> Self {
        let until = Instant::now() + handshake_timeout;
        let (deadline, lifetime) = (Deadline::at(until), until + HTTP_LIFETIME);
        Self { deadline, lifetime, has_asked: Arc::default() }
    }

    pub(super) fn got_a_request(&self) {
        if !self.has_asked.swap(true, Relaxed) {
            self.deadline.put_off_until(self.lifetime);
        }
    }

    /// Waits until it is time for the end: true where answers may be under way.
    pub(super) async fn over(&self) -> bool {
        self.deadline.passed().await;
        self.has_asked.load(Relaxed)
    }

    /// Waits until there is no more patience.
    async fn lost(&self) -> Unserved {
        if !self.over().await {
            return Unserved::NoRequest;
        }
        sleep(GRACE).await;
        Unserved::TooLong
    }

    /// Ends what takes too long.
    pub(super) async fn bounds(
        self,
        served: impl Future<Output = Result<(), Unserved>>,
    ) -> Result<(), Unserved> {
        tokio::select! {
            served = served => match served {
                // hyper has been as patient, to the millisecond.
                Err(Unserved::Http(error)) if error.is_timeout() && !self.has_asked.load(Relaxed) => {
                    Err(Unserved::NoRequest)
                }
                served => served,
            },
            unserved = self.lost() => Err(unserved),
        }
    }
}
