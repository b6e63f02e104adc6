//! The protocol's test vectors, all of them, against this crate.
//!
//! One test per file, and every failing case is listed, not just the first. The vectors are in
//! `tests/vectors/`; `IOAP_VECTORS=DIR cargo test -p conexus-protocol --test vectors` takes
//! another folder of the same format. What binds and what does not is as its README says; cases
//! that do not bind are run all the same, since nothing may panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use conexus_protocol::schema::payload_members;
use conexus_protocol::{
    AgentId, AgentKey, Envelope, ErrorCode, Identity, MessageType, Register, Rules, SignatureBytes,
    Subprotocol, canonicalize,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn load<T: DeserializeOwned>(file: &str) -> T {
    let folder = std::env::var_os("IOAP_VECTORS")
        .map_or(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"), PathBuf::from);
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("cannot make sense of {}: {error}", path.display()))
}

/// Collects what fails, and fails once with all of it.
#[derive(Default)]
struct Report {
    checked: usize,
    failures: Vec<String>,
}

impl Report {
    fn equal<T: PartialEq + Debug>(&mut self, case: &str, what: &str, actual: T, expected: T) {
        self.holds(case, actual == expected, || format!("{what} {actual:?}, not {expected:?}"));
    }

    fn holds(&mut self, case: &str, holds: bool, what: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.failures.push(format!("{case}: {}", what()));
        }
    }

    fn finish(self) {
        assert!(self.checked > 0, "no cases");
        let count = self.failures.len();
        assert!(count == 0, "{count} of {}:\n{}", self.checked, self.failures.join("\n"));
    }
}

/// `normative`, where a case does not say.
const fn binding() -> bool {
    true
}

#[derive(Deserialize)]
struct Dids {
    cases: Vec<DidCase>,
    invalid: Vec<InvalidDid>,
}

#[derive(Deserialize)]
struct DidCase {
    id: String,
    private_key_hex: String,
    public_key_hex: String,
    public_key_base58: String,
    did_legacy: String,
    did_standard: String,
}

#[derive(Deserialize)]
struct InvalidDid {
    id: String,
    did: String,
    why: String,
}

fn from_hex(hex: &str) -> [u8; 32] {
    let digit = |i: usize| hex.chars().nth(i).and_then(|c| c.to_digit(16));
    let byte = |i| Some(digit(2 * i)? << 4 | digit(2 * i + 1)?);
    std::array::from_fn(|i| {
        byte(i).and_then(|byte| u8::try_from(byte).ok()).expect("64 hex digits")
    })
}

#[test]
fn every_did_names_its_key_in_both_spellings() {
    let vectors: Dids = load("dids.json");
    let mut report = Report::default();
    for case in &vectors.cases {
        let id = &case.id;
        let key = AgentKey::from_bytes(from_hex(&case.public_key_hex));
        let identity = Identity::from_seed(&from_hex(&case.private_key_hex));
        report.equal(id, "public key", identity.key(), key);
        report.equal(id, "standard DID", identity.did(), &case.did_standard);
        report.equal(id, "standard DID", key.did(), case.did_standard.clone());
        report.equal(id, "legacy DID", key.legacy_did(), case.did_legacy.clone());
        report.equal(id, "base58", key.base58(), case.public_key_base58.clone());
        report.equal(id, "base58", AgentKey::parse_base58(&case.public_key_base58), Ok(key));
        for identity in [identity.clone(), identity.with_legacy_did()] {
            let parsed = AgentId::parse(identity.did());
            report.equal(id, "DID", parsed.as_ref().map(AgentId::key), Ok(key).as_ref().copied());
            let signature = SignatureBytes::parse(&identity.sign(b"m"));
            let verified =
                parsed.is_ok_and(|id| id.public_key().verify(b"m", &signature.unwrap()).is_ok());
            report.holds(id, verified, || format!("signature by {} fails", identity.did()));
        }
    }
    for case in &vectors.invalid {
        let refused = AgentKey::parse_did(&case.did).is_err() && AgentId::parse(&case.did).is_err();
        report.holds(&case.id, refused, || format!("accepted: {}", case.why));
    }
    report.finish();
}

