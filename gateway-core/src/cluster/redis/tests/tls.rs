//! TLS, and whom each side takes for whom.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::*;

/// Files of an authority, and of two certificates of it.
struct Pki {
    folder: TempDir,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        // Of their own, or one would count as the other.
        let number = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, number);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        fs::write(folder.path().join("ca.pem"), ca).unwrap();
        for (name, host) in [("server", "127.0.0.1"), ("named", "redis.example"), ("client", "x")] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap().pem();
            fs::write(folder.path().join(format!("{name}.pem")), certificate).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, name: &str, client_ca: Option<&Path>) -> RedisServer {
        let [certificate, key] = ["pem", "key"].map(|end| self.path(&format!("{name}.{end}")));
        let tls = Tls { certificate, key, client_ca: client_ca.map(Path::to_owned) };
        RedisServer::with_tls(&[], &tls)
    }

    fn trusting(&self) -> RedisSettings {
        RedisSettings { ca: Some(self.path("ca.pem")), ..settings() }
    }
}

#[tokio::test]
async fn a_server_is_who_an_authority_says() {
    let pki = Pki::new();
    let server = pki.server("server", None);
    let node = connect(&server.url(), &pki.trusting(), A).await.unwrap();
    node.renew().await.unwrap();
    for redis in [Pki::new().trusting(), settings()] {
        let why = refused(&server.url(), &redis).await;
        assert!(why.contains("TLS") && why.contains("UnknownIssuer"), "{why}");
    }
    let plain = server.url().replace("rediss", "redis");
    refused(&plain, &settings()).await;
    let plain = RedisServer::start();
    refused(&plain.url().replace("redis", "rediss"), &pki.trusting()).await;
}

#[tokio::test]
async fn a_certificate_may_be_for_another_name() {
    let pki = Pki::new();
    let server = pki.server("named", None);
    let why = refused(&server.url(), &pki.trusting()).await;
    assert!(why.contains("not valid for name"), "{why}");
    let redis = RedisSettings { server_name: Some("redis.example".to_owned()), ..pki.trusting() };
    connect(&server.url(), &redis, A).await.unwrap().renew().await.unwrap();
    let redis = RedisSettings { server_name: Some("a b".to_owned()), ..pki.trusting() };
    let engine = RedisBackplane::new(&server.url(), &Settings::default().cluster, &redis);
    assert!(engine.unwrap_err().to_string().contains("cluster.redis.server_name"));
}

#[tokio::test]
async fn a_node_shows_a_certificate_where_it_has_one() {
    let pki = Pki::new();
    let server = pki.server("server", Some(&pki.path("ca.pem")));
    refused(&server.url(), &pki.trusting()).await;
    let shown = |key: &str| RedisSettings {
        certificate: Some(pki.path("client.pem")),
        key: Some(pki.path(key)),
        ..pki.trusting()
    };
    connect(&server.url(), &shown("client.key"), A).await.unwrap().renew().await.unwrap();
    for (redis, key) in
        [(shown("server.key"), "cluster.redis.key"), (shown("none"), "cluster.redis.key")]
    {
        let engine = RedisBackplane::new(&server.url(), &Settings::default().cluster, &redis);
        assert!(engine.unwrap_err().to_string().contains(key));
    }
}
