//! Whoever is slow on purpose, at each step on the way to a session: freed by that step's deadline.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};
use tokio_tungstenite::MaybeTlsStream;

use super::{agent_over, gateway_with};
use crate::support::{
    agent::Agent,
    frames::{FIN, TEXT, frame},
    process::Process,
    scrape::Scrape,
    soon,
};

/// How many of each kind.
const CROWD: usize = 40;

/// Sends a byte every now and then until the gateway has had enough.
async fn drip(stream: TcpStream, bytes: Vec<u8>) {
    let (mut reading, mut writing) = stream.into_split();
    let dripping = async {
        for byte in bytes.iter().cycle() {
            if writing.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(40)).await;
        }
    };
    let mut heard = Vec::new();
    let ended = async {
        let _ = reading.read_to_end(&mut heard).await;
    };
    soon("a slow connection to be ended", async {
        tokio::select! { () = dripping => {}, () = ended => {} }
    })
    .await;
}

/// Waits for all of a crowd to be thrown out, while somebody else works.
async fn outlive(gateway: &Process, mut crowd: JoinSet<()>, (a, b): &mut (Agent, Agent)) {
    soon("the crowd to be there", async {
        let all = |scrape: &Scrape| scrape.count("conexus_connections", &[]) == CROWD as u64 + 2;
        Scrape::once(gateway, "all to be connected", all).await;
    })
    .await;
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
        let (_, text) = a.send_offer(&b.did(), "x").await;
        assert_eq!(b.text().await, text);
    }
    let left = |scrape: &Scrape| scrape.count("conexus_connections", &[]) == 2;
    Scrape::once(gateway, "their places to be free", left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_handshakes_are_ended_however_they_drip() {
    let head = format!("GET /ws HTTP/1.1\r\nHost: x\r\nX-Padding: {}", "x".repeat(4000));
    let (_folder, gateway) = gateway_with(&[
        "limits.handshake_timeout=3s",
        "http.proxy_protocol=true",
        r#"http.trusted_proxies=["127.0.0.2"]"#,
    ])
    .await;
    let mut pair = (gateway.agent().await, gateway.agent().await);
    let long_header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xff".repeat(100);
    for (name, from, bytes) in [
        ("nothing", "127.0.0.1", Vec::new()),
        ("a request's head", "127.0.0.1", head.into_bytes()),
        ("no PROXY header", "127.0.0.2", Vec::new()),
        ("a PROXY header of version 1", "127.0.0.2", b"PROXY UNKNOWN".repeat(100)),
        ("a PROXY header of version 2", "127.0.0.2", long_header),
    ] {
        println!("{name}");
        let before = Scrape::of(&gateway).await;
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            let stream = super::connect_from(from, gateway.addr).await;
            let bytes = bytes.clone();
            crowd.spawn(async move {
                if bytes.is_empty() {
                    let mut stream = stream;
                    let _ = soon("the end", stream.read_to_end(&mut Vec::new())).await;
                } else {
                    drip(stream, bytes).await;
                }
            });
        }
        outlive(&gateway, crowd, &mut pair).await;
        let after = Scrape::of(&gateway).await;
        let refused = |scrape: &Scrape, reason| {
            scrape.count("conexus_connections_refused_total", &[("reason", reason)])
        };
        assert_eq!(refused(&after, "timeout") - refused(&before, "timeout"), CROWD as u64);
        assert_eq!(refused(&after, "proxy_header"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_registrations_are_ended_however_they_drip() {
    let (_folder, gateway) = gateway_with(&["limits.register_timeout=3s"]).await;
    let mut pair = (gateway.agent().await, gateway.agent().await);
    // The head of a frame as long as is allowed, and then a byte at a time; and a text in fragments
    // of a byte each.
    let one_frame = frame(FIN | TEXT, &[b' '; 60_000]);
    let mut fragments = frame(TEXT, b"{");
    for _ in 0..2000 {
        fragments.extend(frame(0, b" "));
    }
    for bytes in [Vec::new(), one_frame, fragments] {
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            let stream = TcpStream::connect(gateway.addr).await.unwrap();
            let agent = agent_over(stream, &[]).await.unwrap();
            let bytes = bytes.clone();
            crowd.spawn(async move {
                let mut agent = agent;
                if bytes.is_empty() {
                    assert_eq!(agent.close().await.0, 4002);
                } else {
                    let MaybeTlsStream::Plain(stream) = agent.socket.into_inner() else {
                        panic!("it is over TLS")
                    };
                    drip(stream, bytes).await;
                }
            });
        }
        outlive(&gateway, crowd, &mut pair).await;
    }
    let scrape = Scrape::of(&gateway).await;
    let timed_out = scrape.count("conexus_registrations_refused_total", &[("reason", "timeout")]);
    assert_eq!(timed_out, 3 * CROWD as u64);
}
