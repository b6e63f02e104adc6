//! What is no message and why, by where the fault is: the rows that `messages` sends.

use conexus_protocol::{ErrorCode, Subprotocol};
use tokio_tungstenite::tungstenite::Message;

use crate::support::agent::Refusal;

/// The id of the messages below.
pub(super) const ID: &str = "m-1";

/// Stands wherever a message says something: none of it may come back.
pub(super) const MARKER: &str = "nobody-shall-see-this-again";

/// A message as the texts of its members, which need not be what they should.
#[derive(Clone)]
pub(super) struct Sketch(Vec<(String, String)>);

impl Sketch {
    /// An unsigned OFFER to nobody.
    pub(super) fn offer(from: &str) -> Self {
        let quoted = |text: &str| format!("\"{text}\"");
        let members = [
            ("id", quoted(ID)),
            ("correlation_id", "null".to_owned()),
            ("timestamp", quoted("2026-01-12T10:00:00.5Z")),
            ("from", quoted(from)),
            ("to", quoted(MARKER)),
            ("type", quoted("OFFER")),
            ("payload", format!("{{\"sdp\":\"{MARKER}\"}}")),
            ("version", quoted("1.0")),
            ("signature", quoted("")),
        ];
        Self(members.map(|(name, value)| (name.to_owned(), value)).into())
    }

    pub(super) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(member, _)| member != name).cloned().collect())
    }

    /// Puts the text `value` in the place of a member's.
    pub(super) fn with(&self, name: &str, value: impl Into<String>) -> Self {
        let mut sketch = self.clone();
        let member = sketch.0.iter_mut().find(|(member, _)| member == name);
        member.expect("a member of the envelope").1 = value.into();
        sketch
    }

    /// Adds a member behind the others, `name` as the inside of a literal.
    pub(super) fn and(&self, name: &str, value: impl Into<String>) -> Self {
        let mut sketch = self.clone();
        sketch.0.push((name.to_owned(), value.into()));
        sketch
    }

    pub(super) fn saying(&self, kind: &str, payload: impl Into<String>) -> Self {
        self.with("type", format!("\"{kind}\"")).with("payload", payload)
    }

    pub(super) fn text(&self) -> String {
        let members: Vec<_> =
            self.0.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// What is sent, and the one right answer.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) frame: Message,
    pub(super) answer: Refusal,
}

impl Row {
    /// A fault of the message [`ID`], in one of its members.
    fn at(member: &str, name: impl Into<String>, message: &Sketch) -> Self {
        Self::new(name, Message::text(message.text()), Some(ID), Some(member))
    }

    /// A text that has neither id nor members.
    fn nowhere(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(name, Message::text(text.into()), None, None)
    }

    fn new(
        name: impl Into<String>,
        frame: Message,
        id: Option<&str>,
        member: Option<&str>,
    ) -> Self {
        let answer = Refusal {
            correlation_id: id.map(str::to_owned),
            code: ErrorCode::MalformedMessage,
            reason: None,
            member: member.map(str::to_owned),
        };
        Self { name: name.into(), frame, answer }
    }

    fn without_id(mut self) -> Self {
        self.answer.correlation_id = None;
        self
    }

    fn unsupported(mut self) -> Self {
        self.answer.code = ErrorCode::UnsupportedVersion;
        self
    }
}

/// `[[[…]]]`
pub(super) fn nested(levels: usize) -> String {
    "[".repeat(levels) + "]".repeat(levels).as_str()
}

/// `"00000":0,"00001":0,…`, as many as there is room for in `bytes`.
pub(super) fn distinct_keys(bytes: usize) -> String {
    let keys: Vec<_> = (0..bytes / 10).map(|n| format!("\"{n:05}\":0")).collect();
    keys.join(",")
}

