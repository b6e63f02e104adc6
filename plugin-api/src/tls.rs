//! How a connection is encrypted, and whose certificate it has shown: views, as of all events.

use crate::{Call, abi};

/// What is known of a connection over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    call: &'a Call<'a>,
    version: &'a str,
}

impl<'a> Tls<'a> {
    pub(crate) fn of(call: &'a Call<'a>) -> Option<Self> {
        Some(Self { call, version: call.text(abi::EVENT_TLS_VERSION)? })
    }

    /// `1.2` or `1.3`.
    #[must_use]
    pub const fn version(self) -> &'a str {
        self.version
    }

    /// The client's certificate, where it has shown one. It was issued by an authority of
    /// `tls.client_ca` and was valid at the handshake.
    #[must_use]
    pub fn client(self) -> Option<ClientCertificate<'a>> {
        let fingerprint = self.call.text(abi::EVENT_CLIENT_FINGERPRINT)?;
        Some(ClientCertificate { call: self.call, fingerprint })
    }
}

/// Whose certificate it is.
#[derive(Debug, Clone, Copy)]
pub struct ClientCertificate<'a> {
    call: &'a Call<'a>,
    fingerprint: &'a str,
}

impl<'a> ClientCertificate<'a> {
    /// The distinguished name, `CN=agent-7,O=Example`: in the certificate's order, with the escapes of
    /// RFC 4514.
    #[must_use]
    pub fn subject(self) -> &'a str {
        self.call.text(abi::EVENT_CLIENT_SUBJECT).unwrap_or_default()
    }

    /// The first common name of the subject.
    #[must_use]
    pub fn common_name(self) -> Option<&'a str> {
        self.call.text(abi::EVENT_CLIENT_COMMON_NAME)
    }

    /// The distinguished name of the authority.
    #[must_use]
    pub fn issuer(self) -> &'a str {
        self.call.text(abi::EVENT_CLIENT_ISSUER).unwrap_or_default()
    }

    /// The serial number, in hexadecimal.
    #[must_use]
    pub fn serial(self) -> &'a str {
        self.call.text(abi::EVENT_CLIENT_SERIAL).unwrap_or_default()
    }

    /// The SHA-256 of the certificate, in hexadecimal.
    #[must_use]
    pub const fn fingerprint(self) -> &'a str {
        self.fingerprint
    }

    /// Until when it is valid, in Unix milliseconds.
    #[must_use]
    pub fn not_after_ms(self) -> i64 {
        self.call.number(abi::EVENT_CLIENT_NOT_AFTER_MS).unwrap_or_default().cast_signed()
    }

    /// Alternative names that are host names.
    pub fn dns_names(self) -> impl Iterator<Item = &'a str> {
        self.names(abi::LIST_CLIENT_DNS_NAMES)
    }

    /// Alternative names that are URIs, such as SPIFFE's.
    pub fn uris(self) -> impl Iterator<Item = &'a str> {
        self.names(abi::LIST_CLIENT_URIS)
    }

    /// Alternative names that are e-mail addresses.
    pub fn emails(self) -> impl Iterator<Item = &'a str> {
        self.names(abi::LIST_CLIENT_EMAILS)
    }

    fn names(self, list: u32) -> impl Iterator<Item = &'a str> {
        (0..).map_while(move |index| self.call.item(list, index).map(|(name, _)| name))
    }
}
