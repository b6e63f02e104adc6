//! What policy is told of a client's certificate.
//!
//! By then it has been checked against the authorities of `tls.client_ca`; what it says is theirs to
//! vouch for.

use std::fmt::Write as _;

use conexus_plugin_api::host::ClientCertificate;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::{
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    prelude::{FromDer as _, X509Certificate},
    x509::X509Name,
};

/// What a certificate says of its owner; none if it cannot be read, which no checked one is.
pub(crate) fn identity(certificate: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let common_name = parsed.subject().iter_common_name().next();
    let mut identity = ClientCertificate {
        subject: distinguished_name(parsed.subject()),
        common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
        issuer: distinguished_name(parsed.issuer()),
        serial: hex(parsed.raw_serial()),
        fingerprint: hex(&Sha256::digest(certificate)),
        not_after_ms: parsed.validity().not_after.timestamp().saturating_mul(1000),
        dns_names: Vec::new(),
        uris: Vec::new(),
        emails: Vec::new(),
    };
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => identity.dns_names.push((*name).to_owned()),
            GeneralName::URI(name) => identity.uris.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => identity.emails.push((*name).to_owned()),
            _ => {}
        }
    }
    Some(identity)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `CN=ops,O=Example`: in the order of the certificate, with the escapes of RFC 4514, section 2.4, so that
/// no value can be taken for two.
pub(super) fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for (index, part) in name.iter_rdn().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            match oid2abbrev(attribute.attr_type(), oid_registry()) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&attribute.attr_type().to_id_string()),
            }
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    text.push_str(&hex(attribute.attr_value().data));
                }
            }
        }
    }
    text
}

fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, letter) in value.chars().enumerate() {
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => text.extend(['\\', letter]),
            ' ' if index == 0 || index == last => text.extend(['\\', letter]),
            '#' if index == 0 => text.extend(['\\', letter]),
            letter if letter.is_control() => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    use super::*;

    fn certificate(common_name: &str, organization: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["agent.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        let name = |text: &str| Ia5String::try_from(text).unwrap();
        params.subject_alt_names.push(SanType::URI(name("spiffe://example/agent")));
        params.subject_alt_names.push(SanType::Rfc822Name(name("agent@example.org")));
        params.serial_number = Some(vec![0x0a, 0xff].into());
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn a_certificate_tells_who_its_owner_is() {
        let certificate = certificate("agent-7", Some("Example"));
        let identity = identity(&certificate).unwrap();
        assert_eq!(identity.subject, "CN=agent-7,O=Example");
        assert_eq!(identity.common_name.as_deref(), Some("agent-7"));
        assert_eq!(identity.issuer, identity.subject);
        assert_eq!(identity.dns_names, ["agent.example"]);
        assert_eq!(identity.uris, ["spiffe://example/agent"]);
        assert_eq!(identity.emails, ["agent@example.org"]);
        assert_eq!(identity.serial, "0aff");
        assert_eq!(identity.fingerprint, hex(&Sha256::digest(&certificate)));
        assert!(identity.not_after_ms > 0);
    }

    #[test]
    fn no_value_of_a_name_can_be_taken_for_two() {
        let certificate = certificate(" a,O=Admins+x\u{7}", None);
        assert_eq!(identity(&certificate).unwrap().subject, r"CN=\ a\,O\=Admins\+x\07");
    }

    #[test]
    fn what_is_no_certificate_has_no_identity() {
        assert!(identity(&CertificateDer::from(vec![1, 2, 3])).is_none());
    }
}
