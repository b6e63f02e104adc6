//! Whose word about an address counts: headers of HTTP proxies, PROXY headers of others.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{address_of, agent_over, connect_from, gateway_with};
use crate::support::{
    http,
    process::{Process, folder_with},
    scrape::Scrape,
    soon,
};

const TRUSTED: &str = r#"http.trusted_proxies=["127.0.0.2", "10.0.0.0/8"]"#;
const REFUSED: &str = "conexus_connections_refused_total";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[tokio::test]
async fn a_trusted_proxy_tells_whom_it_speaks_for_and_nobody_else_does() {
    let (_folder, gateway) = gateway_with(&[TRUSTED]).await;
    for (from, line, expected) in [
        ("127.0.0.2", "203.0.113.9", "203.0.113.9:0"),
        ("127.0.0.2", "1.2.3.4, 203.0.113.9:4711, 10.1.2.3", "203.0.113.9:4711"),
        ("127.0.0.2", "[2001:db8::7]:80", "[2001:db8::7]:80"),
        ("127.0.0.3", "203.0.113.9", "127.0.0.3:"),
    ] {
        let stream = connect_from(from, gateway.addr).await;
        let mut agent = agent_over(stream, &[("X-Forwarded-For", line)]).await.unwrap();
        agent.register().await;
        let address = address_of(&gateway, &agent).await;
        assert!(address.starts_with(expected), "{from} {line}: {address}");
    }
    let said = gateway.logged("peer=203.0.113.9:0").await;
    assert!(said.contains("via=127.0.0.2:"), "{said}");

    let stream = connect_from("127.0.0.2", gateway.addr).await;
    let refused = agent_over(stream, &[("X-Forwarded-For", "1.2.3.4, unknown")]).await;
    let text = "X-Forwarded-For has no address where its client's should be";
    assert_eq!(refused.err(), Some((400, json!({ "error": text }))));
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count(REFUSED, &[("reason", "forwarded")]), 1);
    let said = gateway.logged("connection refused").await;
    assert!(said.contains("WARN") && said.contains("proxy=127.0.0.2:"), "{said}");
}

#[tokio::test]
async fn limits_are_those_of_the_real_address_behind_a_proxy() {
    let (_folder, gateway) =
        gateway_with(&[TRUSTED, "http.forwarded=forwarded", "limits.connections_per_address=1"])
            .await;
    let dial = async |client: &str| {
        let stream = connect_from("127.0.0.2", gateway.addr).await;
        agent_over(stream, &[("Forwarded", &format!("for={client};proto=https"))]).await
    };
    let kept = dial("203.0.113.1").await.unwrap();
    let other = dial("\"[2001:db8::1]\"").await.unwrap();
    let text = "too many connections from this address";
    let too_many = (429, json!({ "error": text }));
    assert_eq!(dial("203.0.113.1").await.err(), Some(too_many.clone()));
    assert_eq!(dial("\"[2001:db8::2]:80\"").await.err(), Some(too_many), "of the same /64");
    dial("203.0.113.2").await.unwrap();
    // The proxy's own requests are nobody's.
    for _ in 0..3 {
        let stream = connect_from("127.0.0.2", gateway.addr).await;
        agent_over(stream, &[]).await.unwrap();
    }
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count(REFUSED, &[("reason", "address_full")]), 2);
    drop((kept, other));
    let gone = |scrape: &Scrape| scrape.count("conexus_networks_connected", &[]) == 0;
    Scrape::once(&gateway, "the places to be free", gone).await;
    dial("203.0.113.1").await.unwrap();
}

