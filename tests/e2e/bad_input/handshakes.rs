//! What never becomes a WebSocket: garbage, half requests, and upgrades that lack something.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    bystanders::Bystanders,
    gateway::{Background, TestGateway},
    http, soon,
};

async fn connect(addr: SocketAddr) -> TcpStream {
    soon("a connection", TcpStream::connect(addr)).await.unwrap()
}

/// All that the gateway says until it ends the connection, in whatever way.
async fn last_words(stream: &mut TcpStream) -> String {
    soon("the connection to be ended", async {
        let (mut said, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            said.extend(&piece[..length]);
        }
        String::from_utf8_lossy(&said).into_owned()
    })
    .await
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

#[tokio::test]
async fn what_is_not_http_is_answered_400_and_ended() {
    let gateway = TestGateway::start().await;
    let mut bystanders = Bystanders::register(&gateway).await;
    bystanders.exchange().await;
    for (garbage, expected) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], Some(400)),
        (b"\x00\x00\x00\x00\r\n\r\n", Some(400)),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Some(400)),
        (b"GET /ws\r\n\r\n", Some(400)),
        (b"GET /ws HTTP/9.9\r\n\r\n", Some(400)),
        (b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n", Some(400)),
        (b"GET /ws HTTP/1.1\r\n\xff\xfe: 1\r\n\r\n", Some(400)),
        (b"{\"type\":\"REGISTER\"}\r\n\r\n", Some(400)),
        // Prior knowledge of HTTP/2, which has no answer in HTTP/1.1.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
        (b"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", Some(400)),
    ] {
        let name = String::from_utf8_lossy(garbage);
        let mut stream = connect(gateway.addr).await;
        stream.write_all(garbage).await.unwrap();
        let answer = last_words(&mut stream).await;
        assert_eq!(status(&answer), expected, "{name:?}: {answer}");
        bystanders.exchange().await;
    }
}

#[tokio::test]
async fn a_head_beyond_all_measure_is_refused_before_it_ends() {
    let gateway = TestGateway::start().await;
    let mut bystanders = Bystanders::register(&gateway).await;
    bystanders.exchange().await;
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (name, head, expected) in [
        ("a long header", format!("GET /ws HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024)), 431),
        ("many headers", format!("GET /ws HTTP/1.1\r\n{many}\r\n"), 431),
        ("a long path", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024)), 431),
    ] {
        let mut stream = connect(gateway.addr).await;
        // It is ended once it has said enough, so the rest may find nobody.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = last_words(&mut stream).await;
        assert_eq!(status(&answer), Some(expected), "{name}: {answer}");
        bystanders.exchange().await;
    }
}

/// A request to upgrade as a client would make it, line by line.
fn upgrade() -> Vec<String> {
    [
        "GET /ws HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: ioap.v1",
    ]
    .map(str::to_owned)
    .into()
}

fn request(lines: &[String]) -> String {
    lines.join("\r\n") + "\r\n\r\n"
}

#[tokio::test]
async fn an_upgrade_that_lacks_something_is_told_its_status() {
    let gateway = TestGateway::start().await;
    let mut bystanders = Bystanders::register(&gateway).await;
    bystanders.exchange().await;
    // The line to replace, by what, and the answer.
    for (line, replacement, expected) in [
        (0, "POST /ws HTTP/1.1", 405),
        (0, "DELETE /ws HTTP/1.1", 405),
        (0, "GET /elsewhere HTTP/1.1", 404),
        (0, "GET /ws/ HTTP/1.1", 404),
        (0, "GET //ws HTTP/1.1", 404),
        (0, "GET /ws HTTP/1.0", 426),
        (2, "Connection: close", 426),
        (2, "X: 1", 426),
        (3, "Upgrade: h2c", 426),
        (3, "X: 1", 426),
        (4, "Sec-WebSocket-Version: 12", 426),
        (4, "Sec-WebSocket-Version: 0", 426),
        (4, "X: 1", 426),
        (5, "X: 1", 426),
        (6, "Sec-WebSocket-Protocol: chat", 400),
        (6, "X: 1", 400),
    ] {
        let mut lines = upgrade();
        lines[line] = replacement.to_owned();
        lines.push("Connection: close".to_owned());
        let mut stream = connect(gateway.addr).await;
        stream.write_all(request(&lines).as_bytes()).await.unwrap();
        let answer = last_words(&mut stream).await;
        assert_eq!(status(&answer), Some(expected), "{replacement}: {answer}");
        if expected == 426 {
            let head = answer.to_lowercase();
            assert!(head.contains("upgrade: websocket"), "{replacement}: {answer}");
            assert!(head.contains("sec-websocket-version: 13"), "{replacement}: {answer}");
        }
        bystanders.exchange().await;
    }
}

#[tokio::test]
async fn an_upgrade_that_lacks_nothing_is_accepted_to_the_letter() {
    let gateway = TestGateway::start().await;
    for (line, replacement) in [
        (0, "GET /ws?some=query HTTP/1.1"),
        (2, "connection: keep-alive, UPGRADE"),
        (3, "UPGRADE: WebSocket"),
        (6, "Sec-WebSocket-Protocol: chat , ioap.v1"),
        (6, "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: ioap.v1"),
        (6, "Sec-WebSocket-Protocol: ioap.v1\r\nSec-WebSocket-Extensions: permessage-deflate"),
    ] {
        let mut lines = upgrade();
        lines[line] = replacement.to_owned();
        let mut stream = connect(gateway.addr).await;
        stream.write_all(request(&lines).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = last_words(&mut stream).await;
        assert_eq!(status(&answer), Some(101), "{replacement}: {answer}");
        let head = answer.to_lowercase();
        // The answer to that key is the example of RFC 6455, 1.3.
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        assert!(head.contains("sec-websocket-protocol: ioap.v1\r\n"), "{answer}");
        assert!(!head.contains("extensions"), "compression is never agreed on: {answer}");
    }
}

#[tokio::test]
async fn a_connection_that_gets_nowhere_is_freed_after_the_handshake_timeout() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    let mut bystanders = Bystanders::register(&gateway).await;
    bystanders.exchange().await;
    let head = request(&upgrade());
    for (name, said) in [
        ("nothing at all", ""),
        ("half a line", "GET /w"),
        ("half a head", &head[..head.len() / 2]),
        ("all but the last byte", &head[..head.len() - 1]),
        ("a request, then nothing", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a request, then half of one", "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea"),
        ("half a body", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"),
    ] {
        println!("{name}");
        let mut stream = connect(gateway.addr).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        last_words(&mut stream).await;
        bystanders.exchange().await;
    }
}

#[tokio::test]
async fn a_head_that_trickles_in_does_not_outlive_the_handshake_timeout() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    let mut bystanders = Bystanders::register(&gateway).await;
    let (mut reading, mut writing) = connect(gateway.addr).await.into_split();
    let _trickle = Background::spawn(async move {
        let head = request(&upgrade());
        // A byte every now and then, faster than the time-out and slower than the head is long.
        for byte in head.as_bytes() {
            if writing.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = soon("the connection to be ended", reading.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 101"));
    bystanders.exchange().await;
}

#[tokio::test]
async fn a_request_with_everything_in_one_write_is_served_to_its_end() {
    let gateway = TestGateway::start().await;
    // Two requests back to back, and a body that nobody asked for.
    let mut stream = connect(gateway.addr).await;
    let first = "GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let second = "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{first}{second}").as_bytes()).await.unwrap();
    let answers = last_words(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(http::get(gateway.addr, "/ready", &[]).await.0, 200);
}
