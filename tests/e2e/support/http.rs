//! HTTP by hand: one request, one connection.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::soon;

/// Status and JSON body of a GET.
pub(crate) async fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let (status, _, body) = get_raw(addr, path, headers).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// Status, head and body of a GET.
pub(crate) async fn get_raw(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String, String) {
    ask(addr, path, &[&[("Connection", "close")], headers].concat()).await
}

/// Status and JSON body of a request for a WebSocket that is refused.
pub(crate) async fn refused_upgrade(addr: SocketAddr, path: &str) -> (u16, Value) {
    let headers = [
        ("Connection", "Upgrade, close"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "ioap.v1"),
    ];
    let (status, _, body) = ask(addr, path, &headers).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// Status, head and JSON body of a POST.
pub(crate) async fn post(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, Value) {
    let length = body.len().to_string();
    let own = [("Connection", "close"), ("Content-Length", length.as_str())];
    let (status, head, said) = request(addr, "POST", path, &[&own, headers].concat(), body).await;
    (status, head, serde_json::from_str(&said).unwrap_or(Value::Null))
}

async fn ask(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    request(addr, "GET", path, headers, "").await
}

async fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, String) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    let answer = soon("an answer over HTTP", async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head.to_owned(), body.to_owned())
}
