//! `churn`: agents in pairs that connect, register, exchange a message and leave, over and over.
//!
//! They leave as the protocol has it, with UNREGISTER, and wait for the close.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use conexus_protocol::Identity;
use tokio::time::timeout;

use crate::load::{
    LoadError,
    bench::{Bench, Measured, Shared, attendance},
    board::Phase,
    frame::{Opcode, masked},
    message::{self, Arrival, Refusal},
    register::{Registered, SetupError},
    wire::{Lost, Wire},
};

/// How long the message, and the close, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// After a failure a couple does not try again at once.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Two agents, and all that they ever say but the proof.
struct Couple {
    sender: Identity,
    receiver: Identity,
    start: Vec<u8>,
    message: Vec<u8>,
    farewells: [Vec<u8>; 2],
}

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("a message was refused: {0}")]
    Refused(Refusal),
    #[error("{0} took more than {PATIENCE:?}")]
    Timeout(&'static str),
}

pub(in crate::load) async fn run(bench: &Bench) -> Result<Measured, LoadError> {
    let turn = Arc::new(AtomicUsize::new(0));
    let (present, finished) = attendance();
    bench.spawn_each(bench.plan().agents().div_ceil(2), |worker, number| {
        let (shared, turn) = (Arc::clone(&bench.shared), Arc::clone(&turn));
        let present = present.clone();
        async move {
            let _present = present;
            let couple = Couple::new(&shared, number as u32);
            shared.board.started().await;
            while shared.board.is_loaded() {
                let turn = turn.fetch_add(1, Relaxed);
                if !shared.at_its_turn(2 * turn).await {
                    break;
                }
                if let Err(error) = couple.round(&shared, worker, turn).await {
                    error.count(&shared, worker);
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    });
    drop(present);
    let span = bench.start();
    // Who has come leaves as well.
    Ok(bench.measure_all(span, finished).await)
}

impl Couple {
    fn new(shared: &Shared, number: u32) -> Self {
        let (sender, receiver) = (Identity::generate(), Identity::generate());
        let plan = &shared.plan;
        let text = message::offer(&sender, receiver.did(), number, plan.bytes, plan.signing);
        let frame = |text: &str| masked(Opcode::Text, text.as_bytes());
        Self {
            start: message::start_of_messages(&sender),
            message: frame(&text),
            farewells: [&sender, &receiver].map(|agent| frame(&message::unregister(agent))),
            sender,
            receiver,
        }
    }

    async fn round(&self, shared: &Shared, worker: usize, turn: usize) -> Result<(), RoundError> {
        let mut receiver = shared.register(2 * turn, &self.receiver).await?;
        let mut sender = shared.register(2 * turn + 1, &self.sender).await?;
        let registered = [&receiver, &sender].map(|agent: &Registered| agent.took);
        let written = Instant::now();
        shared.board.tally(worker).sent += 1;
        let exchanged = self.exchange(&mut sender.wire, &mut receiver.wire).await;
        let latency = written.elapsed();
        {
            let mut tally = shared.board.tally(worker);
            tally.settled += 1;
            if shared.board.phase() == Phase::Measuring {
                for took in registered {
                    tally.registered(took);
                }
                if exchanged.is_ok() {
                    tally.messages += 1;
                    tally.latency.record(latency);
                }
            }
        }
        exchanged?;
        let [sent, received] = &self.farewells;
        leave(&mut sender.wire, sent).await?;
        leave(&mut receiver.wire, received).await
    }

    async fn exchange(&self, sender: &mut Wire, receiver: &mut Wire) -> Result<(), RoundError> {
        patiently("a message", async {
            sender.write_all(&self.message).await.map_err(Lost::Io)?;
            poll_fn(|cx| {
                let (mut arrived, mut refused) = (false, None);
                let received =
                    receiver.poll_listen(cx, |text| match Arrival::of(text, &self.start) {
                        Arrival::Message => arrived = true,
                        Arrival::Refusal(refusal) => refused = Some(refusal),
                    });
                let answered = sender.poll_listen(cx, |text| {
                    refused = Refusal::read(text).or(refused.take());
                });
                match (arrived, refused, [received, answered]) {
                    (true, ..) => Poll::Ready(Ok(())),
                    (_, Some(refusal), _) => Poll::Ready(Err(RoundError::Refused(refusal))),
                    (.., [Poll::Ready(lost), _] | [_, Poll::Ready(lost)]) => {
                        Poll::Ready(Err(lost.into()))
                    }
                    _ => Poll::Pending,
                }
            })
            .await
        })
        .await
    }
}

/// Says farewell and waits for the close.
async fn leave(wire: &mut Wire, farewell: &[u8]) -> Result<(), RoundError> {
    patiently("a farewell", async {
        wire.write_all(farewell).await.map_err(Lost::Io)?;
        match poll_fn(|cx| wire.poll_listen(cx, |_| {})).await {
            Lost::Ended | Lost::Closed { code: 1000, .. } => Ok(()),
            lost => Err(lost.into()),
        }
    })
    .await
}

async fn patiently(
    what: &'static str,
    step: impl Future<Output = Result<(), RoundError>>,
) -> Result<(), RoundError> {
    timeout(PATIENCE, step).await.unwrap_or(Err(RoundError::Timeout(what)))
}

impl RoundError {
    fn count(&self, shared: &Shared, worker: usize) {
        let mut tally = shared.board.tally(worker);
        match self {
            Self::Setup(error) => tally.errors.setup(error),
            Self::Lost(lost) => tally.errors.lost(lost),
            Self::Refused(refusal) => tally.errors.refusal(refusal),
            Self::Timeout(_) => tally.errors.timeout(&self.to_string()),
        }
    }
}
