//! Takes a peer's signaling to the gateway, in order, over all connections that the client makes.
//!
//! What cannot be sent waits until the gateway is back, or its time is over. A message that may have been
//! sent is sent again as it is: whoever gets it twice knows it by its id.

use std::time::Duration;

use conexus_protocol::Draft;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use super::gateway::AnyGateway;
use crate::{ConnectionState, SendError};

/// Messages that wait to be sent.
const MAX_WAITING: usize = 512;

/// A connection that is about to be found lost takes a moment to be.
const MOMENT: Duration = Duration::from_millis(20);

struct Parcel {
    draft: Draft,
    until: Instant,
    /// Whether its sender wants to know if it is given up.
    is_essential: bool,
}

/// A message that was given up: its id, and why.
pub(crate) type Unsent = (String, SendError);

/// A peer's queue of messages.
#[derive(Debug)]
pub(crate) struct Courier {
    parcels: mpsc::Sender<Parcel>,
}

impl Courier {
    /// A courier, what it could not send, and the task that does the work.
    pub(crate) fn new(
        gateway: AnyGateway,
    ) -> (Self, mpsc::Receiver<Unsent>, impl Future<Output = ()> + Send + 'static) {
        let (parcels, queue) = mpsc::channel(MAX_WAITING);
        let (unsent, given_up) = mpsc::channel(MAX_WAITING);
        (Self { parcels }, given_up, run(gateway, queue, unsent))
    }

    /// Sends a message whose loss matters; whether there is room for it.
    pub(crate) fn send(&self, draft: Draft, until: Instant) -> bool {
        self.parcels.try_send(Parcel { draft, until, is_essential: true }).is_ok()
    }

    /// Sends a message that others can do without.
    pub(crate) fn try_send(&self, draft: Draft, until: Instant) {
        let _ = self.parcels.try_send(Parcel { draft, until, is_essential: false });
    }
}

async fn run(
    gateway: AnyGateway,
    mut parcels: mpsc::Receiver<Parcel>,
    unsent: mpsc::Sender<Unsent>,
) {
    while let Some(Parcel { draft, until, is_essential }) = parcels.recv().await {
        let id = draft.id.clone();
        if let Err(error) = deliver(&gateway, draft, until).await {
            tracing::debug!(%id, %error, "signaling was not sent");
            if is_essential {
                // The peer has ended, or has more of them than it can make.
                let _ = unsent.try_send((id, error));
            }
        }
    }
}

async fn deliver(gateway: &AnyGateway, draft: Draft, until: Instant) -> Result<(), SendError> {
    let mut states = gateway.states();
    loop {
        let state = *states.borrow_and_update();
        let error = match timeout_at(until, gateway.send(draft.clone())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ (SendError::NotConnected(_) | SendError::ConnectionLost))) => error,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(SendError::NotConnected(state)),
        };
        let back = async {
            sleep(MOMENT).await;
            states.wait_for(|state| *state == ConnectionState::Connected).await.is_ok()
        };
        match timeout_at(until, back).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(error),
        }
    }
}
