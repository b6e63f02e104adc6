//! One request over HTTP.

use std::{fmt::Write, fs, path::Path, time::Duration};

use conexus_plugin_api::{Answer, CONTINUE, Point};
use ring::hmac;
use ureq::{
    Agent, Proxy,
    http::{HeaderName, HeaderValue, StatusCode},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};
use url::Url;

use crate::{config::Config, reply};

/// Secrets and certificates are small.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MIN_SECRET_BYTES: usize = 16;

/// Why there is no answer. For the log: names neither secrets nor what was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the service cannot be reached: {0}")]
    Transport(ureq::Error),
    #[error("the service answered {0}")]
    Status(StatusCode),
    #[error("the service's answer cannot be used: {0}")]
    Reply(String),
}

pub(crate) struct Client {
    agent: Agent,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    secret: Option<hmac::Key>,
    response_bytes: u64,
}

impl Client {
    /// Reads the files that the configuration names.
    pub(crate) fn new(config: &Config, url: Url) -> Result<Self, String> {
        let secret = config.secret_file.as_deref().map(|path| secret(path, "secret_file"));
        Ok(Self {
            agent: agent(config)?,
            url,
            headers: headers(config)?,
            secret: secret.transpose()?.map(|key| hmac::Key::new(hmac::HMAC_SHA256, &key)),
            response_bytes: config.response_bytes.as_u64(),
        })
    }

    pub(crate) fn ask(&self, body: &[u8], point: Point, now_ms: i64) -> Result<Answer, Failure> {
        let mut request = self.agent.post(self.url.as_str());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(key) = &self.secret {
            let timestamp = now_ms.to_string();
            let signature = format!("sha256={}", sign(key, &timestamp, body));
            request = request.header("x-conexus-timestamp", timestamp);
            request = request.header("x-conexus-signature", signature);
        }
        let request = request.header("content-type", "application/json");
        let mut response = request.send(body).map_err(Failure::Transport)?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(CONTINUE),
            StatusCode::OK => {
                let body = response.body_mut().with_config().limit(self.response_bytes);
                reply::read(&body.read_to_vec().map_err(Failure::Transport)?, point)
                    .map_err(Failure::Reply)
            }
            status => Err(Failure::Status(status)),
        }
    }
}

fn agent(config: &Config) -> Result<Agent, String> {
    let proxy = config.proxy.as_deref().map(Proxy::new).transpose();
    let proxy = proxy.map_err(|error| format!("`proxy`: {error}"))?;
    let mut tls = TlsConfig::builder();
    if let Some(path) = &config.ca_file {
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates(path)?));
    }
    let agent = Agent::config_builder()
        .http_status_as_error(false)
        // Where the service is, is the operator's word, not the service's.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy)
        .timeout_global(Some(config.timeout))
        .timeout_connect(Some(config.timeout.min(Duration::from_secs(5))))
        .max_idle_connections(config.threads.saturating_add(16))
        .max_idle_connections_per_host(config.threads.saturating_add(16))
        .user_agent(concat!("conexus-webhook/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    Ok(agent.build().into())
}

fn headers(config: &Config) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (name, value) in &config.headers {
        let parsed = (name.parse(), value.parse());
        let (Ok(name), Ok(value)) = parsed else {
            return Err(format!("`headers.{name}` is no header that could be sent"));
        };
        headers.push((name, value));
    }
    if let Some(path) = &config.token_file {
        let token = text(path, "token_file")?;
        let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let mut value =
            value.map_err(|_| format!("`token_file` {}: is no token", path.display()))?;
        value.set_sensitive(true);
        headers.push((HeaderName::from_static("authorization"), value));
    }
    Ok(headers)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = text(path, "ca_file")?;
    let items = parse_pem(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let items = items.map_err(|error| format!("`ca_file` {}: {error}", path.display()))?;
    let certificates: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(format!("`ca_file` {}: has no certificate", path.display()));
    }
    Ok(certificates)
}

fn secret(path: &Path, key: &str) -> Result<Vec<u8>, String> {
    let secret = text(path, key)?.trim().as_bytes().to_vec();
    if secret.len() < MIN_SECRET_BYTES {
        let path = path.display();
        return Err(format!("`{key}` {path}: has fewer than {MIN_SECRET_BYTES} bytes"));
    }
    Ok(secret)
}

fn text(path: &Path, key: &str) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("`{key}` {}: {error}", path.display());
    let size = fs::metadata(path).map_err(|error| failed(&error))?.len();
    if size > MAX_FILE_BYTES {
        return Err(failed(&"is too large"));
    }
    fs::read_to_string(path).map_err(|error| failed(&error))
}

fn sign(key: &hmac::Key, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    let mut hex = String::with_capacity(64);
    for byte in context.sign().as_ref() {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `printf '1.{}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn signatures_are_what_openssl_says() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        assert_eq!(
            sign(&key, "1", b"{}"),
            "2af693cb56b22c16912222aeefdc75a01de562bf70ee2015f41ecea48382997f"
        );
    }
}
