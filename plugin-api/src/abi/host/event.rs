//! What plugins read of events and agents.

use std::sync::Arc;

use crate::{
    Agent,
    abi::types as raw,
    host::{ClientCertificate, Connect, Event},
};

/// The other agent of an event.
pub(super) fn other(event: &Event) -> Option<&Arc<Agent>> {
    match event {
        Event::Route(event) | Event::Undeliverable(event) => event.target.as_ref(),
        Event::Watch(event) => event.target.as_ref(),
        Event::Delivered(event) => Some(&event.to),
        _ => None,
    }
}

/// A text, or bytes. Whether it is a secret is [`is_secret`]'s to say.
pub(super) fn text(event: &Event, which: u32) -> Option<&[u8]> {
    let text = match (event, which) {
        (Event::Connect(event), raw::EVENT_PATH) => &event.path,
        (Event::Connect(event), raw::EVENT_QUERY) => &event.query,
        (Event::Connect(event), raw::EVENT_TLS_VERSION) => event.tls.as_ref()?.version.as_ref(),
        (Event::Connect(event), which) => return client_text(client(event)?, which),
        (Event::Register(event), raw::EVENT_CREDENTIALS) => event.credentials.as_deref()?,
        (Event::Route(event) | Event::Undeliverable(event), which) => match which {
            raw::EVENT_TO => event.to(),
            raw::EVENT_ID => event.id(),
            raw::EVENT_KIND => &event.kind,
            raw::EVENT_TEXT => event.text(),
            raw::EVENT_PAYLOAD => event.payload(),
            raw::EVENT_CORRELATION => event.correlation_id()?,
            raw::EVENT_TO_KEY => return Some(&event.to_key),
            _ => return None,
        },
        (Event::Watch(event), raw::EVENT_TO) => &event.did,
        (Event::Delivered(event), raw::EVENT_KIND) => &event.kind,
        (Event::Disconnect(event), raw::EVENT_REASON) => &event.reason,
        (Event::HookError(event), which) => match which {
            raw::EVENT_HOOK => event.hook.as_str(),
            raw::EVENT_POINT => &event.point,
            raw::EVENT_KIND => &event.kind,
            raw::EVENT_MESSAGE => &event.message,
            raw::EVENT_ABOUT => event.agent.as_deref()?,
            _ => return None,
        },
        _ => return None,
    };
    Some(text.as_bytes())
}

/// The certificate that somebody who asks for a WebSocket has shown.
fn client(event: &Connect) -> Option<&ClientCertificate> {
    event.tls.as_ref()?.client.as_ref()
}

fn client_text(client: &ClientCertificate, which: u32) -> Option<&[u8]> {
    let text = match which {
        raw::EVENT_CLIENT_SUBJECT => &client.subject,
        raw::EVENT_CLIENT_COMMON_NAME => client.common_name.as_ref()?,
        raw::EVENT_CLIENT_ISSUER => &client.issuer,
        raw::EVENT_CLIENT_SERIAL => &client.serial,
        raw::EVENT_CLIENT_FINGERPRINT => &client.fingerprint,
        _ => return None,
    };
    Some(text.as_bytes())
}

/// The names that a client's certificate has beside its subject; none where the list is another one.
pub(super) fn client_names(event: &Event, list: u32) -> Option<&[String]> {
    let Event::Connect(event) = event else { return None };
    let names = |of: fn(&ClientCertificate) -> &[String]| client(event).map_or(&[][..], of);
    Some(match list {
        raw::LIST_CLIENT_DNS_NAMES => names(|client| &client.dns_names),
        raw::LIST_CLIENT_URIS => names(|client| &client.uris),
        raw::LIST_CLIENT_EMAILS => names(|client| &client.emails),
        _ => return None,
    })
}

/// Whether a text is left out of the decision log.
pub(super) const fn is_secret(which: u32) -> bool {
    which == raw::EVENT_CREDENTIALS
}

pub(super) fn number(event: &Event, which: u32) -> Option<u64> {
    match (event, which) {
        (Event::Connect(event), raw::EVENT_CLIENT_NOT_AFTER_MS) => {
            client(event).map(|client| client.not_after_ms.cast_unsigned())
        }
        (Event::Register(event), raw::EVENT_RENEWAL) => Some(event.renewal.into()),
        (Event::Registered(event), raw::EVENT_RENEWAL) => Some(event.renewal.into()),
        (Event::Expire(event), raw::EVENT_SILENT_MS) => Some(event.silent_ms),
        (Event::Delivered(event), raw::EVENT_BYTES) => u64::try_from(event.bytes).ok(),
        (Event::Disconnect(event), raw::EVENT_CODE) => event.code.map(u64::from),
        (Event::Disconnect(event), raw::EVENT_LASTED_MS) => Some(event.lasted_ms),
        (Event::Disconnect(event), raw::EVENT_EPOCH) => event.epoch,
        _ => None,
    }
}

/// The headers of an upgrade request.
pub(super) fn headers(event: &Event) -> &[(String, String)] {
    if let Event::Connect(event) = event { &event.headers } else { &[] }
}

pub(super) fn agent_text(agent: &Agent, which: u32) -> Option<&[u8]> {
    let text = match which {
        raw::AGENT_DID => &agent.did,
        raw::AGENT_SUBPROTOCOL => &agent.subprotocol,
        raw::AGENT_NAME => agent.metadata.name.as_deref()?,
        raw::AGENT_RATE_CLASS => agent.rate_class.as_deref()?,
        raw::AGENT_KEY => return Some(&agent.key),
        _ => return None,
    };
    Some(text.as_bytes())
}

pub(super) const fn agent_number(agent: &Agent, which: u32) -> Option<u64> {
    match which {
        raw::AGENT_SESSION => Some(agent.session),
        raw::AGENT_CONNECTED_AT_MS => Some(agent.connected_at_ms.cast_unsigned()),
        _ => None,
    }
}

/// The n-th name of a list, with its value where it has one.
pub(super) fn agent_item(agent: &Agent, list: u32, index: usize) -> Option<(&str, &str)> {
    let map = match list {
        raw::LIST_CAPABILITIES => {
            return agent.metadata.capabilities.get(index).map(|name| (name.as_str(), ""));
        }
        raw::LIST_ATTRIBUTES => &agent.metadata.attributes,
        raw::LIST_LABELS => &agent.labels,
        _ => return None,
    };
    map.iter().nth(index).map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The value of a name in a list; of a capability the empty text.
pub(super) fn agent_find<'a>(agent: &'a Agent, list: u32, name: &str) -> Option<&'a str> {
    let map = match list {
        raw::LIST_CAPABILITIES => {
            return agent.metadata.capabilities.iter().any(|one| one == name).then_some("");
        }
        raw::LIST_ATTRIBUTES => &agent.metadata.attributes,
        raw::LIST_LABELS => &agent.labels,
        _ => return None,
    };
    map.get(name).map(String::as_str)
}
