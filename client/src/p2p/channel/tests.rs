//! Channels over the stack in one process.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::join_all};
use tokio::time::timeout;

use super::*;
use crate::p2p::{
    transport::Reliability,
    webrtc::tests::pair::{End, PATIENCE, connected},
};

const MIB: usize = 1024 * 1024;

/// A channel and its other end.
async fn opened(from: &End, to: &mut End, options: ChannelOptions) -> (Channel, Channel) {
    let raw = from.connection.open_channel("room".into(), options.raw("room").unwrap()).await;
    let ours = Channel::ours(raw.unwrap(), options, &from.connection);
    let theirs = Channel::theirs(to.channel().await, 16 * MIB, &to.connection);
    ours.opened().await.unwrap();
    theirs.opened().await.unwrap();
    (ours, theirs)
}

async fn next(channel: &Channel) -> Option<Result<ChannelMessage, ChannelError>> {
    timeout(PATIENCE, channel.recv()).await.expect("a message in time")
}

async fn heard(channel: &Channel) -> ChannelMessage {
    next(channel).await.expect("a channel that is open").unwrap()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(step).collect()
}

#[tokio::test]
async fn messages_of_any_size_go_both_ways() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    assert!(ours.is_framed() && theirs.is_framed());
    for bytes in [0, 1, 32_767, 32_768, 65_535, MIB] {
        for (one, other) in [(&ours, &theirs), (&theirs, &ours)] {
            let binary = ChannelMessage::from(noise(bytes));
            let text = ChannelMessage::from("ö".repeat(bytes / 2));
            one.send(binary.clone()).await.unwrap();
            one.send(text.clone()).await.unwrap();
            assert_eq!(heard(other).await, binary);
            assert_eq!(heard(other).await, text);
        }
    }
    assert_eq!(ours.bytes_sent(), theirs.bytes_received());
    assert_eq!(theirs.bytes_sent(), ours.bytes_received());
}

#[tokio::test]
async fn the_largest_message_arrives_and_a_larger_one_is_not_sent() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let message = ChannelMessage::from(noise(16 * MIB));
    let (sent, arrived) = tokio::join!(ours.send(message.clone()), heard(&theirs));
    sent.unwrap();
    assert!(arrived == message);
    let refused = ours.send(vec![0; 16 * MIB + 1]).await.unwrap_err();
    assert!(matches!(refused, ChannelError::TooLarge { limit, .. } if limit == 16 * MIB));
}

#[tokio::test]
async fn messages_keep_the_order_in_which_they_were_sent() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let messages: Vec<_> = (0_usize..60)
        .map(|i| ChannelMessage::from(noise(if i % 3 == 0 { 100_000 } else { i })))
        .collect();
    let sends = join_all(messages.iter().map(|message| ours.send(message.clone())));
    let receives = theirs.messages().take(messages.len()).map(Result::unwrap).collect::<Vec<_>>();
    let (sent, received) = tokio::join!(sends, receives);
    sent.into_iter().collect::<Result<(), _>>().unwrap();
    assert!(received == messages);
}

#[tokio::test]
async fn who_does_not_receive_holds_the_sender_back() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let messages = 40;
    let sending = {
        let ours = ours.clone();
        tokio::spawn(async move {
            for i in 0..messages {
                ours.send(vec![i; MIB]).await.unwrap();
            }
        })
    };
    // Full to the brim: what is unsent does not change any more.
    let mut before = (0, 0);
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = (ours.bytes_sent(), ours.buffered_amount().await);
        assert!(now.1 <= MIB + 32 * 1024, "{now:?}");
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before.0 < 20 * MIB as u64, "{} bytes are on their way", before.0);
    assert!(!sending.is_finished());
    for i in 0..messages {
        assert!(heard(&theirs).await == ChannelMessage::from(vec![i; MIB]));
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn the_number_of_sends_that_wait_is_bounded() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let sends: Vec<_> = (0..300).map(|_| ours.send(vec![0; 40_000])).collect();
    let (done, received) = tokio::join!(join_all(sends), async {
        let mut received = 0;
        while received < 256 {
            heard(&theirs).await;
            received += 1;
        }
        received
    });
    let refused = done.iter().filter(|sent| matches!(sent, Err(ChannelError::Busy { .. }))).count();
    assert_eq!((received, refused), (256, 44));
}