/// What is no JSON, or no object.
pub(super) fn shapeless(good: &Sketch) -> Vec<Row> {
    let text = good.text();
    let number = |number: &str| {
        let payload = format!(r#"{{"sequence":{number}}}"#);
        good.saying("PING", payload).text()
    };
    let mut rows = vec![
        Row::nowhere("nothing", ""),
        Row::nowhere("space", " \t\r\n"),
        Row::nowhere("words", MARKER),
        Row::nowhere("a message with something behind it", format!("{text} {MARKER}")),
        Row::nowhere("two messages", format!("{text}{text}")),
        Row::nowhere("a message that does not end", &text[..text.len() - 1]),
        Row::nowhere("a byte order mark", format!("\u{feff}{text}")),
        Row::nowhere("a comment", format!("/* {MARKER} */{text}")),
        Row::nowhere("a trailing comma", text.replace("\"\"}", "\"\",}")),
        Row::nowhere("single quotes", text.replace('"', "'")),
        Row::nowhere("a control character in a string", text.replace(MARKER, "a\nb")),
        Row::nowhere("an unknown escape", text.replace(MARKER, r"\x41")),
        Row::nowhere("a NUL behind it", format!("{text}\0")),
        Row::nowhere("20,000 open brackets", "[".repeat(20_000)),
        Row::nowhere("20,000 brackets and their ends", nested(20_000)),
        Row::nowhere("an array of a message", format!("[{text}]")),
        Row::new("a binary frame", Message::binary(text.clone()), None, None),
        Row::new("an empty binary frame", Message::binary(""), None, None),
    ];
    for no_number in ["NaN", "Infinity", "-Infinity", "01", "+1", "1.", ".5", "0x1"] {
        rows.push(Row::nowhere(no_number, number(no_number)));
    }
    for no_object in ["null", "true", "5", "\"text\"", "[]"] {
        rows.push(Row::nowhere(no_object, no_object));
    }
    rows
}

/// Faults of the envelope.
pub(super) fn envelopes(good: &Sketch) -> Vec<Row> {
    let mut rows = Vec::new();
    for member in ["from", "to", "type", "payload", "signature"] {
        rows.push(Row::at(member, format!("no {member}"), &good.without(member)));
        for value in ["null", "5", "[]"] {
            let message = good.with(member, value);
            rows.push(Row::at(member, format!("{member}: {value}"), &message));
        }
    }
    for member in ["correlation_id", "timestamp", "version"] {
        for value in ["5", "{}", "true"] {
            let message = good.with(member, value);
            rows.push(Row::at(member, format!("{member}: {value}"), &message));
        }
    }
    rows.push(Row::at("id", "no id", &good.without("id")).without_id());
    let too_long = format!("\"{}\"", "x".repeat(129));
    let too_many_bytes = format!("\"{}\"", "é".repeat(65));
    for value in ["5", "null", "[\"m-1\"]", "\"\"", &too_long, &too_many_bytes, r#""m-\ud800""#] {
        rows.push(Row::at("id", format!("id: {value}"), &good.with("id", value)).without_id());
    }
    for time in [
        "",
        "yesterday",
        "1768212000",
        "2026-01-12",
        "2026-01-12 10:00:00Z",
        "2026-13-12T10:00:00Z",
        "2026-02-30T10:00:00Z",
        "2026-01-12T24:00:00Z",
        "2026-01-12T10:00:60Z",
        "2026-01-12T10:00:00.Z",
        "2026-01-12T10:00:00.1234567890Z",
        "2026-01-12T10:00:00+0100",
        "2026-01-12T10:00:00z",
    ] {
        let message = good.with("timestamp", format!("\"{time}\""));
        rows.push(Row::at("timestamp", format!("timestamp: {time}"), &message));
    }
    for version in ["", "1", "1.1", "2.0", "1.0 "] {
        let message = good.with("version", format!("\"{version}\""));
        rows.push(Row::at("version", format!("version: {version}"), &message).unsupported());
    }
    for kind in ["", "offer", "OFFER ", "NOPE", MARKER] {
        let message = good.with("type", format!("\"{kind}\""));
        rows.push(Row::at("type", format!("type: {kind}"), &message));
    }
    rows
}

/// Faults of the payload.
pub(super) fn payloads(good: &Sketch) -> Vec<Row> {
    [
        ("REGISTER", "{}", "public_key"),
        ("REGISTER", r#"{"public_key":5}"#, "public_key"),
        ("UNREGISTER", r#"{"reason":5}"#, "reason"),
        ("UNREGISTER", r#"{"why":"MARKER"}"#, "why"),
        ("OFFER", "{}", "sdp"),
        ("OFFER", r#"{"sdp":["MARKER"]}"#, "sdp"),
        ("OFFER", r#"{"sdp":"MARKER","more":"MARKER"}"#, "more"),
        ("OFFER", r#"{"SDP":"MARKER"}"#, "SDP"),
        ("ANSWER", r#"{"sdp":1}"#, "sdp"),
        ("ANSWER", r#"{"candidate":"MARKER"}"#, "candidate"),
        ("ICE_CANDIDATE", r#"{"sdp_mid":"0"}"#, "candidate"),
        ("ICE_CANDIDATE", r#"{"candidate":"c","sdp_mid":0}"#, "sdp_mid"),
        ("ICE_CANDIDATE", r#"{"candidate":"c","sdp_mline_index":1.0}"#, "sdp_mline_index"),
        ("ICE_CANDIDATE", r#"{"candidate":"c","sdpMid":"0"}"#, "sdpMid"),
        ("INTENT", r#"{"query":5}"#, "query"),
        ("INTENT", r#"{"params":[]}"#, "params"),
        ("INTENT", r#"{"args":{}}"#, "args"),
        ("EXEC_REQUEST", r#"{"args":[]}"#, "args"),
        ("EXEC_REQUEST", r#"{"timeout_ms":"5"}"#, "timeout_ms"),
        ("EXEC_REQUEST", r#"{"stream":"yes"}"#, "stream"),
        ("EXEC_RESPONSE", r#"{"status":5}"#, "status"),
        ("EXEC_RESPONSE", r#"{"execution_time_ms":"1"}"#, "execution_time_ms"),
        ("ERROR", r#"{"code":"TIMEOUT"}"#, "message"),
        ("ERROR", r#"{"code":"NOPE","message":"MARKER"}"#, "code"),
        ("ERROR", r#"{"code":"timeout","message":"MARKER"}"#, "code"),
        ("ERROR", r#"{"code":5,"message":"MARKER"}"#, "code"),
        ("ERROR", r#"{"code":"TIMEOUT","message":"MARKER","details":[]}"#, "details"),
        ("PING", r#"{"sequence":"1"}"#, "sequence"),
        ("PING", r#"{"sequence":1.0}"#, "sequence"),
        ("PING", r#"{"sequence":1e3}"#, "sequence"),
        ("PING", r#"{"sequence":true}"#, "sequence"),
        ("PONG", r#"{"sequence":[]}"#, "sequence"),
        ("PING", r#"{"payload":{}}"#, "payload"),
    ]
    .into_iter()
    .map(|(kind, payload, member)| {
        let message = good.saying(kind, payload.replace("MARKER", MARKER));
        Row::at(&format!("payload.{member}"), format!("{kind} {payload}"), &message)
    })
    .collect()
}

/// JSON by its grammar, and yet not what the protocol takes.
pub(super) fn limits(good: &Sketch) -> Vec<Row> {
    let digits = "1".repeat(4301);
    let long_name = "n".repeat(60_000);
    let long_path = format!("payload.{}", "n".repeat(56));
    let ping = |sequence: &str| good.saying("PING", format!("{{\"sequence\":{sequence}}}"));
    let offer = |payload: &str| good.saying("OFFER", payload);
    // The envelope, the payload and `params` are three of the levels.
    let params = |inside: &str| good.saying("INTENT", format!("{{\"params\":{{{inside}}}}}"));
    let deep = |levels: usize| params(&format!("\"x\":{}", nested(levels - 3)));
    vec![
        Row::at("payload.sequence", "4,301 digits", &ping(&digits)),
        Row::at("payload.sequence", "4,301 digits and a sign", &ping(&format!("-{digits}"))),
        Row::at("payload.sequence", "a number beyond a double", &ping("1e400")),
        Row::at("payload.params", "deep in it, one too", &params("\"x\":[{\"y\":-1e400}]")),
        Row::at("more", "in a member that is ignored", &good.and("more", "1e400")),
        Row::at("payload.params", "129 levels", &deep(129)),
        Row::at("payload.params", "20,000 levels", &deep(20_000)),
        Row::at("more", "129 levels in a member that is ignored", &good.and("more", nested(128))),
        Row::at("id", "two ids", &good.and("id", "\"m-2\"")).without_id(),
        Row::at("to", "two members of a name", &good.and("to", "\"x\"")),
        Row::at("to", "the same one twice", &good.and("to", format!("\"{MARKER}\""))),
        Row::at("to", "the name in another spelling", &good.and(r"\u0074o", "\"x\"")),
        Row::at("signature", "two signatures", &good.and("signature", "\"\"")),
        Row::at("payload.sdp", "two in the payload", &offer(r#"{"sdp":"a","sdp":"b"}"#)),
        Row::at("payload.params", "two deep in it", &params(r#""x":[{"y":1,"y":2}]"#)),
        Row::at("payload.sdp", "half a surrogate pair", &offer(r#"{"sdp":"\ud800"}"#)),
        Row::at("payload.sdp", "the other half", &offer(r#"{"sdp":"\udc00 "}"#)),
        Row::at("payload.sdp", "the halves swapped", &offer(r#"{"sdp":"\udc00\ud800"}"#)),
        Row::at("to", "half a pair in the envelope", &good.with("to", r#""\ud800""#)),
        Row::at("payload.params", "half a pair in a name", &params(r#""\ud800":1"#)),
        Row::at("payload", "one in the payload", &offer(r#"{"sdp":"a","\ud800":1}"#)),
        Row::new(
            "one in the envelope",
            Message::text(good.and(r"\ud800", "1").text()),
            Some(ID),
            None,
        ),
        Row::at(
            &long_path,
            "a name of 60,000 characters",
            &offer(&format!("{{\"{long_name}\":1}}")),
        ),
        Row::at(
            "payload.00000",
            "60 KiB of names",
            &offer(&format!("{{{}}}", distinct_keys(60_000))),
        ),
    ]
}

/// Types that a session of this subprotocol may not send.
pub(super) fn types(good: &Sketch, subprotocol: Subprotocol) -> Vec<Row> {
    let says = |(kind, payload): (&str, &str)| {
        Row::at("type", format!("{kind} from an agent"), &good.saying(kind, payload))
    };
    let of_the_gateway = [
        ("CHALLENGE", r#"{"nonce":"n","expires_in_ms":5}"#),
        (
            "REGISTERED",
            r#"{"session_id":"s","node_id":"n","presence_timeout_ms":1,"heartbeat_ms":1,"max_message_bytes":1,"relay":[],"server_time":"2026-01-12T10:00:00Z"}"#,
        ),
        ("PRESENCE", r#"{"did":"d","state":"online","since":"2026-01-12T10:00:00Z"}"#),
    ];
    let newer = [("WATCH", r#"{"dids":[]}"#), ("UNWATCH", r#"{"dids":[]}"#)];
    let mut rows: Vec<_> = of_the_gateway.into_iter().map(says).collect();
    match subprotocol {
        Subprotocol::V1 => rows.extend(newer.into_iter().map(says)),
        Subprotocol::V1_1 => {
            for (kind, payload, member) in [
                ("WATCH", "{}", "dids"),
                ("WATCH", r#"{"dids":"all"}"#, "dids"),
                ("UNWATCH", r#"{"dids":[5]}"#, "dids"),
                ("REGISTER", r#"{"public_key":"k","audience":"a"}"#, "nonce"),
                ("REGISTER", r#"{"public_key":"k","nonce":"n"}"#, "audience"),
                ("PING", r#"{"reason":null}"#, "reason"),
            ] {
                let message = good.saying(kind, payload);
                let path = format!("payload.{member}");
                rows.push(Row::at(&path, format!("{kind} {payload}"), &message));
            }
        }
    }
    rows
}
