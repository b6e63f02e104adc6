//! `wss`: whom the client trusts, and that credentials may go there.

use std::{net::TcpListener, sync::Arc, thread::JoinHandle};

use conexus_client::{
    Client, Identity,
    rustls::{
        RootCertStore, ServerConfig, ServerConnection, StreamOwned,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_tungstenite::tungstenite::{
    self,
    handshake::server::{ErrorResponse, Request, Response},
    http::HeaderValue,
};

use crate::soon;

// Of nobody: self-signed for localhost, made for this test.
pub(crate) const CERTIFICATE: &[u8] = include_bytes!("../tls/cert.pem");
pub(crate) const KEY: &[u8] = include_bytes!("../tls/key.pem");

/// One connection of a v1 gateway over TLS; what it read first, if it came so far.
fn serve() -> (String, JoinHandle<Option<String>>) {
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
    let gateway = std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        let tls = ServerConnection::new(Arc::new(config)).unwrap();
        let mut socket = tungstenite::accept_hdr(StreamOwned::new(tls, stream), select_v1).ok()?;
        Some(socket.read().ok()?.into_text().ok()?.to_string())
    });
    (url, gateway)
}

#[expect(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the library's signature")]
fn select_v1(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let name = HeaderValue::from_static("ioap.v1");
    response.headers_mut().insert("sec-websocket-protocol", name);
    Ok(response)
}

#[tokio::test]
async fn a_certificate_of_an_own_authority_is_trusted_when_told() {
    let (url, gateway) = serve();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let client = Client::builder(url, Identity::generate()).credentials("secret").tls_roots(roots);
    let client = soon(client.connect()).await.unwrap();
    let register = gateway.join().unwrap().expect("no REGISTER came");
    assert!(register.contains(client.did()));
    assert!(!register.contains("secret"), "v1 has no credentials");
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_before_anything_is_said() {
    let (url, gateway) = serve();
    let client = Client::builder(url, Identity::generate()).credentials("secret");
    let error = soon(client.connect()).await.unwrap_err();
    assert!(crate::in_words(&error).contains("certificate"), "{error:?}");
    assert_eq!(gateway.join().unwrap(), None);
}
