//! Trace ids: one name for a message in every log, from its sender on.
//!
//! A sender that traces puts the W3C's `traceparent` into the envelope, and its trace id is the
//! message's. For all others the gateway makes one, of the session's random bits and the number of
//! the message within the session. Nothing is computed before somebody looks, and whoever looks,
//! wherever, computes the same; what the messages of one session have no id for on the wire still
//! shares its first half.
//!
//! <https://www.w3.org/TR/trace-context/>

use std::{borrow::Cow, fmt, num::NonZeroU64};

use conexus_plugin_api::host::Event;
use conexus_protocol::Envelope;
use rand::Rng as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of a trace, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TraceId([u8; 16]);

impl TraceId {
    /// Reads 32 lower-case hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = hexadecimal(text)?;
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// As events carry it.
    pub(crate) const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Of what [`to_bytes`](Self::to_bytes) gave.
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no trace id"))
    }
}

/// What makes the ids of one session's messages: random, so that nobody else has the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceSeed(NonZeroU64);

impl TraceSeed {
    pub(crate) fn generate() -> Self {
        Self(rand::rng().random())
    }

    /// The id of the session's message of that number.
    pub(crate) const fn id(self, number: u64) -> TraceId {
        let high = self.0.get();
        // Collectors sample by the latter half, which therefore has to look random.
        let wide = ((high as u128) << 64) | mixed(high ^ number) as u128;
        TraceId(wide.to_be_bytes())
    }
}

/// The finalizer of splitmix64: a bijection, so no two numbers share an id.
const fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A sender's `traceparent`: the trace that its message is part of, and the span that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traceparent {
    pub(crate) trace: TraceId,
    pub(crate) parent: [u8; 8],
    pub(crate) sampled: bool,
}

impl Traceparent {
    /// Reads the form of version 00 to the letter. One that is of another form counts as absent:
    /// who traces and makes a mistake is not to lose its message for it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (parent, flags) = (parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() {
            return None;
        }
        let trace = TraceId::parse(trace)?;
        let parent = hexadecimal::<8>(parent).filter(|parent| *parent != [0; 8])?;
        let [flags] = hexadecimal::<1>(flags)?;
        Some(Self { trace, parent, sampled: flags & 1 == 1 })
    }

    /// The one that a message carries.
    pub(crate) fn of(envelope: &Envelope<'_>) -> Option<Self> {
        envelope.traceparent().as_deref().and_then(Self::parse)
    }
}

/// The trace id of a message: its sender's, or the one that the gateway makes.
pub(crate) fn id_of(envelope: &Envelope<'_>, seed: TraceSeed, number: u64) -> TraceId {
    Traceparent::of(envelope).map_or_else(|| seed.id(number), |given| given.trace)
}

/// The trace of the message that an event is about.
pub(crate) fn traced(event: &Event) -> Option<TraceId> {
    match event {
        Event::Route(route) | Event::Undeliverable(route) => route.trace.map(TraceId::from_bytes),
        _ => None,
    }
}

/// Exactly `N` bytes in lower-case hexadecimal digits.
fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_to_the_letter() {
        let read = Traceparent::parse(GOOD).unwrap();
        assert_eq!(read.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.parent, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert!(read.sampled);
        assert!(!Traceparent::parse(&GOOD.replace("-01", "-00")).unwrap().sampled);
        // Flags that version 00 does not know are no fault.
        assert!(Traceparent::parse(&GOOD.replace("-01", "-ff")).unwrap().sampled);
    }

    #[test]
    fn whatever_is_not_of_that_form_counts_as_absent() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = "00f067aa0ba902b7";
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            "00".into(),
            "-".into(),
            "---".into(),
            trace.into(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-"),
            format!("00-{trace}-{parent}-1"),
            format!("00-{trace}-{parent}-001"),
            format!("00-{trace}-{parent}-0g"),
            format!("00-{trace}-{parent}-01-"),
            format!("00-{trace}-{parent}-01-extra"),
            format!("00-{trace}-{parent}-01 "),
            format!(" 00-{trace}-{parent}-01"),
            format!("01-{trace}-{parent}-01"),
            format!("ff-{trace}-{parent}-01"),
            format!("0-{trace}-{parent}-01"),
            format!("00-{zeros}-{parent}-01"),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}-{}-01", parent.to_uppercase()),
            format!("00-{}-{parent}-01", &trace[1..]),
            format!("00-{trace}0-{parent}-01"),
            format!("00-{trace}-{}-01", &parent[1..]),
            format!("00_{trace}_{parent}_01"),
            format!("00-{}ß-{parent}-01", &trace[2..]),
            format!("00-{}+f-{parent}-01", &trace[2..]),
            GOOD.repeat(2),
            "0".repeat(100_000),
        ] {
            assert_eq!(Traceparent::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_message_has_one_id_whoever_computes_it_and_shares_it_with_no_other() {
        let (one, other) = (TraceSeed::generate(), TraceSeed::generate());
        let ids: std::collections::HashSet<_> =
            (0..1000).flat_map(|number| [one.id(number), other.id(number)]).collect();
        assert_eq!(ids.len(), 2000);
        assert_eq!(one.id(7), one.id(7));
        assert_eq!(one.id(1).to_string()[..16], one.id(2).to_string()[..16]);
    }

    #[test]
    fn an_id_is_written_and_read_as_32_digits() {
        let id = TraceSeed::generate().id(3);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<TraceId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<TraceId>("\"4bf9\"").is_err());
    }

    #[test]
    fn a_senders_id_goes_before_the_gateways_own() {
        let seed = TraceSeed::generate();
        let text = |member: &str| {
            format!(
                r#"{{"from":"a","id":"1","payload":{{}},"signature":"","to":"b",{member}"type":"PING"}}"#
            )
        };
        let id = |member: &str| {
            let text = text(member);
            let envelope = Envelope::parse(&text, conexus_protocol::Rules::V1_STRICT).unwrap();
            id_of(&envelope, seed, 9)
        };
        let given = id(&format!(r#""traceparent":"{GOOD}","#));
        assert_eq!(given.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let escaped = GOOD.replacen('0', "\\u0030", 1);
        assert_eq!(id(&format!(r#""traceparent":"{escaped}","#)), given);
        for none in ["", r#""traceparent":null,"#, r#""traceparent":7,"#, r#""traceparent":"x","#] {
            assert_eq!(id(none), seed.id(9), "{none}");
        }
    }
}
