//! Certificates made for a test, and gateways that speak TLS.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use conexus_client::{Builder, Client};
use conexus_gateway::config::Settings;
use conexus_protocol::{Identity, Subprotocol};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd, string::Ia5String,
};
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::MaybeTlsStream;

use super::{agent::Agent, gateway::TestGateway, process::write, soon};

/// Who issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    /// A gateway's, for localhost and 127.0.0.1.
    pub(crate) fn server(&self, name: &str) -> Pair {
        self.issue(Self::params(name))
    }

    /// A gateway's, for another host.
    pub(crate) fn elsewhere(&self) -> Pair {
        self.issue(CertificateParams::new(vec!["gateway.example".into()]).unwrap())
    }

    /// A gateway's whose time is over.
    pub(crate) fn expired(&self) -> Pair {
        let mut params = Self::params("expired");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue(params)
    }

    /// An agent's.
    pub(crate) fn client(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(vec![format!("{name}.agents.example")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        let uri = Ia5String::try_from(format!("spiffe://example/{name}")).unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// What a client of this authority's gateways dials with.
    pub(crate) fn config(
        &self,
        client: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![pair.der()], key).unwrap()
            }
        })
    }
}

/// Both versions.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A folder with a gateway's files, and the authority that issued them.
pub(crate) struct Pki {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let pki = Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new("test") };
        pki.install(&pki.authority.server("first"));
        write(&pki.path("ca.pem"), &pki.authority.pem);
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a gateway's files in place of those that are there.
    pub(crate) fn install(&self, pair: &Pair) {
        install(self.folder.path(), pair);
    }

    /// What a gateway needs to use them.
    pub(crate) fn settings(&self, settings: &mut Settings) {
        settings.tls.certificate = Some(self.path("cert.pem"));
        settings.tls.key = Some(self.path("key.pem"));
    }

    /// A gateway that uses them, with settings changed as the test needs.
    pub(crate) async fn gateway(&self, change: impl FnOnce(&mut Settings)) -> TestGateway {
        TestGateway::start_with(|settings| {
            self.settings(settings);
            change(settings);
        })
        .await
    }

    /// An SDK client that trusts the authority.
    pub(crate) fn sdk(&self, url: &str, identity: Identity) -> Builder {
        Client::builder(url, identity).root_certificate_pem(self.authority.pem.as_bytes())
    }

    /// Shakes hands with whoever listens there.
    pub(crate) async fn shake(
        &self,
        addr: std::net::SocketAddr,
        client: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        shake(addr, self.authority.config(client, versions), TcpSocket::new_v4().unwrap()).await
    }

    /// A registered agent over TLS.
    pub(crate) async fn agent(&self, gateway: &TestGateway, identity: Identity) -> Agent {
        self.agent_over(gateway, identity, TcpSocket::new_v4().unwrap()).await
    }

    /// As [`agent`](Self::agent), over a socket whose options the test has set.
    pub(crate) async fn agent_over(
        &self,
        gateway: &TestGateway,
        identity: Identity,
        socket: TcpSocket,
    ) -> Agent {
        let config = self.authority.config(None, VERSIONS);
        let stream = shake(gateway.addr, config, socket).await.unwrap();
        let url = format!("wss://localhost:{}/ws", gateway.addr.port());
        let stream = MaybeTlsStream::Rustls(stream);
        let mut agent = Agent::connect_on(stream, url, Subprotocol::V1_1, identity).await;
        agent.register().await;
        agent
    }
}

pub(crate) fn install(folder: &Path, pair: &Pair) {
    write(&folder.join("key.pem"), &pair.key);
    write(&folder.join("cert.pem"), &pair.certificate);
}

pub(crate) async fn shake(
    addr: std::net::SocketAddr,
    config: Arc<ClientConfig>,
    socket: TcpSocket,
) -> std::io::Result<TlsStream<TcpStream>> {
    soon("a handshake", async {
        let stream = socket.connect(addr).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(config).connect(name, stream).await
    })
    .await
}

/// The certificate that the other end has shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

pub(crate) fn version(stream: &TlsStream<TcpStream>) -> ProtocolVersion {
    stream.get_ref().1.protocol_version().unwrap()
}
