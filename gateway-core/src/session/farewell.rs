//! The end of a registered session: nothing that it was to write vanishes.
//!
//! First the agent is no longer shown; then what is unwritten goes the way of an absent target, in
//! order, with whatever arrives meanwhile lined up behind; observers are told; then the key is
//! given up; last the socket is closed with the reason. A session that was taken over hands its rest to the newer one
//! instead.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use conexus_plugin_api::{
    Point,
    host::{Disconnect, Event, Replaced, Unregister},
};
use conexus_protocol::{CloseReason, ErrorCode};
use rand::Rng as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, timeout},
};
use tracing::info;

use super::{
    active::{Active, Ended},
    handle::SessionHandle,
    outbox::Parcel,
    wire::{LINGER, SocketFault, Wire},
};
use crate::{core::Core, phase::Phase, telemetry::history::HistoryKind, voice::Complaint};

/// How long a frame that was begun may take to be finished before the socket is given up.
const FRAME_PATIENCE: Duration = Duration::from_millis(250);

/// How observers and watchers are told that a newer session took over.
const REPLACED: &str = "replaced";

/// The reason text of a close with 1012: when to come back, spread over a span so that not all
/// agents come at once.
pub(crate) fn reconnect_hint(core: &Core) -> String {
    let span = core.return_within.load(Relaxed);
    format!("reconnect_in={}", rand::rng().random_range(0..=span))
}

impl Ended {
    /// How to close, where the socket can still be spoken to.
    fn close_reason(&self) -> Option<CloseReason> {
        match self {
            Self::PeerClosed(_) => None,
            Self::Unregistered => Some(CloseReason::Done),
            Self::Replaced(_) | Self::Moved | Self::Superseded => Some(CloseReason::Replaced),
            Self::Expired => Some(CloseReason::Expired),
            Self::TooManyBadMessages => Some(CloseReason::TooManyBadMessages),
            Self::RateLimited => Some(CloseReason::RateLimited),
            Self::TooSlow => Some(CloseReason::TooSlow),
            Self::Dismissed(reason, _) => Some(*reason),
            Self::Stopping => Some(CloseReason::Restarting),
            Self::Broken(fault) => fault.close_reason(),
        }
    }

    fn as_log(&self) -> String {
        match self {
            Self::PeerClosed(Some(code)) => format!("closed by the agent with {code}"),
            Self::PeerClosed(None) => "closed by the agent".into(),
            Self::Unregistered => "unregistered".into(),
            Self::Moved => "replaced on another node".into(),
            Self::Superseded => "superseded on another node".into(),
            Self::Dismissed(reason, text) => format!("{}: {text}", reason.reason()),
            Self::Broken(fault) => fault.to_string(),
            ended => ended.close_reason().map_or_else(String::new, |close| close.reason().into()),
        }
    }

    /// How observers are told of it.
    fn ending(&self) -> Ending {
        let (word, before) = match self {
            Self::PeerClosed(_) => ("closed", None),
            Self::Unregistered => ("unregistered", Some(Point::Unregister)),
            Self::Replaced(_) | Self::Moved => (REPLACED, Some(Point::Replaced)),
            Self::Superseded => (REPLACED, None),
            Self::Expired => ("expired", None),
            Self::TooManyBadMessages => ("bad_messages", None),
            Self::RateLimited => ("rate_limited", None),
            Self::TooSlow => ("too_slow", None),
            Self::Dismissed(CloseReason::Removed, _) => ("removed", None),
            Self::Dismissed(CloseReason::Restarting, _) => ("stopping", None),
            Self::Dismissed(..) => ("denied", None),
            Self::Stopping => ("stopping", None),
            Self::Broken(_) => (Ending::BROKEN.word, None),
        };
        let code = match self {
            Self::PeerClosed(code) => *code,
            ended => ended.close_reason().map(CloseReason::code),
        };
        Ending { word, code, before }
    }
}

/// What observers learn about the end of a session.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) word: &'static str,
    code: Option<u16>,
    /// What they are told ahead of it.
    before: Option<Point>,
}

impl Ending {
    /// Of a session whose task ended without a farewell.
    pub(super) const BROKEN: Self = Self { word: "broken", code: None, before: None };

