//! Properties that hold for any text, and a second, simple canonical form to compare with.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value};

use crate::{
    AgentId, AgentKey, Draft, Envelope, ExecRequest, ExecResponse, Identity, MAX_DEPTH, Message,
    Rules, Timestamp, canonicalize,
};

const ALL_RULES: [Rules; 3] = [Rules::V1_STRICT, Rules::V1_COMPAT, Rules::V1_1];

/// Everything that a gateway does with a text from a stranger.
fn handle(text: &str) {
    for rules in ALL_RULES {
        match Envelope::parse(text, rules) {
            Ok(envelope) => {
                let canonical = canonicalize(text);
                assert_eq!(envelope.is_canonical(), canonical.as_deref() == Ok(text));
                let _ = Message::try_from(&envelope);
                if let Ok(sender) = AgentId::parse(&envelope.from) {
                    let _ = envelope.verify(sender.public_key());
                }
            }
            Err(malformed) => {
                assert!(malformed.member().is_none_or(|member| member.len() <= 64));
                assert!(malformed.id.is_none_or(|id| (1..=128).contains(&id.len())));
            }
        }
    }
}

/// JSON without floats, whose canonical form needs no knowledge of Python.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(any::<String>(), json(), 0..4).prop_map(|members| members.into_iter().collect())
}

/// Canonical JSON the obvious way: as a tree, sorted by code points, character by character.
fn model(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(model).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.chars().collect::<Vec<_>>());
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", model_string(name), model(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::String(text) => model_string(text),
        other => other.to_string(),
    }
}

fn model_string(text: &str) -> String {
    let mut out = String::from("\"");
    for unit in text.encode_utf16() {
        match unit {
            8 => out += r"\b",
            9 => out += r"\t",
            10 => out += r"\n",
            12 => out += r"\f",
            13 => out += r"\r",
            34 => out += r#"\""#,
            92 => out += r"\\",
            32..=126 => out.extend(char::from_u32(u32::from(unit))),
            _ => out += &format!("\\u{unit:04x}"),
        }
    }
    out + "\""
}

