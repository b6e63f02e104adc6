//! Which web pages may connect, and which may read.

use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{agent_over, connect_from, gateway_with};
use crate::support::{http, scrape::Scrape, soon};

const ALLOWED: &str =
    r#"http.allowed_origins=["https://app.example.com", "https://*.pages.example"]"#;

#[tokio::test]
async fn pages_of_other_origins_are_refused_and_programs_are_not() {
    let (_folder, gateway) = gateway_with(&[ALLOWED]).await;
    let dial = async |headers: &[(&'static str, &str)]| {
        agent_over(connect_from("127.0.0.1", gateway.addr).await, headers).await
    };
    for origin in
        ["https://app.example.com", "https://APP.example.com:443", "https://a.pages.example"]
    {
        dial(&[("Origin", origin)]).await.unwrap().register().await;
    }
    dial(&[]).await.unwrap().register().await;
    let refused =
        ["https://evil.example", "http://app.example.com", "https://pages.example", "null", "x"];
    for origin in refused {
        let refusal = (403, json!({ "error": "pages of this origin may not connect" }));
        assert_eq!(dial(&[("Origin", origin)]).await.err(), Some(refusal), "{origin}");
    }
    let two = [("Origin", "https://app.example.com"), ("Origin", "https://evil.example")];
    assert_eq!(dial(&two).await.err().unwrap().0, 403);
    let scrape = Scrape::of(&gateway).await;
    let counted = scrape.count("conexus_connections_refused_total", &[("reason", "origin")]);
    assert_eq!(counted, refused.len() as u64 + 1);
}

#[tokio::test]
async fn allowed_pages_may_read_the_other_routes_and_others_may_not() {
    let (_folder, gateway) = gateway_with(&[ALLOWED]).await;
    for path in ["/health", "/agents", "/ready"] {
        let get = async |headers: &[(&str, &str)]| {
            let (status, head, _) = http::get_raw(gateway.addr, path, headers).await;
            assert_eq!(status, 200);
            head.to_lowercase()
        };
        let head = get(&[("Origin", "https://app.example.com")]).await;
        assert!(head.contains("access-control-allow-origin: https://app.example.com"), "{head}");
        assert!(head.contains("access-control-expose-headers: retry-after"), "{head}");
        assert!(head.contains("vary: ") && head.contains("origin"), "{head}");
        for headers in [&[("Origin", "https://evil.example")][..], &[]] {
            let head = get(headers).await;
            assert!(!head.contains("access-control-allow-origin"), "{head}");
            assert!(head.contains("vary: ") && head.contains("origin"), "{head}");
        }
    }
    let answer = preflight(gateway.addr, "/agents", "GET", "authorization").await;
    for header in [
        "access-control-allow-origin: https://app.example.com",
        "access-control-allow-methods: get",
        "access-control-allow-headers: authorization",
    ] {
        assert!(answer.contains(header), "{answer}");
    }
    let answer =
        preflight(gateway.addr, "/ice/outcome", "POST", "authorization,content-type").await;
    for header in
        ["access-control-allow-methods: get,post", "allow-headers: authorization,content-type"]
    {
        assert!(answer.contains(header), "{answer}");
    }
}

/// What a browser asks before it lets a page ask, and is answered.
async fn preflight(addr: SocketAddr, path: &str, method: &str, headers: &str) -> String {
    let preflight = format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Origin: https://app.example.com\r\nAccess-Control-Request-Method: {method}\r\n\
        Access-Control-Request-Headers: {headers}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(preflight.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    let answer = answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    answer
}

#[tokio::test]
async fn without_a_list_no_page_is_refused_and_no_header_is_added() {
    let (_folder, gateway) = gateway_with(&[]).await;
    let stream = connect_from("127.0.0.1", gateway.addr).await;
    agent_over(stream, &[("Origin", "https://anywhere.example")]).await.unwrap().register().await;
    let page = [("Origin", "https://anywhere.example")];
    let (_, head, _) = http::get_raw(gateway.addr, "/health", &page).await;
    assert!(!head.to_lowercase().contains("access-control"), "{head}");
}
