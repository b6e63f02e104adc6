//! `fanin`: many senders to one receiver, in a closed loop.
//!
//! A receiver's outbox is bounded; when senders outrun it, each is told `queue_full`. Such a refusal is
//! counted, and its sender waits a moment before it goes on.

use std::{
    future::poll_fn,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use conexus_protocol::Identity;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::load::{
    LoadError,
    bench::{Bench, Measured, Shared},
    flight::{Flight, Stamp},
    message::{self, Refusal},
    outlet::Outlet,
    register::SetupError,
    wire::{Lost, Wire},
};

/// How long a sender waits after a refusal.
const BACK_OFF: Duration = Duration::from_millis(1);

/// A sender as the receiver knows it.
struct Source {
    flight: Mutex<Flight>,
    waker: AtomicWaker,
}

/// All of them, by number.
type Sources = [OnceLock<Arc<Source>>];

pub(in crate::load) async fn run(bench: &Bench) -> Result<Measured, LoadError> {
    let count = bench.plan().agents();
    let sources: Arc<Sources> = (0..count).map(|_| OnceLock::new()).collect();
    let receiver = Identity::generate();
    let to: Arc<str> = receiver.did().into();
    {
        let (shared, sources) = (Arc::clone(&bench.shared), Arc::clone(&sources));
        bench.spawn(0, async move { receive(&shared, &sources, count, &receiver).await });
    }
    bench.set_up("receiver", 1).await?;
    bench.spawn_each(count, |worker, number| {
        let shared = Arc::clone(&bench.shared);
        let (sources, to) = (Arc::clone(&sources), Arc::clone(&to));
        async move {
            match Sender::register(Arc::clone(&shared), &sources, worker, number, &to).await {
                Ok(sender) => {
                    shared.board.ready();
                    sender.run().await;
                }
                Err(error) => shared.board.failed(worker, &error),
            }
        }
    });
    bench.set_up("agents", count + 1).await?;
    let span = bench.start();
    Ok(bench.measure(span).await)
}

async fn receive(shared: &Shared, sources: &Sources, number: usize, identity: &Identity) {
    let mut wire = match shared.register(number, identity).await {
        Ok(agent) => agent.wire,
        Err(error) => return shared.board.failed(0, &error),
    };
    shared.board.ready();
    let lost = poll_fn(|cx| {
        let mut now = None;
        wire.poll_listen(cx, |text| {
            let source =
                message::number(text).and_then(|number| sources.get(number as usize)?.get());
            if let Some(source) = source {
                source.flight.lock().arrived(1, *now.get_or_insert_with(Instant::now));
                source.waker.wake();
            } else if let Some(refusal) = Refusal::read(text) {
                shared.board.tally(0).errors.refusal(&refusal);
            }
        })
    });
    let lost = lost.await;
    shared.board.gone(0, &lost);
}

struct Sender {
    shared: Arc<Shared>,
    worker: usize,
    wire: Wire,
    outlet: Outlet,
    source: Arc<Source>,
}

impl Sender {
    async fn register(
        shared: Arc<Shared>,
        sources: &Sources,
        worker: usize,
        number: usize,
        to: &str,
    ) -> Result<Self, SetupError> {
        let identity = Identity::generate();
        let agent = shared.register(number, &identity).await?;
        shared.board.tally(worker).registered(agent.took);
        let plan = &shared.plan;
        let text = message::offer(&identity, to, number as u32, plan.bytes, plan.signing);
        let outlet = Outlet::new(&text, plan.window);
        let flight = Flight::new(Arc::clone(&shared.board), worker, Stamp::Written);
        let source = Source { flight: Mutex::new(flight), waker: AtomicWaker::new() };
        let source = Arc::clone(sources[number].get_or_init(|| Arc::new(source)));
        Ok(Self { shared, worker, wire: agent.wire, outlet, source })
    }

    async fn run(mut self) {
        let board = Arc::clone(&self.shared.board);
        let early = tokio::select! {
            () = board.started() => None,
            lost = poll_fn(|cx| self.wire.poll_listen(cx, |_| {})) => Some(lost),
        };
        let lost = match early {
            Some(lost) => lost,
            None => loop {
                match poll_fn(|cx| self.poll(cx)).await {
                    Ok(()) => sleep(BACK_OFF).await,
                    Err(lost) => break lost,
                }
            },
        };
        board.gone(self.worker, &lost);
    }

    /// Sends and reads; ready when a message was refused, or the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let Self { shared, wire, outlet, source, .. } = self;
        source.waker.register(cx.waker());
        let mut refused = false;
        let listened = wire.poll_listen(cx, |text| {
            if let Some(refusal) = Refusal::read(text) {
                source.flight.lock().refused(&refusal);
                refused = true;
            }
        });
        if let Poll::Ready(lost) = listened {
            return Poll::Ready(Err(lost));
        }
        if refused {
            return Poll::Ready(Ok(()));
        }
        let mut flight = source.flight.lock();
        let room = shared.plan.window.saturating_sub(flight.len());
        if room > 0 && shared.board.is_loaded() {
            let now = Instant::now();
            flight.sent((0..room).map(|_| now));
            outlet.owe(room);
        }
        drop(flight);
        match wire.poll_write(cx, outlet) {
            Poll::Ready(Err(lost)) => Poll::Ready(Err(lost)),
            // Whoever waits for room or for an arrival is woken.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}
