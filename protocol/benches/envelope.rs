//! What a message costs before it is routed: `cargo bench -p conexus-protocol`.

use conexus_protocol::{AgentKey, Draft, Envelope, Identity, Offer, Rules};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// A signed OFFER of 1.5 KB, as our client sends it: canonical.
fn offer() -> String {
    let sdp = "a=candidate:1 1 UDP 2122252543 192.0.2.1 54321 typ host\r\n".repeat(20);
    let to = Identity::from_seed(&[2; 32]);
    Draft::new(to.did(), Offer { sdp }).sign(&Identity::from_seed(&[1; 32]))
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let text = offer();
    bencher.bench(|| Envelope::parse(black_box(&text), Rules::V1_1).is_ok());
}

#[divan::bench]
fn parse_with_spaces(bencher: Bencher<'_, '_>) {
    let text = offer().replace("\":\"", "\" : \"");
    bencher.bench(|| Envelope::parse(black_box(&text), Rules::V1_COMPAT).is_ok());
}

#[divan::bench]
fn verify(bencher: Bencher<'_, '_>) {
    let (text, sender) = (offer(), Identity::from_seed(&[1; 32]));
    let envelope = Envelope::parse(&text, Rules::V1_1).expect("a message of ours is well-formed");
    bencher.bench(|| black_box(&envelope).verify(sender.id().public_key()).is_ok());
}

#[divan::bench(args = ["standard", "legacy"])]
fn parse_did(bencher: Bencher<'_, '_>, spelling: &str) {
    let key = Identity::from_seed(&[1; 32]).key();
    let did = if spelling == "standard" { key.did() } else { key.legacy_did() };
    bencher.bench(|| AgentKey::parse_did(black_box(&did)).is_ok());
}

#[divan::bench]
fn decompress(bencher: Bencher<'_, '_>) {
    let key = Identity::from_seed(&[1; 32]).key();
    bencher.bench(|| black_box(&key).decompress().is_ok());
}

#[divan::bench]
fn sign(bencher: Bencher<'_, '_>) {
    let (text, sender) = (offer(), Identity::from_seed(&[1; 32]));
    bencher.bench(|| sender.sign(black_box(text.as_bytes())));
}
