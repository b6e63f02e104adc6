//! Much at once: what arrives is what was sent, to the last bit.

use conexus_client::{ChannelMessage, PeerOptions};
use sha2::{Digest as _, Sha256};

use super::{agent, open, pair};
use crate::support::gateway::TestGateway;

const MEGABYTES: usize = 100;
const CHUNK: usize = 250_000;

/// No two chunks are the same, and none is easily made smaller.
fn chunk(number: usize) -> Vec<u8> {
    let mut state = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..CHUNK / 8).flat_map(|_| next().to_le_bytes()).collect()
}

#[tokio::test]
async fn a_hundred_megabytes_arrive_whole_and_in_order() {
    let chunks = MEGABYTES * 1_000_000 / CHUNK;
    let gateway = TestGateway::start().await;
    let (a, b) = (agent(&gateway.url()).await, agent(&gateway.url()).await);
    let (there, back) = pair(&a, &b, PeerOptions::default()).await;
    let mut channels = back.channels();
    let channel = open(&there, "bulk").await;
    let receiving = tokio::spawn(async move {
        let channel = channels.recv().await.unwrap();
        let (mut sum, mut bytes) = (Sha256::new(), 0);
        while let Some(message) = channel.recv().await {
            let message = message.unwrap();
            assert!(matches!(message, ChannelMessage::Binary(_)));
            bytes += message.len();
            sum.update(message.as_bytes());
        }
        (bytes, sum.finalize())
    });
    let mut sum = Sha256::new();
    for number in 0..chunks {
        let chunk = chunk(number);
        sum.update(&chunk);
        channel.send(chunk).await.unwrap();
        // What waits to be sent is bounded, however much there is: a message, and what the stack holds.
        assert!(channel.buffered_amount().await <= 1024 * 1024 + CHUNK + 64 * 1024);
    }
    // Everything is there before the channel ends.
    channel.close().await;
    assert_eq!(receiving.await.unwrap(), (chunks * CHUNK, sum.finalize()));
}
