//! Connections that are refused before there is a request: what they are told, in HTTP, if anything.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::fault;
use crate::limits::Excess;

/// How long somebody is listened to who has been refused, and how much of it.
const PATIENCE: Duration = Duration::from_secs(1);
const REQUEST: u64 = 64 * 1024;

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 32\r\nRetry-After: 5\r\n\r\n{\"error\":\"too many connections\"}";
const ADDRESS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 50\r\nRetry-After: 5\r\n\r\n{\"error\":\"too many connections from this address\"}";

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `limits.connections` are open.
    Full,
    /// Its address has too much of something.
    Address(Excess),
}

impl Refusal {
    /// How it is counted.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Full => "connections_full",
            Self::Address(excess) => excess.reason(),
        }
    }

    /// The key that it is for.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Full => "limits.connections",
            Self::Address(excess) => excess.key(),
        }
    }

    const fn answer(self) -> &'static [u8] {
        match self {
            Self::Full => FULL,
            Self::Address(_) => ADDRESS,
        }
    }

    /// Tells it to whoever connected, and closes.
    pub(super) async fn tell(self, mut stream: TcpStream) {
        let _ = timeout(PATIENCE, async {
            stream.write_all(self.answer()).await?;
            stream.shutdown().await?;
            // The request, left unread, would make the kernel cut the answer off.
            tokio::io::copy(&mut stream.take(REQUEST), &mut tokio::io::sink()).await
        })
        .await;
    }
}

/// The same, where there is a request to be answered.
pub(super) fn too_many() -> Response {
    let mut response =
        fault(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_long_as_they_say() {
        for answer in [FULL, ADDRESS] {
            let (head, body) = std::str::from_utf8(answer).unwrap().split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }
}