#[tokio::test]
async fn a_message_given_up_half_way_is_finished_all_the_same() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let large = ChannelMessage::from(noise(4 * MIB));
    // Stands still once it is handed over in part, since nobody receives.
    let mut sending = Box::pin(ours.send(large.clone()));
    while ours.bytes_sent() == 0 {
        assert!((&mut sending).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(sending);
    let (sent, first) = tokio::join!(ours.send("next"), heard(&theirs));
    sent.unwrap();
    assert!(first == large);
    assert_eq!(heard(&theirs).await, ChannelMessage::from("next"));
}

#[tokio::test]
async fn closing_sends_what_was_handed_over_also_to_who_is_slow() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let words: Vec<_> = (0..3).map(|i| ChannelMessage::from(vec![i; 3 * MIB])).collect();
    let sends: Vec<_> = words
        .iter()
        .map(|word| {
            let (ours, word) = (ours.clone(), word.clone());
            tokio::spawn(async move { ours.send(word).await })
        })
        .collect();
    while ours.bytes_sent() == 0 {
        tokio::task::yield_now().await;
    }
    let closing = {
        let ours = ours.clone();
        tokio::spawn(async move { ours.close().await })
    };
    for word in &words {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(heard(&theirs).await == *word);
    }
    assert!(next(&theirs).await.is_none());
    assert!(next(&theirs).await.is_none());
    theirs.closed().await.unwrap();
    closing.await.unwrap();
    ours.closed().await.unwrap();
    for sent in join_all(sends).await {
        sent.unwrap().unwrap();
    }
    assert!(matches!(ours.send("more").await, Err(ChannelError::Closed)));
    assert!(matches!(theirs.send("more").await, Err(ChannelError::Closed)));
    assert!(ours.is_closed() && theirs.is_closed());
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_channel() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let weak = ours.downgrade();
    ours.send("bye").await.unwrap();
    drop(ours);
    assert!(weak.upgrade().is_none());
    assert_eq!(heard(&theirs).await, ChannelMessage::from("bye"));
    assert!(next(&theirs).await.is_none());
}

#[tokio::test]
async fn broken_framing_ends_the_channel() {
    type IsIt = fn(&ChannelError) -> bool;
    let pieces: [(RawMessage, IsIt); 3] = [
        (RawMessage::Text("hm".into()), |e| matches!(e, ChannelError::Framing(_))),
        (RawMessage::Binary(vec![0x04].into()), |e| matches!(e, ChannelError::Framing(_))),
        (RawMessage::Binary(vec![0x01; 20].into()), |e| {
            matches!(e, ChannelError::Oversized { limit: 10 })
        }),
    ];
    let (from, mut to) = connected().await;
    for (piece, is_it) in pieces {
        let options = ChannelOptions::default().raw("room").unwrap();
        let raw = from.connection.open_channel("room".into(), options).await.unwrap();
        let theirs = Channel::theirs(to.channel().await, 10, &to.connection);
        let mut events = raw.events().unwrap();
        assert_eq!(events.recv().await, Some(RawChannelEvent::Open));
        raw.send(piece).await.unwrap();
        let error = next(&theirs).await.unwrap().unwrap_err();
        assert!(is_it(&error), "{error}");
        assert!(next(&theirs).await.is_none());
        assert!(is_it(&theirs.closed().await.unwrap_err()));
        assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(RawChannelEvent::Closed));
    }
}

#[tokio::test]
async fn a_channel_with_losses_carries_single_messages() {
    let (from, mut to) = connected().await;
    let reliability = Some(Reliability::MaxRetransmits(0));
    let options = ChannelOptions {
        ordered: false,
        reliability,
        protocol: "game".into(),
        ..Default::default()
    };
    let (ours, theirs) = opened(&from, &mut to, options).await;
    assert!(!ours.is_framed() && !theirs.is_framed());
    assert_eq!((theirs.options().ordered, theirs.options().protocol.as_str()), (false, "game"));
    for message in [ChannelMessage::from("where"), noise(64 * 1024).into(), Vec::new().into()] {
        ours.send(message.clone()).await.unwrap();
        assert!(heard(&theirs).await == message);
        theirs.send(message.clone()).await.unwrap();
        assert!(heard(&ours).await == message);
    }
    let refused = ours.send(vec![0; 64 * 1024 + 1]).await.unwrap_err();
    assert!(matches!(refused, ChannelError::TooLarge { limit: 65_536, .. }));
}

#[tokio::test]
async fn both_sides_open_a_negotiated_channel_by_themselves() {
    let (from, to) = connected().await;
    let open = async |end: &End| {
        let options = ChannelOptions { negotiated: Some(500), ..Default::default() };
        let raw = end.connection.open_channel("both".into(), options.raw("both").unwrap()).await;
        Channel::ours(raw.unwrap(), options, &end.connection)
    };
    let (ours, theirs) = (open(&from).await, open(&to).await);
    ours.send("hello").await.unwrap();
    assert_eq!(heard(&theirs).await, ChannelMessage::from("hello"));
    theirs.send("hi").await.unwrap();
    assert_eq!(heard(&ours).await, ChannelMessage::from("hi"));
}