    pub(super) fn announce(self, core: &Core, session: &SessionHandle) {
        let telemetry = &core.router.telemetry;
        telemetry.sessions.ended.count(self.word);
        let kind = match self.before {
            Some(Point::Replaced) => HistoryKind::Replaced,
            _ => HistoryKind::Left,
        };
        telemetry.happened(kind, session, Some(self.word), self.code);
        let agent = || session.facts();
        let connection = || Some(Arc::clone(&session.connection));
        if let Some(point) = self.before {
            core.router.observe(point, || match point {
                Point::Unregister => Event::Unregister(Arc::new(Unregister {
                    agent: agent(),
                    connection: connection(),
                })),
                _ => {
                    Event::Replaced(Arc::new(Replaced { agent: agent(), connection: connection() }))
                }
            });
        }
        core.router.observe(Point::Disconnect, || {
            let lasted = session.connected_at.until(core.clock.now());
            Event::Disconnect(Arc::new(Disconnect {
                agent: agent(),
                reason: self.word.into(),
                code: self.code,
                lasted_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
                epoch: session.epoch().map(|epoch| epoch.0),
                connection: connection(),
            }))
        });
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Active<S> {
    /// Settles what the session leaves behind, and closes the socket.
    pub(super) async fn leave(mut self, ended: Ended) {
        let (reason, close) = (ended.as_log(), ended.close_reason());
        if !matches!(ended, Ended::Superseded) {
            info!(
                session = %self.handle.id,
                agent = %self.handle.agent,
                %reason,
                code = close.map(|close| close.code()),
                "agent disconnected"
            );
        }
        if matches!(ended, Ended::Broken(SocketFault::TooBig)) {
            self.core.router.telemetry.sessions.oversize.count("message");
        }
        // Its agent is another session's to tell, or nobody's.
        self.core.router.presence.unwatch_all(&self.handle);
        let ending = ended.ending();
        let word = ending.word;
        // Nobody was told of a session that was never registered.
        self.key.untold = (!matches!(ended, Ended::Superseded)).then_some(ending);
        match ended {
            Ended::Replaced(to) => self.yield_to(to).await,
            Ended::Stopping => {
                // What is left to write is mostly what the stop itself brought up.
                if self.core.phase() == Phase::Closing {
                    self.write_out().await;
                }
                let hint = reconnect_hint(&self.core);
                self.depart(close, word, &hint, Vec::new()).await;
            }
            // The gateway stops, and this is the agent's turn: it takes along what waits for it.
            Ended::Dismissed(CloseReason::Restarting, hint) => {
                self.take_along().await;
                self.depart(close, word, &hint, Vec::new()).await;
            }
            ended => {
                let mut last_words = Vec::new();
                if matches!(ended, Ended::Expired) {
                    let complaint = Complaint::new(ErrorCode::Timeout, "silent for too long");
                    let to = self.handle.agent.as_str();
                    let error = self.core.router.voice.error(to, None, &complaint);
                    last_words.push(Parcel::Word(error));
                }
                let text = match &ended {
                    Ended::Dismissed(_, text) => text,
                    _ => close.map_or("", |close| close.reason()),
                };
                self.depart(close, word, text, last_words).await;
            }
        }
    }

    /// Writes what waits for the agent, until the stop has come to where what is unwritten is refused.
    /// What it sent last is judged meanwhile; then nothing more comes up here, and nobody needs to wait
    /// for that until a socket that takes nothing has been given up.
    async fn take_along(&mut self) {
        let (pending, reading) = (self.pending.take(), self.reading.take());
        let judged = async move {
            if let Some(pending) = pending {
                pending.await;
            }
            drop(reading);
        };
        let mut phase = self.core.phase.subscribe();
        let settling = async move {
            let _ = phase.wait_for(|phase| *phase >= Phase::Settling).await;
        };
        let written = async {
            tokio::select! { () = self.write_out() => {}, () = settling => {} }
        };
        tokio::join!(judged, written);
    }

    /// Writes until the outbox is empty and the kernel has everything, but not for long: part of what
    /// time is left is for the close.
    async fn write_out(&mut self) {
        let usual = self.core.settings.server.drain_timeout / 4;
        let left = self.core.stop_by.get().map(|end| *end - Instant::now());
        let patience = left.map_or(usual, |left| usual.min(left / 2));
        let _ = timeout(patience, async {
            loop {
                self.fill();
                if self.wire.is_idle() && self.handle.outbox.is_empty() {
                    return;
                }
                if self.wire.flush().await.is_err() {
                    return;
                }
            }
        })
        .await;
    }

    /// Hands what is unwritten to the newer session of the same key.
    async fn yield_to(mut self, to: oneshot::Sender<Vec<Parcel>>) {
        // What this session's agent sent goes first: the newer one may send more to the same target.
        self.finish_pending().await;
        let (unwritten, cut) = take_back(&mut self.wire, FRAME_PATIENCE).await;
        self.key.announce_end();
        match to.send(unwritten) {
            Ok(()) => {
                self.key.yielded = true;
                (self.reading, self.writing) = (None, None);
                if !cut {
                    let close = CloseReason::Replaced;
                    self.wire.close(close, close.reason()).await;
                }
            }
            // The newer one is gone already: this is an end like any other.
            Err(unwritten) => {
                self.core.router.presence.begin_leaving(&self.handle, REPLACED);
                self.give_up_key(unwritten).await;
            }
        }
    }

    /// `word` is why, for those who watch the agent; `text` goes into the close frame.
    async fn depart(
        mut self,
        close: Option<CloseReason>,
        word: &'static str,
        text: &str,
        last_words: Vec<Parcel>,
    ) {
        let presence = &self.core.router.presence;
        presence.begin_leaving(&self.handle, word);
        let patience = match close {
            None => Duration::ZERO,
            // It can only be told once the frame that it is stuck in has been taken.
            Some(CloseReason::TooSlow) => LINGER,
            Some(_) => FRAME_PATIENCE,
        };
        let (unwritten, cut) = take_back(&mut self.wire, patience).await;
        let mut answers = self.give_up_key(unwritten).await;
        if cut {
            return;
        }
        answers.extend(last_words);
        match close {
            Some(close) => {
                for answer in answers {
                    self.wire.feed(answer);
                }
                self.wire.close(close, text).await;
            }
            None => self.wire.close_acknowledged().await,
        }
    }

    /// Sends everything unwritten the way of an absent target, then gives up the key. Returns the
    /// gateway's own answers, which still fit ahead of a close.
    async fn give_up_key(&mut self, unwritten: Vec<Parcel>) -> Vec<Parcel> {
        self.finish_pending().await;
        // Not before: the pending decision may have been about a renewal.
        self.key.announce_end();
        let router = Arc::clone(&self.core.router);
        let (mut answers, routed): (Vec<_>, Vec<_>) =
            unwritten.into_iter().partition(Parcel::is_answer);
        router.hand_on(routed, self.handle.id).await;
        let mut handed_on = 0;
        loop {
            while let Some(parcel) = self.handle.outbox.take() {
                handed_on += 1;
                if handed_on == self.core.settings.limits.outbox_messages {
                    // They come faster than they go: the agent may be waiting to come back.
                    self.handle.outbox.seal();
                }
                tokio::task::yield_now().await;
                if parcel.is_answer() {
                    answers.push(parcel);
                } else {
                    router.hand_on(vec![parcel], self.handle.id).await;
                }
            }
            if router.presence.finish_leaving(&self.handle) {
                (self.reading, self.writing) = (None, None);
                return answers;
            }
        }
    }

    /// A message whose decision was still pending gets its end before its sender is gone.
    async fn finish_pending(&mut self) {
        if let Some(pending) = self.pending.take() {
            pending.await;
        }
    }
}

/// Takes back all that the kernel does not have, oldest first. True if a frame was cut off, so that
/// the socket is good for nothing more.
async fn take_back<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    patience: Duration,
) -> (Vec<Parcel>, bool) {
    let behind = wire.withdraw();
    wire.settle();
    if !patience.is_zero() {
        wire.finish_frame(patience).await;
    }
    let (mut unwritten, cut) = wire.abandon();
    unwritten.extend(behind);
    (unwritten, cut)
}
