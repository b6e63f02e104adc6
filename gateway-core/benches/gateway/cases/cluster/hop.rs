//! A bare way over Redis: a message published on a channel of the sharded kind and received on another
//! connection, with the client library that the gateway has, at a steady rate.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value};
use tokio::{sync::mpsc, time::sleep_until};

/// As long as an OFFER of the other cases.
const BYTES: usize = 1500;

const CHANNEL: &str = "hop";

/// Latencies in microseconds, from the moment of publishing: the timer here is coarser than that of
/// the load generator, which counts from when a message was due.
pub(super) struct Hop {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

pub(super) fn measure(url: &str, rate: u64, time: Duration) -> Hop {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(hop(url, rate, time))
}

async fn hop(url: &str, rate: u64, time: Duration) -> Hop {
    let client = redis::Client::open(format!("{url}/?protocol=resp3")).unwrap();
    let (push, mut pushed) = mpsc::unbounded_channel::<PushInfo>();
    let config = AsyncConnectionConfig::new().set_push_sender(push);
    let mut receiving = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let subscribe = redis::cmd("SSUBSCRIBE").arg(CHANNEL).to_owned();
    let _: Value = subscribe.query_async(&mut receiving).await.unwrap();
    let sending = client.get_multiplexed_async_connection().await.unwrap();

    let count = (rate as f64 * time.as_secs_f64()) as u64;
    let began = Instant::now();
    let due = move |number: u64| began + Duration::from_secs_f64(number as f64 / rate as f64);
    let publishing = tokio::spawn(async move {
        for number in 0..count {
            sleep_until(due(number).into()).await;
            let mut sending = sending.clone();
            // The next one does not wait for what is answered to this one.
            tokio::spawn(async move {
                let mut text = (began.elapsed().as_nanos() as u64).to_be_bytes().to_vec();
                text.resize(BYTES, b'.');
                let publish = redis::cmd("SPUBLISH").arg(CHANNEL).arg(text).to_owned();
                let _: Value = publish.query_async(&mut sending).await.unwrap();
            });
        }
    });
    let mut latencies = Histogram::<u64>::new(3).unwrap();
    while latencies.len() < count {
        let message = tokio::time::timeout(Duration::from_secs(10), pushed.recv()).await;
        let message = message.expect("messages arrive").expect("a connection");
        if message.kind != PushKind::SMessage {
            continue;
        }
        let Some(Value::BulkString(text)) = message.data.get(1) else { continue };
        let sent = Duration::from_nanos(u64::from_be_bytes(text[..8].try_into().unwrap()));
        latencies.record((began.elapsed() - sent).as_nanos() as u64).unwrap();
    }
    publishing.await.unwrap();
    let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Hop { p50: micros(0.5), p99: micros(0.99) }
}
