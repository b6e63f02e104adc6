//! The stream of events of a gateway's admin listener, read by hand.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
};

use super::soon;

/// One who listens.
pub(crate) struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    /// Listens; nothing that happens from now on is missed.
    pub(crate) async fn open(admin: SocketAddr, query: &str) -> Self {
        Self::open_saying(admin, query, "").await
    }

    /// The same with more lines in the request's head.
    pub(crate) async fn open_saying(admin: SocketAddr, query: &str, more: &str) -> Self {
        let opened = soon("the stream of events", async {
            let mut stream = TcpStream::connect(admin).await.unwrap();
            // In HTTP/1.0 a body has no chunks.
            let request = format!("GET /events?{query} HTTP/1.0\r\nHost: localhost\r\n{more}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut lines = BufReader::new(stream).lines();
            let mut head = Vec::new();
            loop {
                let line = lines.next_line().await.unwrap().expect("a head");
                if line.starts_with(": events") {
                    break;
                }
                head.push(line);
            }
            assert!(head[0].contains(" 200 "), "{head:?}");
            assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
            Self(lines)
        });
        opened.await
    }

    /// The next event; none once the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        let mut topic = None;
        loop {
            let line = soon("an event", self.0.next_line()).await.unwrap()?;
            if let Some(name) = line.strip_prefix("event: ") {
                topic = Some(name.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((topic.expect("a name"), serde_json::from_str(data).unwrap()));
            }
        }
    }

    /// The next event, which must be of this topic.
    pub(crate) async fn next_of(&mut self, topic: &str) -> Value {
        let (name, event) = self.next().await.expect("an event");
        assert_eq!(name, topic, "{event}");
        event
    }
}
