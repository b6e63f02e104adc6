//! Finding agents: what is asked over HTTP, and what becomes of each kind of answer.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread::JoinHandle,
};

use conexus_client::{
    AgentQuery, Client, FindError, Identity,
    rustls::{
        RootCertStore, ServerConfig, ServerConnection, StreamOwned,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use futures_util::{StreamExt as _, pin_mut};

use crate::{
    soon,
    tls::{CERTIFICATE, KEY},
};

const PAGE: &str = r#"{"agents":[{"did":"did:key:a","connected_at":"t","last_activity":"u",
    "subprotocol":"ioap.v1.1","metadata":{"name":"one"},"later":1}],"count":3,"next_cursor":"x"}"#;
const LAST: &str =
    r#"{"agents":[{"did":"did:key:b","connected_at":"t","last_activity":"u"}],"count":3}"#;

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Answers one request after the other; what was asked.
fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let mut stream = listener.accept().unwrap().0;
            asked.push(head(&mut stream));
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (url, serving)
}

fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn client(url: &str) -> Client {
    Client::builder(url, Identity::generate()).build().unwrap()
}

#[tokio::test]
async fn a_page_is_asked_for_and_read_without_a_connection() {
    let (url, serving) = serve(vec![answer("200 OK", PAGE)]);
    let query = AgentQuery {
        capability: Some("chat".into()),
        token: Some("s3cret".into()),
        ..AgentQuery::default()
    };
    let page = soon(client(&url).find(&query)).await.unwrap();
    assert_eq!((page.count, page.next.as_deref()), (3, Some("x")));
    assert_eq!(page.agents[0].did, "did:key:a");
    assert_eq!(page.agents[0].metadata.name.as_deref(), Some("one"));
    let asked = &serving.join().unwrap()[0];
    assert!(asked.starts_with("GET /agents?capability=chat HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer s3cret\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: {}\r\n", &url[5..url.len() - 3])), "{asked}");
}

#[tokio::test]
async fn pages_are_followed_to_the_last_one() {
    let (url, serving) = serve(vec![answer("200 OK", PAGE), answer("200 OK", LAST)]);
    let found = client(&url).find_all(AgentQuery { limit: Some(1), ..AgentQuery::default() });
    pin_mut!(found);
    let mut dids = Vec::new();
    while let Some(agent) = soon(found.next()).await {
        dids.push(agent.unwrap().did);
    }
    assert_eq!(dids, ["did:key:a", "did:key:b"]);
    let asked = serving.join().unwrap();
    assert!(asked[1].starts_with("GET /agents?limit=1&cursor=x "), "{}", asked[1]);

    let (url, _serving) = serve(vec![answer("200 OK", PAGE), answer("200 OK", PAGE)]);
    let found = client(&url).find_all(AgentQuery::default());
    pin_mut!(found);
    assert!(soon(found.next()).await.unwrap().is_ok());
    let error = soon(found.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, FindError::Endless), "a page that repeats: {error:?}");
    assert!(soon(found.next()).await.is_none());
}

#[tokio::test]
async fn what_is_no_list_is_a_clear_error() {
    let refusal = answer("401 Unauthorized", r#"{"error":"a bearer token is needed"}"#);
    let (url, _serving) = serve(vec![
        refusal,
        answer("200 OK", "<html>"),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".into(),
        "nonsense\r\n\r\n".into(),
    ]);
    let client = client(&url);
    let ask = async || soon(client.find(&AgentQuery::default())).await.unwrap_err();
    let FindError::Refused { status, said } = ask().await else { panic!("not refused") };
    assert_eq!((status, &*said), (401, "a bearer token is needed"));
    assert!(matches!(ask().await, FindError::Answer(_)));
    assert!(matches!(ask().await, FindError::Body(_) | FindError::Http(_)));
    assert!(matches!(ask().await, FindError::Http(_)));
}

#[tokio::test]
async fn a_token_never_crosses_a_network_in_the_clear() {
    let query = AgentQuery { token: Some("s3cret".into()), ..AgentQuery::default() };
    let error = soon(client("ws://gateway.example/ws").find(&query)).await.unwrap_err();
    assert!(matches!(error, FindError::TokenInTheClear), "{error:?}");
}

#[tokio::test]
async fn over_tls_it_trusts_whom_the_client_trusts() {
    let serve = || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("wss://localhost:{}/ws", listener.local_addr().unwrap().port());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
                PrivateKeyDer::from_pem_slice(KEY).unwrap(),
            )
            .unwrap();
        let serving = std::thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            let tls = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(tls, stream);
            let mut byte = [0];
            // An unknown certificate ends it here.
            stream.read_exact(&mut byte).ok()?;
            let asked = head(&mut stream);
            stream.write_all(answer("200 OK", LAST).as_bytes()).ok()?;
            stream.flush().ok()?;
            Some(asked)
        });
        (url, serving)
    };
    let (url, serving) = serve();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let client = Client::builder(url, Identity::generate()).tls_roots(roots).build().unwrap();
    let query = AgentQuery { token: Some("s3cret".into()), ..AgentQuery::default() };
    let page = soon(client.find(&query)).await.unwrap();
    assert_eq!(page.agents[0].did, "did:key:b");
    assert!(serving.join().unwrap().unwrap().starts_with("ET /agents "));

    let (url, serving) = serve();
    let error = soon(self::client(&url).find(&query)).await.unwrap_err();
    assert!(matches!(error, FindError::Tls(_)), "{error:?}");
    assert_eq!(serving.join().unwrap(), None, "nothing was said");
}
