//! `conexus health`: whether the gateway of this configuration lives, or takes new agents. For images
//! that have neither a shell nor curl to ask with.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use url::Url;

use super::terminal::harmless;
use crate::{
    config::{Sources, public_listener},
    http_client::ClientError,
};

/// Whoever asks every few seconds should not wait for longer.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(super) struct Options {
    /// Ask whether it takes new agents, too: not while it stops
    #[arg(long)]
    ready: bool,

    /// The gateway, such as http://127.0.0.1:8000; without it, the address in the configuration
    #[arg(long)]
    url: Option<Url>,
}

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("the gateway at {url} does not answer")]
    Request { url: Url, source: reqwest::Error },
    #[error("{0} is no URL of a gateway: http or https")]
    Url(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

pub(super) async fn health(options: &Options, sources: &Sources) -> Result<ExitCode, HealthError> {
    let path = if options.ready { "/ready" } else { "/health" };
    let base = options.url.clone().map_or_else(|| own_url(sources), Ok)?;
    let url = match base.scheme() {
        "http" | "https" => base.join(path).map_err(|_| HealthError::Url(base.to_string()))?,
        _ => return Err(HealthError::Url(base.to_string())),
    };
    let failed = |source| HealthError::Request { url: url.clone(), source };
    let answer = client()?.get(url.clone()).send().await.map_err(failed)?;
    let status = answer.status();
    let text = answer.text().await.map_err(failed)?;
    let text: String = harmless(text.trim()).chars().take(500).collect();
    writeln!(io::stdout().lock(), "{status}: {text}")?;
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the gateway of this configuration listens. That it is faulty elsewhere matters to the next
/// start, not to a gateway that runs.
fn own_url(sources: &Sources) -> Result<Url, HealthError> {
    let (address, tls) = public_listener(sources);
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let scheme = if tls { "https" } else { "http" };
    let url = format!("{scheme}://{}", SocketAddr::new(ip, address.port()));
    Url::parse(&url).map_err(|_| HealthError::Url(url))
}

/// A client that takes any certificate: the gateway's is for the name that agents dial, not for this
/// machine's address, and nothing is told to whoever answers.
fn client() -> Result<reqwest::Client, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    Ok(builder.timeout(PATIENCE).no_proxy().build()?)
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_of_the_configuration_is_asked_even_where_that_is_faulty() {
        let url = |set: &[&str]| {
            let set = set.iter().map(|set| (*set).to_owned()).collect();
            own_url(&Sources { set, ..Sources::default() }).unwrap().to_string()
        };
        assert_eq!(url(&[]), "http://127.0.0.1:8000/");
        assert_eq!(url(&["server.listen=0.0.0.0:80"]), "http://127.0.0.1/");
        assert_eq!(url(&["server.listen=[::]:8001", "x.y=1"]), "http://[::1]:8001/");
        assert_eq!(url(&["server.listen=10.1.2.3:8001"]), "http://10.1.2.3:8001/");
    }
}
