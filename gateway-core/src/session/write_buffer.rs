//! A stream that takes every write at once and knows what the kernel has accepted.
//!
//! The protocol counts a message as delivered when the kernel has accepted its last byte, and
//! hands it on to somebody else when the socket dies earlier. The WebSocket library does not tell
//! where a frame ends in its own buffer, so it writes into this one, where positions are known:
//! [`appended`](WriteBuffer::appended) after a frame was encoded is that frame's end, and the
//! frame is out once [`accepted`](WriteBuffer::accepted) has passed it. Used by
//! [`Wire`](super::wire::Wire) alone.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Above this an emptied buffer is given back rather than kept for the next frame.
const KEEP_CAPACITY: usize = 4 * 1024;

/// A write buffer over a byte stream. It is as large as what its owner puts into it: `Wire` bounds
/// that.
#[derive(Debug)]
pub(crate) struct WriteBuffer<S> {
    stream: S,
    pending: BytesMut,
    accepted: u64,
}

impl<S> WriteBuffer<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, pending: BytesMut::new(), accepted: 0 }
    }

    /// Bytes that were ever put in: the position right behind what was written last.
    pub(crate) fn appended(&self) -> u64 {
        self.accepted + self.pending.len() as u64
    }

    /// Bytes that the kernel has taken.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Bytes that wait for the kernel.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The way in for frames that are encoded by hand.
    pub(crate) fn writer(&mut self) -> impl io::Write {
        (&mut self.pending).writer()
    }

    /// Takes back what lies behind `position` and was not accepted yet.
    pub(crate) fn withdraw_behind(&mut self, position: u64) {
        let keep = position.saturating_sub(self.accepted);
        self.pending.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }
}

impl<S: AsyncWrite + Unpin> WriteBuffer<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(written);
            self.accepted += written as u64;
        }
        if self.pending.capacity() > KEEP_CAPACITY {
            self.pending = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteBuffer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteBuffer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pending.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn accepted_counts_only_what_the_stream_below_took() {
        let (mut far, near) = duplex(4);
        let mut buffer = WriteBuffer::new(near);
        buffer.write_all(b"abcdefgh").await.unwrap();
        assert_eq!((buffer.appended(), buffer.accepted()), (8, 0));

        let stuck = futures_util::poll!(std::pin::pin!(buffer.flush()));
        assert!(stuck.is_pending());
        assert_eq!((buffer.appended(), buffer.accepted()), (8, 4));

        far.read_exact(&mut [0; 4]).await.unwrap();
        buffer.flush().await.unwrap();
        assert_eq!((buffer.accepted(), buffer.pending()), (8, 0));
    }

    #[tokio::test]
    async fn withdrawing_keeps_what_lies_before_the_position() {
        let (mut far, near) = duplex(2);
        let mut buffer = WriteBuffer::new(near);
        buffer.write_all(b"abcd").await.unwrap();
        let end_of_first = buffer.appended();
        buffer.write_all(b"efgh").await.unwrap();
        assert!(futures_util::poll!(std::pin::pin!(buffer.flush())).is_pending());

        buffer.withdraw_behind(end_of_first);
        assert_eq!(buffer.appended(), end_of_first);
        let mut seen = [0; 4];
        let (flushed, read) = tokio::join!(buffer.flush(), far.read_exact(&mut seen));
        flushed.unwrap();
        read.unwrap();
        assert_eq!(&seen, b"abcd");
    }
}
