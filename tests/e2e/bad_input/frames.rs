//! What breaks the rules of WebSocket (RFC 6455), or the size limit: a close with its code, on a
//! session as on a connection that has not registered.
//!
//! The bytes are written past the library, which would not send them.

use conexus_protocol::Subprotocol;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::support::{
    agent::Agent,
    bystanders::Bystanders,
    frames::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, claim, fragments, frame, header},
    gateway::TestGateway,
    soon,
};

/// `limits.message_bytes` of these tests.
const MESSAGE_BYTES: usize = 64 * 1024;

fn joined(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// What is sent, and the code of the close that follows.
type Row = (&'static str, Vec<u8>, u16);

fn broken_framing() -> Vec<Row> {
    let unmasked = |first: u8, payload: &[u8]| {
        let mut bytes = header(first, 0, payload.len() as u64);
        bytes.extend(payload);
        bytes
    };
    vec![
        ("an unmasked text", unmasked(FIN | TEXT, b"{}"), 1002),
        ("an unmasked ping", unmasked(FIN | PING, b""), 1002),
        ("an unmasked close", unmasked(FIN | CLOSE, &[0x03, 0xe8]), 1002),
        (
            "the first reserved bit (compression, which nobody agreed on)",
            frame(FIN | TEXT | 0x40, b"{}"),
            1002,
        ),
        ("the second", frame(FIN | TEXT | 0x20, b"{}"), 1002),
        ("the third", frame(FIN | PING | 0x10, b""), 1002),
        ("an unknown data opcode", frame(FIN | 0x3, b"{}"), 1002),
        ("another", frame(FIN | 0x7, b""), 1002),
        ("an unknown control opcode", frame(FIN | 0xb, b""), 1002),
        ("another of them", frame(FIN | 0xf, b""), 1002),
        ("half a ping", frame(PING, b"x"), 1002),
        ("half a pong", frame(PONG, b""), 1002),
        ("half a close", frame(CLOSE, &[0x03, 0xe8]), 1002),
        ("a ping of 126 bytes", frame(FIN | PING, &[0; 126]), 1002),
        ("a pong of 60,000 bytes", frame(FIN | PONG, &[0; 60_000]), 1002),
        ("a close of 126 bytes", frame(FIN | CLOSE, &[0x03; 126]), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"{}"), 1002),
        ("an open continuation of nothing", frame(CONTINUATION, b"{}"), 1002),
        ("a text inside a text", joined(&[frame(TEXT, b"{"), frame(FIN | TEXT, b"{}")]), 1002),
        ("a binary inside a text", joined(&[frame(TEXT, b"{"), frame(BINARY, b"")]), 1002),
        ("a close of one byte", frame(FIN | CLOSE, &[0x03]), 1002),
        ("a close code that is never sent", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("a close code below all", frame(FIN | CLOSE, &999_u16.to_be_bytes()), 1002),
    ]
}

fn invalid_utf8() -> Vec<Row> {
    vec![
        ("a byte that never occurs", frame(FIN | TEXT, b"{\"id\":\"\xff\"}"), 1007),
        ("a continuation byte alone", frame(FIN | TEXT, b"\x80"), 1007),
        ("a character cut short at the end", frame(FIN | TEXT, b"\xf0\x9f\x98"), 1007),
        ("an overlong slash", frame(FIN | TEXT, b"\xc0\xaf"), 1007),
        ("half a surrogate pair", frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ("a character beyond the last", frame(FIN | TEXT, b"\xf4\x90\x80\x80"), 1007),
        ("in the second fragment", fragments(&[b"{}", b"\xff"]), 1007),
        ("a character that the next fragment does not end", fragments(&[b"\xc3", b"x"]), 1007),
        ("a character that no fragment ends", fragments(&[b"{", b"}\xc3"]), 1007),
        ("in the reason of a close", frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007),
    ]
}

fn too_big() -> Vec<Row> {
    let long = vec![b' '; MESSAGE_BYTES + 1];
    let umlauts = "ü".repeat(MESSAGE_BYTES / 2 + 1);
    let halves = long.split_at(40_000);
    let crumbs: Vec<_> = long.chunks(100).collect();
    vec![
        ("a text of one byte too many", frame(FIN | TEXT, &long), 1009),
        ("in characters it would fit", frame(FIN | TEXT, umlauts.as_bytes()), 1009),
        ("a binary message", frame(FIN | BINARY, &long), 1009),
        ("two fragments", fragments(&[halves.0, halves.1]), 1009),
        ("many fragments", fragments(&crumbs), 1009),
        ("a frame that claims 2^62 bytes", claim(FIN | TEXT, 1 << 62), 1009),
        (
            "a fragment that claims them",
            joined(&[frame(TEXT, b"{"), claim(CONTINUATION, 1 << 62)]),
            1009,
        ),
        ("a frame that claims all there can be", claim(FIN | TEXT, u64::MAX), 1009),
        ("a frame that claims 2^32 bytes", claim(FIN | BINARY, 1 << 32), 1009),
        (
            "a frame that only claims to be too big",
            claim(FIN | TEXT, MESSAGE_BYTES as u64 + 1),
            1009,
        ),
    ]
}

async fn write(agent: &mut Agent, bytes: &[u8]) {
    // A gateway that has seen enough may have closed before the last byte.
    let _ = soon("bytes to be written", agent.socket.get_mut().write_all(bytes)).await;
}

async fn each_closes_with_its_code(rows: Vec<Row>) {
    let gateway = TestGateway::start_with(|s| s.limits.message_bytes = MESSAGE_BYTES).await;
    let mut bystanders = Bystanders::register(&gateway).await;
    bystanders.exchange().await;
    let mut wrong = Vec::new();
    for (name, bytes, code) in rows {
        for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
            for registered in [false, true] {
                let mut agent = Agent::connect(&gateway, subprotocol).await;
                if registered {
                    agent.register().await;
                }
                println!("{name}, {subprotocol}, registered: {registered}");
                write(&mut agent, &bytes).await;
                match agent.frame().await {
                    Ok(Message::Close(Some(close))) if close.code == CloseCode::from(code) => {
                        assert!(!close.reason.is_empty(), "{name}");
                    }
                    other => wrong.push(format!("{name} ({registered}): {other:?}, not {code}")),
                }
                gateway.has_agents(2).await;
                bystanders.exchange().await;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(gateway.settled().await.refused, 0);
}

#[tokio::test]
async fn broken_framing_closes_with_1002() {
    each_closes_with_its_code(broken_framing()).await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_closes_with_1007() {
    each_closes_with_its_code(invalid_utf8()).await;
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009() {
    each_closes_with_its_code(too_big()).await;
}

#[tokio::test]
async fn a_message_exactly_at_the_limit_passes_in_one_frame_or_many() {
    for limit in [1024, MESSAGE_BYTES] {
        let gateway = TestGateway::start_with(|s| {
            s.limits.message_bytes = limit;
            s.limits.metadata_bytes = 512;
        })
        .await;
        for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
            let mut sender = Agent::registered(&gateway, subprotocol).await;
            let mut target = Agent::registered(&gateway, subprotocol).await;
            let empty = sender.offer(&target.did(), "").1.len();
            let (_, text) = sender.offer(&target.did(), &"x".repeat(limit - empty));
            assert_eq!(text.len(), limit);
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(700);
            for frames in [
                frame(FIN | TEXT, bytes),
                fragments(&[head, tail]),
                fragments(&[b"", head, b"", tail, b""]),
                fragments(&bytes.chunks(100).collect::<Vec<_>>()),
                // Control frames may stand between fragments.
                joined(&[
                    frame(TEXT, head),
                    frame(FIN | PING, &[b'p'; 125]),
                    frame(FIN | PONG, b""),
                    frame(FIN, tail),
                ]),
            ] {
                write(&mut sender, &frames).await;
                assert_eq!(target.text().await, text);
            }

            let one_more = format!("{text} ");
            write(&mut sender, &frame(FIN | TEXT, one_more.as_bytes())).await;
            assert_eq!(sender.close().await.0, 1009);
            target.ping().await;
        }
    }
}

#[tokio::test]
async fn a_character_may_be_split_over_fragments() {
    let gateway = TestGateway::start().await;
    let (mut sender, mut target) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let (from, to) = (sender.did(), target.did());
    let text = format!(
        r#"{{"id":"1","from":"{from}","to":"{to}","type":"OFFER","payload":{{"sdp":"😀"}},"signature":""}}"#
    );
    let inside = text.find('😀').unwrap() + 1;
    let (head, rest) = text.as_bytes().split_at(inside);
    let (middle, tail) = rest.split_at(1);
    write(&mut sender, &fragments(&[head, middle, tail])).await;
    assert_eq!(target.text().await, text);
}

#[tokio::test]
async fn a_frame_that_never_ends_holds_up_nobody() {
    let gateway = TestGateway::start().await;
    let mut bystanders = Bystanders::register(&gateway).await;
    for bytes in [
        vec![FIN | TEXT],
        claim(FIN | TEXT, 60_000),
        frame(FIN | TEXT, &[b' '; 60_000])[..30_000].to_vec(),
        frame(TEXT, b"{"),
    ] {
        let mut half = Agent::v1(&gateway).await;
        let mut other = Agent::v1_1(&gateway).await;
        write(&mut half, &bytes).await;
        bystanders.exchange().await;
        // It is even written to, itself.
        let (_, text) = other.send_offer(&half.did(), "x").await;
        assert_eq!(half.text().await, text);
    }
}

#[tokio::test]
async fn what_follows_a_fault_is_not_read() {
    let gateway = TestGateway::start().await;
    let mut bystanders = Bystanders::register(&gateway).await;
    let mut target = Agent::v1(&gateway).await;
    for fault in [frame(FIN | 0x3, b""), frame(FIN | TEXT, b"\xff"), frame(FIN | CLOSE, b"")] {
        let mut sender = Agent::v1(&gateway).await;
        let (_, text) = sender.offer(&target.did(), "too late");
        let mut bytes = fault;
        bytes.extend(frame(FIN | TEXT, text.as_bytes()));
        write(&mut sender, &bytes).await;
        gateway.has_agents(3).await;
        bystanders.exchange().await;
        target.ping().await;
    }
    let messages = gateway.settled().await;
    assert_eq!(messages.received, messages.delivered);
    assert_eq!(messages.received, 6, "the bystanders' own");
}
