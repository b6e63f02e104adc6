//! An agent that answers each OFFER with an ANSWER of the same text.
//!
//! ```text
//! cargo run -p conexus-client --example echo_agent -- --url ws://127.0.0.1:8000/ws
//! ```
//!
//! Without `--url` it takes `CONEXUS_URL`. Its key is new at each start, and its DID is
//! printed: give it to `offer_answer`.

use anyhow::Context;
use conexus_client::{
    Client, Identity, Metadata, ReconnectPolicy,
    protocol::{Answer, Payload},
};

const DEFAULT_URL: &str = "ws://127.0.0.1:8000/ws";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt::init();
    let identity = Identity::generate();
    println!("{}", identity.did());

    let mut client = Client::builder(url()?, identity)
        .metadata(Metadata {
            name: Some("echo".into()),
            capabilities: vec!["echo".into()],
            ..Metadata::default()
        })
        .reconnect(ReconnectPolicy { max_attempts: 0, ..ReconnectPolicy::default() })
        .build()?;

    let handle = client.handle();
    client.on_message_async(move |message| {
        let handle = handle.clone();
        async move {
            println!("{} from {}", message.kind(), message.from);
            if let Payload::Offer(offer) = &message.payload {
                handle.reply(&message, Answer { sdp: offer.sdp.clone() }).await?;
            }
            anyhow::Ok(())
        }
    });
    client.on_state(|state| eprintln!("{state}"));
    client.on_error(|error| {
        eprintln!("{error}");
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            eprintln!("  {error}");
            cause = error.source();
        }
    });

    client.connect().await?;
    tokio::signal::ctrl_c().await?;
    client.close().await;
    Ok(())
}

fn url() -> anyhow::Result<String> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("--url") => args.next().context("--url needs a value"),
        Some(other) => anyhow::bail!("unknown argument {other}; there is only --url"),
        None => Ok(std::env::var("CONEXUS_URL").unwrap_or_else(|_| DEFAULT_URL.into())),
    }
}
