//! Two agents exchange an offer, an answer and an ICE candidate, as WebRTC peers would.
//!
//! ```text
//! cargo run -p conexus-client --example offer_answer -- --url ws://127.0.0.1:8000/ws [PEER]
//! ```
//!
//! PEER is the DID of an agent that answers offers, such as `echo_agent`; without it, one is
//! started in this process. Without `--url` it takes `CONEXUS_URL`.

use std::time::Duration;

use anyhow::Context;
use conexus_client::{
    Client, Identity,
    protocol::{Answer, IceCandidate, Offer, Payload},
};

const DEFAULT_URL: &str = "ws://127.0.0.1:8000/ws";

const CANDIDATE: &str = "candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt::init();
    let (url, peer) = arguments()?;
    let answering = match peer {
        Some(_) => None,
        None => Some(answering_agent(&url).await?),
    };
    let peer = peer.or_else(|| answering.as_ref().map(|agent| agent.did().to_owned()));
    let peer = peer.context("no peer")?;

    let client = Client::builder(&url, Identity::generate()).connect().await?;
    client.on_error(|error| eprintln!("{error}"));
    println!("{} is connected", client.did());
    println!("the gateway answers PING within {:?}", client.ping().await?);
    let mut messages = client.messages();

    let offer = Offer { sdp: "v=0\r\ns=offer\r\n".into() };
    let answer = client.send_confirmed(&peer, offer, Duration::from_secs(5)).await?;
    println!("{} answers with {}", answer.from, answer.kind());

    client.send(&peer, candidate()).await?;
    println!("candidate sent");
    if answering.is_some() {
        let theirs = messages.recv().await.context("the client has ended")?;
        println!("{} from {}", theirs.kind(), theirs.from);
    }

    client.close().await;
    if let Some(agent) = answering {
        agent.close().await;
    }
    Ok(())
}

/// Answers an OFFER with an ANSWER, and a candidate with its own.
async fn answering_agent(url: &str) -> anyhow::Result<Client> {
    let mut client = Client::builder(url, Identity::generate()).build()?;
    let handle = client.handle();
    client.on_message_async(move |message| {
        let handle = handle.clone();
        async move {
            match &message.payload {
                Payload::Offer(_) => {
                    let answer = Answer { sdp: "v=0\r\ns=answer\r\n".into() };
                    handle.reply(&message, answer).await?;
                }
                Payload::IceCandidate(_) => {
                    handle.send(&*message.from, candidate()).await?;
                }
                _ => {}
            }
            anyhow::Ok(())
        }
    });
    client.on_error(|error| eprintln!("{error}"));
    client.connect().await?;
    Ok(client)
}

fn candidate() -> IceCandidate {
    IceCandidate {
        candidate: CANDIDATE.into(),
        sdp_mid: Some("0".into()),
        sdp_mline_index: Some(0),
    }
}

fn arguments() -> anyhow::Result<(String, Option<String>)> {
    let mut url = None;
    let mut peer = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--url" => url = Some(args.next().context("--url needs a value")?),
            did if did.starts_with("did:") && peer.is_none() => peer = Some(arg),
            other => anyhow::bail!("unknown argument {other}: --url URL and a DID are allowed"),
        }
    }
    let url = url.or_else(|| std::env::var("CONEXUS_URL").ok());
    Ok((url.unwrap_or_else(|| DEFAULT_URL.into()), peer))
}
