//! A connection that is being set up: the upgrade by hand, then whole texts, one at a time.
//!
//! `register` speaks over it; when that is done, the [`Wire`] comes out.

use std::{collections::VecDeque, future::poll_fn, io};

use conexus_protocol::Subprotocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    frame::{Opcode, masked},
    stream::Stream,
    target::Target,
    wire::{Lost, Wire},
};

/// The example of RFC 6455, 1.3. The key is to keep caches from answering, of which there are none.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The longest head of an answer that is read.
const HEAD_BYTES: usize = 16 * 1024;

/// So much of an error page is shown.
const SHOWN_CHARS: usize = 200;

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("cannot connect{}: {error}", hint(error))]
    Connect { error: io::Error },
    #[error("the server does not answer as HTTP")]
    NotHttp,
    #[error("the server answered {status} to the upgrade: {body}")]
    Status { status: u16, body: String },
    #[error("the server upgraded to something else than a WebSocket")]
    NotAccepted,
    #[error("the server does not speak {0}")]
    Subprotocol(Subprotocol),
    #[error(transparent)]
    Lost(#[from] Lost),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => {
            " (no local port is free: --sources gives more of them)"
        }
        _ => "",
    }
}

/// See the [module](self).
pub(super) struct Opening {
    wire: Wire,
    inbox: VecDeque<Vec<u8>>,
    /// Why nothing comes after what is in the inbox: an ERROR and the close arrive together.
    over: Option<Lost>,
}

impl Opening {
    /// Connects and upgrades.
    pub(super) async fn dial(target: &Target, number: usize) -> Result<Self, UpgradeError> {
        let mut stream =
            target.connect(number).await.map_err(|error| UpgradeError::Connect { error })?;
        stream.write_all(request(target).as_bytes()).await.map_err(Lost::Io)?;
        stream.flush().await.map_err(Lost::Io)?;
        let (head, rest) = head(&mut stream).await?;
        check(&head, &rest, target.protocol)?;
        let (mut wire, mut inbox) = (Wire::new(stream), VecDeque::new());
        let over = wire.take(&rest, |text| inbox.push_back(text.to_vec())).err();
        Ok(Self { wire, inbox, over })
    }

    /// Sends texts, in one write.
    pub(super) async fn send(&mut self, texts: &[&str]) -> Result<(), Lost> {
        let frames = texts.iter().flat_map(|text| masked(Opcode::Text, text.as_bytes()));
        let frames: Vec<u8> = frames.collect();
        Ok(self.wire.write_all(&frames).await?)
    }

    /// The next text.
    pub(super) async fn text(&mut self) -> Result<String, Lost> {
        let Self { wire, inbox, over } = self;
        loop {
            if let Some(text) = inbox.pop_front() {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            if let Some(lost) = over.take() {
                return Err(lost);
            }
            let read = poll_fn(|cx| wire.poll_texts(cx, |text| inbox.push_back(text.to_vec())));
            *over = read.await.err();
            poll_fn(|cx| wire.poll_answer(cx)).await?;
        }
    }

    /// The connection, of which only the start of messages is of interest from now on.
    pub(super) fn into_wire(self) -> Wire {
        let Self { mut wire, .. } = self;
        wire.skim_only();
        wire
    }
}

fn request(target: &Target) -> String {
    let Target { host, path, protocol, .. } = target;
    format!(
        "GET {path} HTTP/1.1\r\n\
         Host: {host}\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
}

/// The head of the answer, and what was read of that which follows.
async fn head(stream: &mut Stream) -> Result<(String, Vec<u8>), UpgradeError> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > HEAD_BYTES {
            return Err(UpgradeError::NotHttp);
        }
        if stream.read_buf(&mut bytes).await.map_err(Lost::Io)? == 0 {
            return Err(if bytes.is_empty() { Lost::Ended.into() } else { UpgradeError::NotHttp });
        }
    }
}

fn check(head: &str, rest: &[u8], offered: Subprotocol) -> Result<(), UpgradeError> {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status =
        status.and_then(|rest| rest.get(..3)?.parse().ok()).ok_or(UpgradeError::NotHttp)?;
    if status != 101 {
        let body: String = String::from_utf8_lossy(rest).chars().take(SHOWN_CHARS).collect();
        return Err(UpgradeError::Status { status, body: body.trim().to_owned() });
    }
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    if header("sec-websocket-accept") != Some(ACCEPT) {
        return Err(UpgradeError::NotAccepted);
    }
    match header("sec-websocket-protocol") {
        Some(chosen) if chosen == offered.as_str() => Ok(()),
        // A server that does not care for subprotocols speaks the oldest.
        None if offered == Subprotocol::V1 => Ok(()),
        _ => Err(UpgradeError::Subprotocol(offered)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, headers: &str) -> String {
        format!("HTTP/1.1 {status}\r\nUpgrade: websocket\r\n{headers}\r\n")
    }

    #[test]
    fn an_answer_is_taken_when_it_is_to_the_request() {
        let accept = format!("sec-websocket-accept: {ACCEPT}\r\n");
        let with = |chosen: &str| answer("101 Switching", &format!("{accept}{chosen}"));
        assert!(
            check(&with("Sec-WebSocket-Protocol: ioap.v1.1\r\n"), b"", Subprotocol::V1_1).is_ok()
        );
        assert!(check(&with(""), b"", Subprotocol::V1).is_ok(), "a server without subprotocols");
        for chosen in ["", "sec-websocket-protocol: ioap.v1\r\n"] {
            let checked = check(&with(chosen), b"", Subprotocol::V1_1);
            assert!(matches!(checked, Err(UpgradeError::Subprotocol(Subprotocol::V1_1))));
        }
        assert!(matches!(
            check(&answer("101 Switching", ""), b"", Subprotocol::V1),
            Err(UpgradeError::NotAccepted)
        ));
    }

    #[test]
    fn a_refusal_is_shown_with_its_body() {
        let error = check(&answer("503 Busy", ""), b" too many \n", Subprotocol::V1).unwrap_err();
        assert_eq!(error.to_string(), "the server answered 503 to the upgrade: too many");
        assert!(matches!(check("SSH-2.0\r\n", b"", Subprotocol::V1), Err(UpgradeError::NotHttp)));
    }
}