#[tokio::test]
async fn hooks_see_the_real_address() {
    const POLICY: &str = "[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
        [hook.door]\nuse = \"script:door\"\n[[chain.on_connect]]\nhook = \"door\"\n";
    const DOOR: &str =
        "fn on_connect(event) { if event.ip != \"203.0.113.9\" { deny(\"denied\", event.ip) } }";
    let folder = folder_with(&[("gateway.toml", POLICY), ("scripts/door.rhai", DOOR)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let dial = async |client: &str| {
        let stream = connect_from("127.0.0.1", gateway.addr).await;
        agent_over(stream, &[("X-Forwarded-For", client)]).await.map(drop)
    };
    dial("203.0.113.9").await.unwrap();
    assert_eq!(dial("203.0.113.8").await, Err((403, json!({ "error": "203.0.113.8" }))));
}

/// A connection of a proxy's that begins so.
async fn begun_with(gateway: &Process, from: &str, header: &[u8]) -> tokio::net::TcpStream {
    let mut stream = connect_from(from, gateway.addr).await;
    stream.write_all(header).await.unwrap();
    stream
}

#[tokio::test]
async fn a_proxy_header_of_either_version_says_whom_a_connection_is_from() {
    let (_folder, gateway) = gateway_with(&[TRUSTED, "http.proxy_protocol=true"]).await;
    let v2 = |command: u8, family: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[0x20 | command, family], &length, body].concat()
    };
    let v4_body = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0x1f, 0x40];
    let with_more = [&v4_body[..], &[0x02, 0, 4, b'h', b'o', b's', b't']].concat();
    for (header, expected) in [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 8000\r\n".to_vec(), "203.0.113.9:4660"),
        (b"PROXY TCP6 2001:db8::7 ::1 80 8000\r\n".to_vec(), "[2001:db8::7]:80"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.2:"),
        (v2(1, 0x11, &v4_body), "203.0.113.9:4660"),
        (v2(1, 0x11, &with_more), "203.0.113.9:4660"),
        (v2(0, 0, &[]), "127.0.0.2:"),
    ] {
        let stream = begun_with(&gateway, "127.0.0.2", &header).await;
        // Not a proxy that is trusted: what it says stays unheard.
        let lie = [("X-Forwarded-For", "1.2.3.4")];
        let headers = if expected.starts_with("127") { &[][..] } else { &lie[..] };
        let mut agent = agent_over(stream, headers).await.unwrap();
        agent.register().await;
        let address = address_of(&gateway, &agent).await;
        assert!(address.starts_with(expected), "{expected}: {address}");
    }
    // A proxy behind a proxy: the header of the one that the other speaks for counts.
    let header = b"PROXY TCP4 10.9.9.9 10.0.0.1 4660 8000\r\n";
    let stream = begun_with(&gateway, "127.0.0.2", header).await;
    let mut agent = agent_over(stream, &[("X-Forwarded-For", "203.0.113.7")]).await.unwrap();
    agent.register().await;
    assert_eq!(address_of(&gateway, &agent).await, "203.0.113.7:0");
}

#[tokio::test]
async fn a_proxy_without_a_header_and_a_stranger_with_one_get_nowhere() {
    let (_folder, gateway) = gateway_with(&[TRUSTED, "http.proxy_protocol=true"]).await;
    let answer = async |from: &str, said: &[u8]| {
        let mut stream = begun_with(&gateway, from, said).await;
        let mut answer = Vec::new();
        // What was not read makes the kernel cut the connection off.
        let _ = soon("the end", stream.read_to_end(&mut answer)).await;
        String::from_utf8(answer).unwrap()
    };
    // Its check whether the port is open is nobody's fault.
    drop(connect_from("127.0.0.2", gateway.addr).await);
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(answer("127.0.0.2", request).await, "");
    let header = b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 8000\r\n";
    let refused = answer("127.0.0.3", &[&header[..], request].concat()).await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert!(answer("127.0.0.3", request).await.starts_with("HTTP/1.1 200"));
    assert!(
        answer("127.0.0.2", &[&header[..], request].concat()).await.starts_with("HTTP/1.1 200")
    );
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count(REFUSED, &[("reason", "proxy_header")]), 1);
    let said = gateway.logged("no PROXY header").await;
    assert!(said.contains("proxy=127.0.0.2:"), "{said}");
    // The operator's own listener has none of this.
    assert_eq!(http::get(gateway.admin, "/api/v1/overview", &[]).await.0, 200);
}

