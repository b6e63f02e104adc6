//! How a channel is opened, and what that makes of it.

use std::time::Duration;

use super::ChannelError;
use crate::p2p::transport::{RawChannelOptions, Reliability};

/// The protocol of framed channels; an application's own follows after a slash.
const FRAMED: &str = "conexus.v1";
/// Labels that begin so are not for applications.
const RESERVED: &str = "conexus";
/// What DCEP has room for (RFC 8832, section 5.1).
const MAX_NAME: usize = 65_535;
/// The largest message that a channel joins, unless said otherwise.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How a channel is opened. By default it keeps order, loses nothing, and takes messages of up to 16 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Whether messages arrive in the order in which they were sent. Default: yes.
    pub ordered: bool,
    /// When a message that got lost is given up; none (the default) is never. A channel that may lose messages or
    /// change their order takes messages of at most 64 KiB.
    pub reliability: Option<Reliability>,
    /// What the application speaks on it, in at most 65,524 bytes. Default: nothing.
    pub protocol: String,
    /// The id of a channel that both sides open by themselves, with the same options and without telling each other:
    /// 1 to 65,534. Ids that the stack gives to other channels count from 1. Default: none, the other side is told.
    pub negotiated: Option<u16>,
    /// The largest message in bytes, of those sent and of those received. One that is larger ends the channel when it
    /// arrives. Default: 16 MiB.
    pub max_message_bytes: usize,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            ordered: true,
            reliability: None,
            protocol: String::new(),
            negotiated: None,
            max_message_bytes: MAX_MESSAGE_BYTES,
        }
    }
}

impl ChannelOptions {
    /// Whether messages of any size may be sent: only where their pieces arrive, and in order.
    pub(super) fn is_framed(&self) -> bool {
        self.ordered && self.reliability.is_none()
    }

    /// What the stack opens for an application.
    pub(crate) fn raw(&self, label: &str) -> Result<RawChannelOptions, ChannelError> {
        if is_reserved(label) || label.len() > MAX_NAME {
            return Err(ChannelError::Label);
        }
        if matches!(self.negotiated, Some(0 | u16::MAX)) {
            return Err(ChannelError::Options("a negotiated id is 1 to 65534"));
        }
        if let Some(Reliability::MaxLifetime(time)) = self.reliability
            && time > Duration::from_millis(u16::MAX.into())
        {
            return Err(ChannelError::Options("a lifetime is at most 65535 ms"));
        }
        let protocol = match (self.is_framed(), self.protocol.as_str()) {
            (true, "") => FRAMED.to_owned(),
            (true, own) => format!("{FRAMED}/{own}"),
            (false, own) if own_protocol(own).is_some() => {
                return Err(ChannelError::Options("`conexus.v1` is for framed channels"));
            }
            (false, own) => own.to_owned(),
        };
        if protocol.len() > MAX_NAME {
            return Err(ChannelError::Options("a protocol has at most 65524 bytes"));
        }
        Ok(RawChannelOptions {
            ordered: self.ordered,
            reliability: self.reliability,
            protocol,
            negotiated: self.negotiated,
        })
    }

    /// What the other side opened, and whether it is framed.
    pub(super) fn of(raw: RawChannelOptions, max_message_bytes: usize) -> (Self, bool) {
        let RawChannelOptions { ordered, reliability, protocol, negotiated } = raw;
        let own = own_protocol(&protocol).map(str::to_owned);
        let is_framed = own.is_some();
        let protocol = own.unwrap_or(protocol);
        (Self { ordered, reliability, protocol, negotiated, max_message_bytes }, is_framed)
    }
}

/// Whether a label is not for applications.
fn is_reserved(label: &str) -> bool {
    label.starts_with(RESERVED)
}

/// The application's protocol on a framed channel; none on others.
fn own_protocol(protocol: &str) -> Option<&str> {
    match protocol.strip_prefix(FRAMED)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lossy() -> ChannelOptions {
        let reliability = Some(Reliability::MaxRetransmits(0));
        ChannelOptions { ordered: false, reliability, ..Default::default() }
    }

    #[test]
    fn a_framed_channel_says_so_in_its_protocol() {
        let named = |options: ChannelOptions, protocol: &str| {
            let options = ChannelOptions { protocol: protocol.to_owned(), ..options };
            options.raw("room").map(|raw| raw.protocol)
        };
        assert_eq!(named(ChannelOptions::default(), "").unwrap(), "conexus.v1");
        assert_eq!(named(ChannelOptions::default(), "chat").unwrap(), "conexus.v1/chat");
        assert_eq!(named(lossy(), "chat").unwrap(), "chat");
        for claimed in ["conexus.v1", "conexus.v1/chat"] {
            named(lossy(), claimed).unwrap_err();
        }
        assert_eq!(named(lossy(), "conexus.v10").unwrap(), "conexus.v10");
    }

    #[test]
    fn what_the_other_side_opened_is_read_the_same_way() {
        let read = |protocol: &str| {
            let raw = RawChannelOptions {
                ordered: true,
                reliability: None,
                protocol: protocol.to_owned(),
                negotiated: None,
            };
            let (options, is_framed) = ChannelOptions::of(raw, 1);
            (options.protocol, is_framed)
        };
        assert_eq!(read("conexus.v1"), (String::new(), true));
        assert_eq!(read("conexus.v1/chat"), ("chat".to_owned(), true));
        assert_eq!(read("conexus.v10"), ("conexus.v10".to_owned(), false));
        assert_eq!(read(""), (String::new(), false));
    }

    #[test]
    fn labels_ids_and_lifetimes_have_their_bounds() {
        let options = ChannelOptions::default();
        for label in ["conexus", "conexus-chat", &"a".repeat(65_536)] {
            assert!(matches!(options.raw(label), Err(ChannelError::Label)), "{}", label.len());
        }
        options.raw("").unwrap();
        options.raw(&"a".repeat(65_535)).unwrap();
        for (id, is_fine) in [(0, false), (1, true), (65_534, true), (65_535, false)] {
            let options = ChannelOptions { negotiated: Some(id), ..Default::default() };
            assert_eq!(options.raw("room").is_ok(), is_fine, "{id}");
        }
        for (millis, is_fine) in [(65_535, true), (65_536, false)] {
            let time = Duration::from_millis(millis);
            let reliability = Some(Reliability::MaxLifetime(time));
            let options = ChannelOptions { reliability, ..Default::default() };
            assert_eq!(options.raw("room").is_ok(), is_fine, "{millis}");
        }
    }
}
