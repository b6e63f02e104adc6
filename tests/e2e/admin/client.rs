//! Requests to an admin listener, written by hand, so that a test says every header.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::soon;

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    admin: SocketAddr,
    token: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl<'a> Client<'a> {
    pub(crate) fn new(admin: SocketAddr) -> Self {
        Self { admin, token: None, headers: &[] }
    }

    pub(crate) fn with(self, token: &'a str) -> Self {
        Self { token: Some(token), ..self }
    }

    /// With these headers as well; a `Host` among them takes the place of the usual one.
    pub(crate) fn saying(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { headers, ..self }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let mut say = |name: &str, value: &str| request += &format!("{name}: {value}\r\n");
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            say("Host", &self.admin.to_string());
        }
        for (name, value) in self.headers {
            say(name, value);
        }
        if let Some(token) = self.token {
            say("Authorization", &format!("Bearer {token}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            say("Content-Type", "application/json");
        }
        say("Content-Length", &body.len().to_string());
        request += &format!("\r\n{body}");
        soon("an answer over HTTP", exchange(self.admin, &request)).await
    }
}

async fn exchange(admin: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Answer { status, head: head.to_ascii_lowercase(), body }
}

impl Answer {
    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// What the fault says of an answer with this status.
    #[track_caller]
    pub(crate) fn fault(self, status: u16) -> String {
        self.is(status)["error"].as_str().expect("an error").to_owned()
    }
}
