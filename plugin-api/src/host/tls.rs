//! How a connection is encrypted, and whose certificate the other end has shown.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What is known of a connection over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The version: `1.2` or `1.3`.
    pub version: Cow<'static, str>,
    /// The client's certificate, where it has shown one. It was issued by an authority of
    /// `tls.client_ca` and was valid at the handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientCertificate>,
}

/// Whose certificate it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// The distinguished name, `CN=agent-7,O=Example`: in the certificate's order, with the escapes of
    /// RFC 4514.
    pub subject: String,
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// The distinguished name of the authority.
    pub issuer: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// The SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Until when it is valid, in Unix milliseconds.
    pub not_after_ms: i64,
    /// Alternative names that are host names.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Alternative names that are URIs, such as SPIFFE's.
    #[serde(default)]
    pub uris: Vec<String>,
    /// Alternative names that are e-mail addresses.
    #[serde(default)]
    pub emails: Vec<String>,
}