/// A message as the reference client would write it, and one of ours.
fn messages() -> [String; 2] {
    let identity = Identity::from_seed(&[1; 32]);
    let args = serde_json::json!({"a": [1, 2.5e300, null, {"é\u{1f600}": "\r\n\"\\"}], "b": {}});
    let args = args.as_object().cloned();
    let mut draft = Draft::new("did:key:x", ExecRequest { args, ..Default::default() })
        .with_id("m-1")
        .in_reply_to("m-0");
    draft.timestamp = Timestamp::from_unix_millis(1_775_797_231_075);
    let ours = draft.sign(&identity);
    let value: Value = serde_json::from_str(&ours).unwrap();
    [serde_json::to_string_pretty(&value).unwrap(), ours]
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in vec(any::<u8>(), 0..200)) {
        handle(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_json_like_text_makes_the_parser_panic(
        text in r#"[\[\]{}:,"\\u0-9dDabeE+. \-ntrflsé]{0,60}"#,
    ) {
        handle(&text);
        handle(&format!(r#"{{"id":"1","type":"PING","payload":{{"sequence":{text}}}}}"#));
    }

    #[test]
    fn no_damage_to_a_message_makes_the_parser_panic(
        which in 0..2_usize,
        edits in vec((any::<Index>(), 0..3_usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = messages()[which].clone().into_bytes();
        for (at, removed, inserted) in edits {
            let at = at.index(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, [inserted]);
        }
        handle(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn the_canonical_form_is_that_of_the_model(value in json()) {
        let expected = model(&value);
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let canonical = canonicalize(&text);
            prop_assert_eq!(canonical.as_deref(), Ok(&*expected));
        }
        let again = canonicalize(&expected);
        prop_assert_eq!(again.as_deref(), Ok(&*expected));
    }

    #[test]
    fn the_canonical_form_of_a_float_is_the_same_double(value in any::<f64>()) {
        prop_assume!(value.is_finite());
        for text in [serde_json::to_string(&value).unwrap(), format!("{value:.30e}")] {
            let canonical = canonicalize(&text).unwrap();
            prop_assert_eq!(canonical.parse::<f64>().map(f64::to_bits), Ok(value.to_bits()));
            prop_assert_eq!(canonicalize(&canonical), Ok(canonical.clone()));
        }
    }

    #[test]
    fn what_is_signed_parses_verifies_and_reads_back(
        args in object(),
        id in "[!-~é]{1,64}",
        to in any::<String>(),
        time_ms in 0..4_000_000_000_000_i64,
        execution_time_ms in proptest::option::of(0.0..1e18),
        legacy in any::<bool>(),
    ) {
        let identity = Identity::from_seed(&[1; 32]);
        let identity = if legacy { identity.with_legacy_did() } else { identity };
        let result = Some(Value::Object(args));
        let mut draft =
            Draft::new(to, ExecResponse { result, execution_time_ms, ..Default::default() });
        draft.id = id;
        draft.timestamp = Timestamp::from_unix_millis(time_ms);
        let text = draft.sign(&identity);

        for rules in ALL_RULES {
            let envelope = Envelope::parse(&text, rules).unwrap();
            prop_assert!(envelope.is_canonical());
            prop_assert_eq!(envelope.verify(identity.id().public_key()), Ok(()));
            let message = Message::try_from(&envelope).unwrap();
            prop_assert_eq!(&message.payload, &draft.payload);
            prop_assert_eq!(&message.id, &draft.id);
            prop_assert_eq!(&message.to, &draft.to);
            prop_assert_eq!(&message.from, identity.did());
            prop_assert_eq!(message.timestamp, Some(draft.timestamp));
        }

        // The same message in another spelling: not canonical, but under the same signature.
        let value: Value = serde_json::from_str(&text).unwrap();
        let spaced = serde_json::to_string_pretty(&value).unwrap();
        let envelope = Envelope::parse(&spaced, Rules::V1_STRICT).unwrap();
        prop_assert!(!envelope.is_canonical());
        prop_assert_eq!(envelope.verify(identity.id().public_key()), Ok(()));
    }

    #[test]
    fn white_space_anywhere_makes_a_text_other_than_canonical(at in any::<Index>()) {
        let [_, text] = messages();
        let at = at.index(text.len() + 1);
        let spaced = format!("{} {}", &text[..at], &text[at..]);
        if let Ok(envelope) = Envelope::parse(&spaced, Rules::V1_STRICT) {
            prop_assert_eq!(envelope.is_canonical(), canonicalize(&spaced) == Ok(spaced.clone()));
            // Within a string it is content; that makes another message.
            let key = Identity::from_seed(&[1; 32]);
            let same_message = envelope.verify(key.id().public_key()).is_ok();
            prop_assert!(!(same_message && envelope.is_canonical()));
        }
    }

    #[test]
    fn every_key_comes_back_from_both_spellings(bytes in any::<[u8; 32]>()) {
        let key = AgentKey::from_bytes(bytes);
        prop_assert_eq!(AgentKey::parse_did(&key.did()), Ok(key));
        prop_assert_eq!(AgentKey::parse_did(&key.legacy_did()), Ok(key));
    }

    #[test]
    fn timestamps_come_back_from_their_text(millis in any::<i64>()) {
        let time = Timestamp::from_unix_millis(millis);
        let text = time.to_string();
        let parsed = Timestamp::parse(&text).unwrap();
        // Six fraction digits of nine are written.
        prop_assert_eq!(parsed.as_unix_millis(), time.as_unix_millis());
        prop_assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn no_text_makes_the_small_parsers_panic(text in any::<String>()) {
        let _ = Timestamp::parse(&text);
        let _ = AgentId::parse(&text);
        let _ = AgentId::parse(&format!("did:key:z6Mk{text}"));
        let _ = Identity::from_pem(&text);
        let _ = crate::SignatureBytes::parse(&text);
    }
}

#[test]
fn hostile_shapes_are_handled_like_any_other() {
    let big = 1 << 16;
    for text in [
        "[".repeat(big),
        "{\"a\":".repeat(big / 5),
        format!("{{{}}}", "\"\":1,".repeat(big / 6)),
        format!(r#"{{"id":"1","payload":{}{}}}"#, "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)),
        format!("\"{}\"", r"\u0000".repeat(big / 6)),
        "9".repeat(big),
        format!("0.{}", "9".repeat(big)),
        format!("1e{}", "9".repeat(big)),
        format!("-{}e-{}", "1".repeat(big), "9".repeat(30)),
    ] {
        handle(&text);
        let _ = canonicalize(&text);
    }
}
