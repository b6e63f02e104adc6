//! `idle`: registered agents that say nothing and answer pings; what they cost in memory.
//!
//! Memory is read once it has come to rest, since an allocator gives back late what a crowd's arrival
//! took for the moment. It can be read a second time after each agent got one message: what a session
//! keeps of having been written to shows only then.

use std::{
    future::poll_fn,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use conexus_protocol::{Draft, Identity, Watch};
use futures_util::task::AtomicWaker;
use tokio::{sync::oneshot, time::timeout};

use crate::load::{
    LoadError,
    bench::{Bench, Measured, Shared},
    frame::{Opcode, masked},
    message::{self, Refusal},
    register::SetupError,
    wire::{Lost, Wire},
};

/// Messages under way at once, to the crowd as a whole.
const WINDOW: u64 = 64;

/// How long none of them may arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// The crowd, by number.
struct Crowd {
    members: Box<[Member]>,
    /// The one that writes to all.
    writer: AtomicWaker,
}

#[derive(Default)]
struct Member {
    did: OnceLock<String>,
    written: OnceLock<Instant>,
}

pub(in crate::load) async fn run(bench: &Bench) -> Result<Measured, LoadError> {
    let count = bench.plan().agents();
    let members = (0..count).map(|_| Member::default()).collect();
    let crowd = Arc::new(Crowd { members, writer: AtomicWaker::new() });
    bench.spawn_each(count, |worker, number| {
        let (shared, crowd) = (Arc::clone(&bench.shared), Arc::clone(&crowd));
        async move {
            match join(&shared, &crowd, worker, number).await {
                Ok(wire) => listen(&shared, &crowd, worker, number, wire).await,
                Err(error) => shared.board.failed(worker, &error),
            }
        }
    });
    bench.set_up("agents", count).await?;
    let mut measured = bench.measure(bench.start()).await;
    measured.resident = bench.resident_at_rest().await;
    if bench.plan().idle_message && !bench.is_interrupted() {
        bench.tell("writing to every agent");
        let shared = Arc::clone(&bench.shared);
        let (done, written) = oneshot::channel::<()>();
        bench.spawn(0, async move {
            if let Err(error) = write_to_all(&shared, &crowd, count).await {
                shared.board.tally(0).errors.setup(&error);
            }
            drop(done);
        });
        tokio::select! {
            _ = written => {}
            () = bench.interrupted() => {}
        }
        measured.resident_after_message = bench.resident_at_rest().await;
    }
    Ok(measured)
}

async fn join(
    shared: &Shared,
    crowd: &Crowd,
    worker: usize,
    number: usize,
) -> Result<Wire, SetupError> {
    let identity = Identity::generate();
    let mut agent = shared.register(number, &identity).await?;
    if let Some(did) = &shared.plan.watch {
        let watch = Draft::new(did, Watch { dids: vec![did.clone()] }).sign(&identity);
        let frame = masked(Opcode::Text, watch.as_bytes());
        patiently(async { Ok(agent.wire.write_all(&frame).await?) }).await?;
    }
    let member = &crowd.members[number];
    // Each joins once.
    let _ = member.did.set(identity.did().to_owned());
    shared.board.tally(worker).registered(agent.took);
    shared.board.ready();
    Ok(agent.wire)
}

async fn listen(shared: &Shared, crowd: &Crowd, worker: usize, number: usize, mut wire: Wire) {
    // What it is told of a watched agent is read and thrown away, as everything else.
    let lost = poll_fn(|cx| {
        wire.poll_listen(cx, |text| {
            let mut tally = shared.board.tally(worker);
            match (Refusal::read(text), crowd.members[number].written.get()) {
                (Some(refusal), _) => tally.errors.refusal(&refusal),
                (None, Some(written)) => {
                    tally.messages += 1;
                    tally.settled += 1;
                    tally.latency.record(written.elapsed());
                    crowd.writer.wake();
                }
                (None, None) => {}
            }
        })
    });
    let lost = lost.await;
    shared.board.gone(worker, &lost);
}

/// One more agent writes to each of the crowd.
async fn write_to_all(shared: &Shared, crowd: &Crowd, number: usize) -> Result<(), SetupError> {
    let identity = Identity::generate();
    let mut wire = shared.register(number, &identity).await?.wire;
    for (number, member) in crowd.members.iter().enumerate() {
        let Some(did) = member.did.get() else { continue };
        let plan = &shared.plan;
        let text = message::offer(&identity, did, number as u32, plan.bytes, plan.signing);
        patiently(poll_fn(|cx| poll_room(shared, crowd, &mut wire, cx, WINDOW))).await?;
        let _ = member.written.set(Instant::now());
        shared.board.tally(0).sent += 1;
        let frame = masked(Opcode::Text, text.as_bytes());
        patiently(async { Ok(wire.write_all(&frame).await?) }).await?;
    }
    patiently(poll_fn(|cx| poll_room(shared, crowd, &mut wire, cx, 1))).await
}

/// Ready when less than a window is under way.
fn poll_room(
    shared: &Shared,
    crowd: &Crowd,
    wire: &mut Wire,
    cx: &mut Context<'_>,
    window: u64,
) -> Poll<Result<(), Lost>> {
    crowd.writer.register(cx.waker());
    let listened = wire.poll_listen(cx, |text| {
        if let Some(refusal) = Refusal::read(text) {
            let mut tally = shared.board.tally(0);
            tally.errors.refusal(&refusal);
            tally.settled += 1;
        }
    });
    match listened {
        Poll::Ready(lost) => Poll::Ready(Err(lost)),
        Poll::Pending if shared.board.counts().1 < window => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    }
}

async fn patiently(step: impl Future<Output = Result<(), Lost>>) -> Result<(), SetupError> {
    match timeout(PATIENCE, step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(SetupError::Timeout(PATIENCE)),
    }
}
