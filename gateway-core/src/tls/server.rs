//! What new handshakes use, and how it becomes another one.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::{
    InconsistentKeys, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tracing::{info, warn};
use url::Url;

use super::{
    facts::{self, Facts, date},
    files::{File, Seen, TlsError},
};
use crate::config::{ClientAuth, Settings, TlsSettings, TlsVersion};

/// Why the files were not taken over at last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Since when, in Unix milliseconds.
    pub at_ms: i64,
    /// What is wrong.
    pub reason: String,
}

/// Whom a handshake is with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    /// Of whom tls.client_auth asks for a certificate.
    Agents,
    /// Who show a token.
    Operators,
}

/// Files that were read and found to be good, but do not count yet.
pub struct Candidate(Loaded);

struct Loaded {
    agents: Arc<ServerConfig>,
    /// tls.client_auth = "required".
    certificate_required: bool,
    operators: Arc<ServerConfig>,
    facts: Arc<Facts>,
    warnings: Vec<String>,
    seen: Vec<Seen>,
}

/// The certificate in use, for all listeners. See the [module](super).
pub struct ServerTls {
    loaded: ArcSwap<Loaded>,
    refusal: Mutex<Option<Refusal>>,
}

impl ServerTls {
    /// Reads the files that the settings name; none where there are none.
    ///
    /// # Errors
    /// When one of them is of no use; the error names it.
    pub fn load(settings: &Settings) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(candidate) = prepare(settings)? else { return Ok(None) };
        let loaded = ArcSwap::from_pointee(candidate.0);
        Ok(Some(Arc::new(Self { loaded, refusal: Mutex::default() })))
    }

    /// Reads the files again; [`commit`](Self::commit) makes them count.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn prepare(&self, settings: &Settings) -> Result<Candidate, TlsError> {
        prepare(settings)?.ok_or(TlsError::Toggled)
    }

    /// From now on new handshakes use these. Whoever is connected stays so.
    pub fn commit(&self, Candidate(loaded): Candidate) {
        let former = self.loaded.swap(Arc::new(loaded));
        *self.refusal.lock() = None;
        let now = self.loaded.load();
        if former.seen != now.seen {
            let Facts { subject, not_after, .. } = &*now.facts;
            info!(%subject, not_after = date(*not_after), "another certificate is in use");
        }
        for warning in &now.warnings {
            warn!("{warning}");
        }
    }

    /// Notes that the files were not taken over, and says so.
    pub(crate) fn refuse(&self, error: &TlsError) {
        let facts = self.facts();
        warn!(
            %error,
            subject = facts.subject,
            not_after = date(facts.not_after),
            "the certificate was not reloaded, the former one stays in use"
        );
        let at_ms = Timestamp::now().as_millisecond();
        *self.refusal.lock() = Some(Refusal { at_ms, reason: error.to_string() });
    }

    /// Why the files as they are now are not in use, if they are not.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.lock().clone()
    }

    /// What is known of the certificate in use.
    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.loaded.load().facts)
    }

    /// What an operator may have overlooked.
    pub fn warnings(&self) -> Vec<String> {
        self.loaded.load().warnings.clone()
    }

    /// The files in use, with the SHA-256 of what was read.
    pub(crate) fn files(&self) -> Vec<(PathBuf, String)> {
        self.loaded.load().seen.clone()
    }

    /// What a handshake uses, and whether who shows no certificate in it may only ask for the gateway's
    /// health.
    pub(crate) fn config(&self, side: Side) -> (Arc<ServerConfig>, bool) {
        let loaded = self.loaded.load();
        match side {
            Side::Agents => (Arc::clone(&loaded.agents), loaded.certificate_required),
            Side::Operators => (Arc::clone(&loaded.operators), false),
        }
    }
}

/// Which files the settings name.
pub(crate) fn named(settings: &TlsSettings) -> impl Iterator<Item = &PathBuf> {
    [&settings.certificate, &settings.key, &settings.client_ca].into_iter().flatten()
}

