//! An agent that does what others ask (EXEC_REQUEST), and says how far it is.
//!
//! ```text
//! cargo run -p conexus-client --features p2p --example worker
//! cargo run -p conexus-client --features p2p --example worker -- ask DID 2000000
//! ```
//!
//! The first counts primes below a limit for whoever connects, and prints its DID; the second asks it. The gateway is
//! that of `CONEXUS_URL`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use conexus_client::{
    AcceptOptions, Client, Identity, IncomingRequest, PeerOptions, ReconnectPolicy, Reply,
    RequestFailure, RequestOptions,
};
use serde_json::{Value, json};

const DEFAULT_URL: &str = "ws://127.0.0.1:8000/ws";
const LARGEST: u64 = 100_000_000;
/// Numbers between two words of how far it is.
const STEP: u64 = 100_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => work().await,
        ["ask", did, below] => ask(did, below.parse().context("the limit is a number")?).await,
        _ => bail!("usage: [ask DID LIMIT]"),
    }
}

async fn connect() -> anyhow::Result<Client> {
    let url = std::env::var("CONEXUS_URL").unwrap_or_else(|_| DEFAULT_URL.into());
    let client = Client::builder(&url, Identity::generate())
        .reconnect(ReconnectPolicy { max_attempts: 0, ..ReconnectPolicy::default() })
        .connect()
        .await
        .with_context(|| format!("no connection to {url}"))?;
    client.on_error(|error| eprintln!("{error}"));
    Ok(client)
}

async fn work() -> anyhow::Result<()> {
    let client = connect().await?;
    client.on_request(count_primes);
    client.on_peer(AcceptOptions::new(), |peer| println!("{} has connected", peer.did()));
    println!("{}", client.did());
    tokio::signal::ctrl_c().await?;
    client.close().await;
    Ok(())
}

/// `{"primes_below": N}` -> how many there are.
async fn count_primes(request: IncomingRequest) -> Result<Value, RequestFailure> {
    let below = request.args().and_then(|args| args.get("primes_below")).and_then(Value::as_u64);
    let Some(below) = below.filter(|below| *below <= LARGEST) else {
        return Err(RequestFailure::told(format!("primes_below: a number of at most {LARGEST}")));
    };
    let mut primes = 0;
    for from in (0..below).step_by(STEP as usize) {
        if request.is_cancelled() {
            return Err(RequestFailure::told("nobody wants it any more"));
        }
        let to = below.min(from + STEP);
        // Work that takes long belongs on a thread of its own.
        primes += tokio::task::spawn_blocking(move || (from..to).filter(is_prime).count()).await?;
        request.progress(json!({ "done": to as f64 / below as f64 })).await?;
    }
    println!("counted {primes} primes for {}", request.from());
    Ok(json!(primes))
}

fn is_prime(number: &u64) -> bool {
    let number = *number;
    number > 1 && (2..).take_while(|by| by * by <= number).all(|by| !number.is_multiple_of(by))
}

async fn ask(did: &str, below: u64) -> anyhow::Result<()> {
    let client = connect().await?;
    let peer = client.connect_peer(did, PeerOptions::default()).await?;
    let options = RequestOptions::new().timeout(Duration::from_secs(300));
    let mut replies = peer.stream(json!({ "primes_below": below }), options);
    while let Some(reply) = replies.recv().await {
        match reply? {
            Reply::Progress(word) => {
                eprintln!("{:3.0} %", word["done"].as_f64().unwrap_or_default() * 100.0);
            }
            Reply::Part(part) => println!("a part: {part}"),
            Reply::Result(primes) => println!("{primes} primes below {below}"),
        }
    }
    peer.close().await;
    client.close().await;
    Ok(())
}
