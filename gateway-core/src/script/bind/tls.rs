//! How a connection is encrypted, and whose certificate it has shown.

use std::sync::Arc;

use conexus_plugin_api::host::{ClientCertificate, Tls};
use rhai::{Array, Dynamic};

use super::{Bindings, agents::text_or_unit};

/// `event.tls`.
#[derive(Debug, Clone)]
pub(super) struct TlsInfo(pub(super) Arc<Tls>);

/// `event.tls.client`, of which there is one.
#[derive(Debug, Clone)]
struct Client(Arc<Tls>);

impl Client {
    fn get<T: Default>(&self, of: impl FnOnce(&ClientCertificate) -> T) -> T {
        self.0.client.as_ref().map(of).unwrap_or_default()
    }

    fn names(&self, of: impl FnOnce(&ClientCertificate) -> &[String]) -> Array {
        self.get(|client| of(client).iter().map(|name| Dynamic::from(name.clone())).collect())
    }
}

pub(super) fn bind(bindings: &mut Bindings) {
    bindings.named::<TlsInfo>("TLS");
    bindings.function("to_string", |tls: &mut TlsInfo| format!("TLS {}", tls.0.version));
    bindings.function("to_debug", |tls: &mut TlsInfo| format!("{:?}", tls.0));
    bindings.field("version", |tls: &mut TlsInfo| tls.0.version.to_string());
    bindings.field("client", |tls: &mut TlsInfo| match &tls.0.client {
        Some(_) => Dynamic::from(Client(tls.0.clone())),
        None => Dynamic::UNIT,
    });

    bindings.named::<Client>("client certificate");
    bindings.function("to_string", |c: &mut Client| c.get(|client| client.subject.clone()));
    bindings.function("to_debug", |c: &mut Client| c.get(|client| format!("{client:?}")));
    bindings.field("subject", |c: &mut Client| c.get(|client| client.subject.clone()));
    bindings.field("common_name", |c: &mut Client| {
        c.get(|client| text_or_unit(client.common_name.as_deref()))
    });
    bindings.field("issuer", |c: &mut Client| c.get(|client| client.issuer.clone()));
    bindings.field("serial", |c: &mut Client| c.get(|client| client.serial.clone()));
    bindings.field("fingerprint", |c: &mut Client| c.get(|client| client.fingerprint.clone()));
    bindings
        .field("not_after", |c: &mut Client| c.get(|client| client.not_after_ms.div_euclid(1000)));
    bindings.field("dns_names", |c: &mut Client| c.names(|client| &client.dns_names));
    bindings.field("uris", |c: &mut Client| c.names(|client| &client.uris));
    bindings.field("emails", |c: &mut Client| c.names(|client| &client.emails));
}