#[derive(Deserialize)]
struct CanonicalJson {
    cases: Vec<CanonicalCase>,
}

#[derive(Deserialize)]
struct CanonicalCase {
    id: String,
    input: String,
    canonical: Option<String>,
    strict_json: bool,
}

#[test]
fn every_json_text_has_its_canonical_form() {
    let vectors: CanonicalJson = load("canonical_json.json");
    let mut report = Report::default();
    for case in &vectors.cases {
        let ours = canonicalize(&case.input).ok();
        if case.strict_json {
            report.equal(&case.id, "canonical form", ours.as_ref(), case.canonical.as_ref());
        } else {
            // To be refused, though that does not bind; it must not be read as anything else.
            let tolerable = ours.is_none() || ours == case.canonical;
            report.holds(&case.id, tolerable, || format!("read as {ours:?}"));
        }
        if let Some(canonical) = ours {
            report.equal(&case.id, "repeated", canonicalize(&canonical).ok(), Some(canonical));
        }
    }
    report.finish();
}

#[derive(Deserialize)]
struct MessageValidation {
    payloads: BTreeMap<String, BTreeMap<String, MemberRow>>,
    error_codes: BTreeSet<String>,
    cases: Vec<ValidationCase>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct MemberRow {
    required: bool,
    #[serde(rename = "type")]
    shape: String,
    nullable: bool,
}

#[derive(Deserialize)]
struct ValidationCase {
    id: String,
    message: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    accepted: bool,
    reason: String,
    error_code: Option<String>,
    accepted_compat: bool,
    #[serde(default = "binding")]
    normative: bool,
}

#[test]
fn every_message_is_accepted_or_refused_as_the_schema_says() {
    let vectors: MessageValidation = load("message_validation.json");
    let mut report = Report::default();

    let codes = ErrorCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    report.equal("error_codes", "codes", codes, vectors.error_codes);
    let v1 = MessageType::ALL.into_iter().filter(|kind| kind.is_v1());
    let tables = v1.map(|kind| (kind.as_str().to_owned(), table(kind))).collect();
    report.equal("payloads", "tables", tables, vectors.payloads);

    for case in &vectors.cases {
        let strict = Envelope::parse(&case.message, Rules::V1_STRICT);
        let compat = Envelope::parse(&case.message, Rules::V1_COMPAT);
        if !case.normative {
            continue;
        }
        let id = &case.id;
        report.equal(id, "accepted", strict.is_ok(), case.accepted);
        report.equal(id, "accepted_compat", compat.is_ok(), case.accepted_compat);
        match strict {
            Ok(envelope) => {
                report.equal(id, "type", Some(envelope.kind.as_str()), case.kind.as_deref());
            }
            // Where a message breaks several rules, another may be named first.
            Err(malformed) if malformed.to_string() == case.reason => {
                let code = Some(malformed.code().as_str());
                report.equal(id, "error_code", code, case.error_code.as_deref());
            }
            Err(_) => {}
        }
    }
    report.finish();
}

fn table(kind: MessageType) -> BTreeMap<String, MemberRow> {
    let rows = payload_members(kind, Subprotocol::V1).iter().map(|member| {
        let shape = member.shape.as_str().to_owned();
        let row = MemberRow { required: member.required, shape, nullable: member.nullable };
        (member.name.to_owned(), row)
    });
    rows.collect()
}

#[derive(Deserialize)]
struct SignedMessages {
    cases: Vec<SignedCase>,
}

#[derive(Deserialize)]
struct SignedCase {
    id: String,
    message: String,
    valid: bool,
    valid_with_quirk: bool,
    canonical: Option<String>,
    why: String,
    #[serde(default = "binding")]
    normative: bool,
}

/// Whether a message verifies for the key in its `from`: to the letter, and with the quirk.
fn verdicts(message: &str) -> (bool, bool) {
    // The schema as lenient as it gets: these vectors are about signatures.
    let Ok(envelope) = Envelope::parse(message, Rules::V1_COMPAT) else { return (false, false) };
    let Ok(sender) = AgentId::parse(&envelope.from) else { return (false, false) };
    let key = sender.public_key();
    let to_the_letter = SignatureBytes::parse(&envelope.signature)
        .and_then(|signature| key.verify(&envelope.signed_bytes(), &signature));
    (to_the_letter.is_ok(), envelope.verify(key).is_ok())
}

#[test]
fn every_signature_holds_or_fails_as_it_should() {
    let vectors: SignedMessages = load("signed_messages.json");
    let mut report = Report::default();
    for case in &vectors.cases {
        let (valid, valid_with_quirk) = verdicts(&case.message);
        if !case.normative {
            continue;
        }
        let why = |what: &str| format!("({}) {what}", case.why);
        report.equal(&case.id, &why("valid"), valid, case.valid);
        report.equal(&case.id, &why("with quirk"), valid_with_quirk, case.valid_with_quirk);
        let Ok(envelope) = Envelope::parse(&case.message, Rules::V1_STRICT) else { continue };
        if let Ok(sender) = AgentId::parse(&envelope.from) {
            let strict = envelope.verify(sender.public_key()).is_ok();
            report.equal(&case.id, &why("strict"), strict, case.valid);
        }
        if let Some(canonical) = case.canonical.as_ref().filter(|_| case.valid) {
            let signed = String::from_utf8(envelope.signed_bytes()).unwrap();
            report.equal(&case.id, "signed bytes", &signed, canonical);
        }
        let canonical = canonicalize(&case.message).is_ok_and(|text| text == case.message);
        report.equal(&case.id, "is_canonical", envelope.is_canonical(), canonical);
    }
    report.finish();
}

#[derive(Deserialize)]
struct WireTranscript {
    cases: Vec<Session>,
}

#[derive(Deserialize)]
struct Session {
    id: String,
    title: String,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    dir: String,
    kind: String,
    #[serde(default)]
    data: serde_json::Value,
}

impl Session {
    /// The messages sent in one direction; very long ones are recorded as their hash alone.
    fn texts(&self, dir: &str) -> Vec<&str> {
        let texts = self.events.iter().filter(|event| event.kind == "text" && event.dir == dir);
        texts.filter_map(|event| event.data.as_str()).collect()
    }
}

#[test]
fn the_reference_client_is_understood() {
    let vectors: WireTranscript = load("wire_transcript.json");
    let mut report = Report::default();
    for session in &vectors.cases {
        let sent = session.texts("client->server");
        // What arrives as it was sent was taken for a message by gateway and receiver alike.
        for text in session.texts("server->client").iter().filter(|text| sent.contains(text)) {
            let parsed = Envelope::parse(text, Rules::V1_COMPAT).map(|_| ());
            report.equal(&session.id, "routed message", parsed, Ok(()));
        }
        // Sessions that are about REGISTER itself try out wrong ones.
        let proper = !session.title.contains("REGISTER");
        for text in sent.iter().filter(|text| proper && is_register(text)) {
            report.holds(&session.id, registers(text), || format!("no REGISTER: {text}"));
        }
    }
    report.finish();
}

fn is_register(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|json| json["type"] == "REGISTER")
}

/// Whether a REGISTER is one, proves its key, and names it.
fn registers(text: &str) -> bool {
    let Ok(envelope) = Envelope::parse(text, Rules::V1_COMPAT) else { return false };
    let Ok(sender) = AgentId::parse(&envelope.from) else { return false };
    let names_key = envelope
        .payload::<Register>()
        .is_ok_and(|register| register.names_key(sender.key(), Rules::V1_COMPAT));
    names_key && envelope.from == envelope.to && envelope.verify(sender.public_key()).is_ok()
}
