//! A connection on the data path: a raw socket, read by skimming and written frame by frame.
//!
//! Thousands of them share one read buffer per thread; what a connection keeps of its own is the
//! frame that was cut. Pings are answered here, a close is an error.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::{
    frame::{Broken, Opcode, masked},
    outlet::Outlet,
    skim::Skimmer,
    stream::Stream,
};

/// Holds what a fast server has written since the last look.
const READ_BYTES: usize = 256 * 1024;

/// An ERROR of a gateway is at most 1 KiB (protocol, part 3, duty 5); others may be wordier.
const KEPT_BYTES: usize = 4 * 1024;

/// While an agent registers, whole messages are read.
const KEPT_BYTES_AT_FIRST: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("the server closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },
    #[error("the server ended the connection without a close frame")]
    Ended,
    #[error("the connection failed: {0}")]
    Io(io::Error),
    #[error("the server broke the framing: {0}")]
    Broken(Broken),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// See the [module](self).
pub(super) struct Wire {
    stream: Stream,
    skimmer: Skimmer,
    /// Answers to pings that are not written yet.
    answers: Vec<u8>,
    answered: usize,
}

impl Wire {
    /// Over a stream on which WebSocket frames begin.
    pub(super) fn new(stream: Stream) -> Self {
        let skimmer = Skimmer::keeping(KEPT_BYTES_AT_FIRST);
        Self { stream, skimmer, answers: Vec::new(), answered: 0 }
    }

    /// From now on only the start of messages is of interest.
    pub(super) fn skim_only(&mut self) {
        self.skimmer.keep_only(KEPT_BYTES);
    }

    /// Writes bytes that are no part of an outlet's frames, and waits until they are on their way.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads once, and hands over the texts that arrived.
    pub(super) fn poll_texts(
        &mut self,
        cx: &mut Context<'_>,
        each: impl FnMut(&[u8]),
    ) -> Poll<Result<(), Lost>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(Lost::Ended));
            }
            Poll::Ready(self.take(buffer.filled(), each))
        })
    }

    /// Takes bytes that were read from the stream.
    pub(super) fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Lost> {
        let Self { skimmer, answers, .. } = self;
        let mut close = None;
        let fed = skimmer.feed(bytes, |frame| match frame.opcode {
            Opcode::Text => each(frame.start),
            Opcode::Ping => answers.extend(masked(Opcode::Pong, frame.start)),
            Opcode::Close => close = Some(closed(frame.start)),
            Opcode::Binary | Opcode::Pong => {}
        });
        fed.map_err(Lost::Broken)?;
        close.map_or(Ok(()), Err)
    }

    /// Writes what is owed, and answers to pings between two frames of it. Ready when all is
    /// written.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outlet: &mut Outlet,
    ) -> Poll<Result<(), Lost>> {
        loop {
            let answering = self.answered < self.answers.len();
            if answering && !outlet.is_within_a_frame() {
                ready!(self.poll_answer(cx))?;
                continue;
            }
            let chunk = outlet.chunk(answering);
            if chunk.is_empty() {
                return self.poll_flush(cx);
            }
            let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, chunk))?;
            outlet.wrote(wrote);
        }
    }

    /// TLS may keep what the kernel does not take.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(Lost::Io)
    }

    /// Writes the answers to pings. Ready when all are written.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if self.answers.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.answered < self.answers.len() {
            let rest = &self.answers[self.answered..];
            self.answered += ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
        }
        ready!(self.poll_flush(cx))?;
        self.answers.clear();
        self.answered = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads and answers pings until the connection is over; texts are handed over.
    pub(super) fn poll_listen(
        &mut self,
        cx: &mut Context<'_>,
        mut each: impl FnMut(&[u8]),
    ) -> Poll<Lost> {
        loop {
            let read = self.poll_texts(cx, &mut each);
            if let Poll::Ready(Err(lost)) = self.poll_answer(cx) {
                return Poll::Ready(lost);
            }
            match read {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => return Poll::Ready(lost),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn closed(payload: &[u8]) -> Lost {
    match payload.split_first_chunk() {
        Some((code, reason)) => Lost::Closed {
            code: u16::from_be_bytes(*code),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        // RFC 6455, 7.1.5: no status received.
        None => Lost::Closed { code: 1005, reason: "no status".to_owned() },
    }
}