#[tokio::test]
async fn one_channel_follows_another() {
    let (from, mut to) = connected().await;
    for round in 0..20 {
        let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
        ours.send("hello").await.unwrap();
        assert_eq!(heard(&theirs).await, ChannelMessage::from("hello"));
        let (closing, other) = if round % 2 == 0 { (ours, theirs) } else { (theirs, ours) };
        let (_, ended) = tokio::join!(closing.close(), next(&other));
        assert!(ended.is_none());
    }
}

#[tokio::test]
async fn the_control_channel_takes_messages_of_a_mebibyte() {
    let (from, to) = connected().await;
    let (ours, theirs) = (Channel::control(&from.connection), Channel::control(&to.connection));
    assert_eq!((ours.label(), ours.is_framed()), ("conexus", true));
    let text = ChannelMessage::from("a".repeat(MIB));
    ours.send(text.clone()).await.unwrap();
    assert!(heard(&theirs).await == text);
    let refused = ours.send("a".repeat(MIB + 1)).await.unwrap_err();
    assert!(matches!(refused, ChannelError::TooLarge { .. }));
}

#[tokio::test]
async fn a_lost_connection_is_the_reason_that_is_told() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    theirs.send("before").await.unwrap();
    while ours.inner.received.load(Ordering::Relaxed) == 0 {
        assert_eq!(heard(&ours).await, ChannelMessage::from("before"));
    }
    let waiting = {
        let ours = ours.clone();
        tokio::spawn(async move { ours.recv().await })
    };
    ours.end(ChannelError::Lost);
    assert!(matches!(waiting.await.unwrap(), Some(Err(ChannelError::Lost))));
    assert!(next(&ours).await.is_none());
    assert!(matches!(ours.closed().await, Err(ChannelError::Lost)));
    assert!(matches!(ours.send("after").await, Err(ChannelError::Lost)));
}

#[tokio::test]
async fn a_connection_that_ends_frees_whoever_waits_to_send() {
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    // Both ways are full, since nobody receives.
    let fill = |channel: Channel| {
        tokio::spawn(async move {
            loop {
                if let Err(error) = channel.send(vec![0; MIB]).await {
                    return error;
                }
            }
        })
    };
    let (here, there) = (fill(ours.clone()), fill(theirs.clone()));
    while ours.bytes_sent() < 8 * MIB as u64 || theirs.bytes_sent() < 8 * MIB as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    from.connection.close().await;
    to.connection.close().await;
    for waiting in [here, there] {
        timeout(PATIENCE, waiting).await.unwrap().unwrap();
    }
    timeout(PATIENCE, async { tokio::join!(ours.closed(), theirs.closed(), ours.close()) })
        .await
        .unwrap()
        .0
        .unwrap();
}

#[tokio::test]
async fn many_channels_are_used_at_once() {
    let (from, mut to) = connected().await;
    let mut pairs = Vec::new();
    for _ in 0..32 {
        pairs.push(opened(&from, &mut to, ChannelOptions::default()).await);
    }
    join_all(pairs.iter().enumerate().map(|(i, (ours, theirs))| async move {
        let message = ChannelMessage::from(vec![i as u8; 50_000]);
        ours.send(message.clone()).await.unwrap();
        assert!(heard(theirs).await == message);
        theirs.send("thanks").await.unwrap();
        assert_eq!(heard(ours).await, ChannelMessage::from("thanks"));
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_arrives_as_it_was() {
    let total = 8 * MIB;
    let (from, mut to) = connected().await;
    let (ours, theirs) = opened(&from, &mut to, ChannelOptions::default()).await;
    let mut chunk = noise(200_000);
    let sending = tokio::spawn(async move {
        let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
        let mut left = total;
        while left > 0 {
            chunk.rotate_left(1);
            chunk.truncate(left);
            sum.update(&chunk);
            left -= chunk.len();
            ours.send(chunk.clone()).await.unwrap();
            assert!(ours.buffered_amount().await <= MIB + 32 * 1024);
        }
        ours.close().await;
        sum.finish()
    });
    let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
    let mut received = 0;
    while let Some(message) = next(&theirs).await {
        let message = message.unwrap();
        sum.update(message.as_bytes());
        received += message.len();
    }
    assert_eq!(received, total);
    assert_eq!(sum.finish().as_ref(), sending.await.unwrap().as_ref());
}

#[test]
fn a_handle_is_for_any_task() {
    fn is_for_any_task<T: Send + Sync + Clone + 'static>() {}
    is_for_any_task::<Channel>();
}
