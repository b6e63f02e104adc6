//! A sender and a receiver of its own: what `route` and `rate` are made of.
//!
//! One task serves both connections, so whatever arrives is followed by the next message at once.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use conexus_protocol::Identity;

use super::{
    bench::Shared,
    flight::{Flight, Stamp},
    message::{self, Arrival, Refusal},
    outlet::Outlet,
    register::SetupError,
    schedule::Slot,
    wire::{Lost, Wire},
};

/// When the next message goes out.
pub(super) enum Pace {
    /// As soon as fewer than this are under way.
    Window(usize),
    /// When its time has come, whatever became of those before.
    Schedule(Arc<Slot>),
}

/// See the [module](self).
pub(super) struct Pair {
    shared: Arc<Shared>,
    sender: Wire,
    receiver: Wire,
    outlet: Outlet,
    /// How the sender's messages begin.
    start: Vec<u8>,
    pace: Pace,
    flight: Flight,
    sent: u64,
    worker: usize,
}

impl Pair {
    /// Registers both, and then learns its pace. The pair's number tells which addresses they come
    /// from.
    pub(super) async fn register(
        shared: Arc<Shared>,
        worker: usize,
        number: usize,
        pace: impl FnOnce() -> Pace,
    ) -> Result<Self, SetupError> {
        let (from, to) = (Identity::generate(), Identity::generate());
        let receiver = shared.register(2 * number, &to).await?;
        let sender = shared.register(2 * number + 1, &from).await?;
        let plan = &shared.plan;
        let text = message::offer(&from, to.did(), number as u32, plan.bytes, plan.signing);
        let pace = pace();
        let (window, stamp) = match &pace {
            Pace::Window(window) => (*window, Stamp::Written),
            Pace::Schedule(_) => (1, Stamp::Intended),
        };
        {
            let mut tally = shared.board.tally(worker);
            tally.registered(receiver.took);
            tally.registered(sender.took);
        }
        Ok(Self {
            sender: sender.wire,
            receiver: receiver.wire,
            outlet: Outlet::new(&text, window),
            start: message::start_of_messages(&from),
            flight: Flight::new(Arc::clone(&shared.board), worker, stamp),
            pace,
            sent: 0,
            worker,
            shared,
        })
    }

    /// Does what there is to do on both connections; ready when one of them is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        if let Pace::Schedule(slot) = &self.pace {
            slot.register(cx.waker());
        }
        loop {
            match self.poll_once(cx) {
                Ok(true) => {}
                // Both reads will wake this task.
                Ok(false) => return Poll::Pending,
                Err(lost) => return Poll::Ready(lost),
            }
        }
    }

    /// Serves both connections, under load from the start on, until one of them is over.
    pub(super) async fn run(mut self) {
        let board = Arc::clone(&self.shared.board);
        let early = tokio::select! {
            () = board.started() => None,
            lost = poll_fn(|cx| self.poll(cx)) => Some(lost),
        };
        let lost = match early {
            Some(lost) => lost,
            None => poll_fn(|cx| self.poll(cx)).await,
        };
        board.gone(self.worker, &lost);
    }

    /// Whether something was read.
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Result<bool, Lost> {
        let Self { flight, start, .. } = self;
        let mut arrived = 0;
        let mut read =
            |wire: &mut Wire, each: &mut dyn FnMut(&[u8])| match wire.poll_texts(cx, each) {
                Poll::Ready(Ok(())) => Ok(true),
                Poll::Ready(Err(lost)) => Err(lost),
                Poll::Pending => Ok(false),
            };
        let received = read(&mut self.receiver, &mut |text| match Arrival::of(text, start) {
            Arrival::Message => arrived += 1,
            Arrival::Refusal(refusal) => flight.refused(&refusal),
        })?;
        let answered = read(&mut self.sender, &mut |text| {
            if let Some(refusal) = Refusal::read(text) {
                flight.refused(&refusal);
            }
        })?;
        let now = Instant::now();
        if arrived > 0 {
            flight.arrived(arrived, now);
        }
        self.send(now);
        // Whether all could be written makes no difference: the rest goes when there is room.
        if let Poll::Ready(written) = self.sender.poll_write(cx, &mut self.outlet) {
            written?;
        }
        if let Poll::Ready(written) = self.receiver.poll_answer(cx) {
            written?;
        }
        Ok(received || answered)
    }

    /// Takes on what is to be sent by now.
    fn send(&mut self, now: Instant) {
        match &self.pace {
            Pace::Window(window) => {
                let room = window.saturating_sub(self.flight.len());
                if room > 0 && self.shared.board.is_loaded() {
                    self.flight.sent((0..room).map(|_| now));
                    self.outlet.owe(room);
                }
            }
            Pace::Schedule(slot) => {
                let due: Vec<Instant> = slot.due(self.sent, now).collect();
                if due.is_empty() {
                    return;
                }
                self.sent += due.len() as u64;
                self.outlet.owe(due.len());
                {
                    let mut tally = self.shared.board.tally(self.worker);
                    let span = self.shared.board.span();
                    for intended in &due {
                        if span.is_some_and(|span| span.has(*intended)) {
                            tally.lateness.record(now - *intended);
                        }
                    }
                }
                self.flight.sent(due.into_iter());
            }
        }
    }
}