#[tokio::test]
async fn the_address_in_a_proxy_header_has_its_own_places() {
    let (_folder, gateway) =
        gateway_with(&[TRUSTED, "http.proxy_protocol=true", "limits.connections_per_address=1"])
            .await;
    let dial = async |client: &str| {
        let header = format!("PROXY TCP4 {client} 10.0.0.1 4660 8000\r\n");
        let stream = begun_with(&gateway, "127.0.0.2", header.as_bytes()).await;
        agent_over(stream, &[]).await
    };
    let _kept = dial("203.0.113.1").await.unwrap();
    assert_eq!(dial("203.0.113.1").await.err().unwrap().0, 429);
    dial("203.0.113.2").await.unwrap();
}

#[tokio::test]
async fn a_flood_through_a_tcp_proxy_takes_no_places_from_others() {
    let (_folder, gateway) = gateway_with(&[
        TRUSTED,
        "http.proxy_protocol=true",
        "limits.connections=20",
        "limits.connections_per_address=1",
    ])
    .await;
    let header = b"PROXY TCP4 203.0.113.1 10.0.0.1 4660 8000\r\n";
    let _kept = agent_over(begun_with(&gateway, "127.0.0.2", header).await, &[]).await.unwrap();
    // They stay as long as they are let.
    let mut flood = Vec::new();
    for _ in 0..100 {
        let mut stream = begun_with(&gateway, "127.0.0.2", header).await;
        // Some are told, the others dropped, with their request unread.
        let _ = soon("to be turned away", stream.read(&mut [0; 8])).await;
        flood.push(stream);
    }
    let other = b"PROXY TCP4 203.0.113.2 10.0.0.1 4660 8000\r\n";
    let mut other = agent_over(begun_with(&gateway, "127.0.0.2", other).await, &[]).await.unwrap();
    other.register().await;
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count(REFUSED, &[("reason", "address_full")]), 100);
    assert_eq!(scrape.count(REFUSED, &[("reason", "connections_full")]), 0);
    assert_eq!(scrape.count("conexus_connections", &[]), 2);
}

/// The status of a request for `/ws` that is refused, on a connection that stays.
async fn refused_over(stream: &mut tokio::net::TcpStream, headers: &str) -> u16 {
    let request = format!("GET /ws HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Bodies are one object of JSON.
    while !answer.ends_with(b"}") {
        let read = soon("the answer", stream.read_buf(&mut answer)).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()[9..12].parse().unwrap()
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_proxys_connection_serves_many_and_a_refused_request_keeps_no_place() {
    let (_folder, gateway) = gateway_with(&[
        TRUSTED,
        "limits.connections_per_address=1",
        "protocol.require_subprotocol=true",
    ])
    .await;
    let over = async |stream, client| agent_over(stream, &[("X-Forwarded-For", client)]).await;
    let connect = || connect_from("127.0.0.2", gateway.addr);
    let _kept = over(connect().await, "203.0.113.1").await.unwrap();

    let mut stream = connect().await;
    let of = |client: &str, more: &str| format!("X-Forwarded-For: {client}\r\n{more}");
    let v1 = format!("{UPGRADE}Sec-WebSocket-Protocol: ioap.v1.1\r\n");
    assert_eq!(refused_over(&mut stream, &of("203.0.113.1", &v1)).await, 429);
    // Each would take the only place, were it kept.
    for _ in 0..2 {
        assert_eq!(refused_over(&mut stream, &of("203.0.113.2", "")).await, 426);
        assert_eq!(refused_over(&mut stream, &of("203.0.113.2", UPGRADE)).await, 400);
    }
    let mut agent = over(stream, "203.0.113.2").await.unwrap();
    agent.register().await;
    assert_eq!(address_of(&gateway, &agent).await, "203.0.113.2:0");
    assert_eq!(over(connect().await, "203.0.113.2").await.err().unwrap().0, 429);
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count("conexus_networks_connected", &[]), 2);
    let said = gateway.logged("connection refused").await;
    assert!(said.contains("INFO") && said.contains("limits.connections_per_address"), "{said}");
}

#[tokio::test]
async fn a_proxy_that_another_speaks_for_has_no_limits_by_address() {
    let (_folder, gateway) = gateway_with(&[TRUSTED, "limits.connections_per_address=1"]).await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        let stream = connect_from("127.0.0.2", gateway.addr).await;
        agents.push(agent_over(stream, &[("X-Forwarded-For", "10.1.2.3")]).await.unwrap());
    }
}