fn prepare(settings: &Settings) -> Result<Option<Candidate>, TlsError> {
    let tls = &settings.tls;
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else { return Ok(None) };
    let mut seen = Vec::new();
    let chain_file = File { key: "tls.certificate", path: certificate };
    let key_file = File { key: "tls.key", path: key };
    let chain = chain_file.certificates(&mut seen)?;
    let private_key = key_file.private_key(&mut seen)?;
    let facts = Facts::of(&chain[0]).map_err(|error| {
        chain_file.wrong(format!("the first certificate cannot be read: {error}"))
    })?;

    let provider = Arc::new(ring::default_provider());
    let asks = tls.client_auth != ClientAuth::Off;
    let mut verifier = WebPkiClientVerifier::no_client_auth();
    if let Some(path) = &tls.client_ca {
        let file = File { key: "tls.client_ca", path };
        let roots = Arc::new(file.authorities(&mut seen)?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        if asks {
            // Who needs one and has none is refused by `http`: whoever looks after the gateway's health has
            // none to show.
            verifier = builder
                .allow_unauthenticated()
                .build()
                .map_err(|error| file.wrong(error.to_string()))?;
        }
    }
    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let build =
        |verifier, resumes| server(&provider, versions, verifier, resumes, &chain, &private_key);
    let agents = build(verifier, !asks).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { key: key.clone(), certificate: certificate.clone() }
        }
        error @ (rustls::Error::General(_) | rustls::Error::InvalidCertificate(_)) => {
            key_file.wrong(format!("cannot be used: {error}"))
        }
        error => error.into(),
    })?;
    let operators = build(WebPkiClientVerifier::no_client_auth(), true)?;
    let mut warnings = warnings(settings, &chain, &facts);
    warnings.extend(key_file.open_to_others());
    let loaded = Loaded {
        agents: Arc::new(agents),
        certificate_required: tls.client_auth == ClientAuth::Required,
        operators: Arc::new(operators),
        facts: Arc::new(facts),
        warnings,
        seen,
    };
    Ok(Some(Candidate(loaded)))
}

/// Sessions are resumed by tickets, which the clients keep: nothing grows here. Their keys are made
/// anew with every candidate, so that what was resumed yesterday meets the certificate, and the
/// authorities, of today. Where clients are asked for certificates nothing is resumed: their certificates
/// are verified in whole handshakes alone, and each resumption would bring another ticket, so that one
/// which has expired would count for as long as its client keeps coming back.
fn server(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ClientCertVerifier>,
    resumes: bool,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key.clone_key())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if resumes {
        config.ticketer = ring::Ticketer::new()?;
    }
    // Two are for clients that open several connections at once.
    config.send_tls13_tickets = usize::from(resumes);
    Ok(config)
}

/// What is odd about the certificates, without being wrong.
fn warnings(settings: &Settings, chain: &[CertificateDer<'static>], leaf: &Facts) -> Vec<String> {
    let now = Timestamp::now().as_second();
    let mut warnings: Vec<_> = leaf.warning(now).into_iter().collect();
    let others = chain.iter().skip(1).filter_map(|certificate| Facts::of(certificate).ok());
    // Only what matters: an authority may well end within the month.
    warnings.extend(others.filter(|facts| facts.not_after <= now).filter_map(|f| f.warning(now)));
    let hosts = settings.server.public_urls.iter().filter(|url| url.scheme() == "wss");
    for host in hosts.filter_map(Url::host_str) {
        if !facts::is_for(&chain[0], host) {
            warnings.push(format!(
                "the certificate of {} is not for {host}, which server.public_urls names: agents that \
                 dial it will refuse the gateway",
                leaf.subject
            ));
        }
    }
    for warning in &mut warnings {
        warning.insert_str(0, "tls.certificate: ");
    }
    warnings
}
