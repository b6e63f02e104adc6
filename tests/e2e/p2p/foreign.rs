//! An agent of ours and one whose WebRTC was not written here: aiortc, in Python, signaled by hand
//! (`tests/foreign/webrtc_agent.py`).

use std::process::Stdio;

use conexus_client::{AcceptOptions, Peer, PeerOptions, RequestOptions};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{agent, comes_back, echo, open, twice};
use crate::{
    foreign::{python, repository},
    support::{gateway::TestGateway, soon},
};

/// A registered agent in Python. Dropping it kills it.
struct Foreign {
    did: String,
    child: Child,
    commands: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
}

impl Foreign {
    async fn register(url: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(python())
            .arg(repository("tests/foreign/webrtc_agent.py"))
            .args(["--url", url])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the Python that tests/run makes");
        let commands = child.stdin.take().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut agent = Self { did: String::new(), child, commands, events };
        let registered = agent.event("registered").await;
        agent.did = registered["did"].as_str().unwrap().to_owned();
        agent
    }

    async fn tell(&mut self, command: Value) {
        let line = format!("{command}\n");
        soon("a command to be taken", self.commands.write_all(line.as_bytes())).await.unwrap();
    }

    /// The next thing that happens to it, which must be this.
    async fn event(&mut self, expected: &str) -> Value {
        let line = soon(expected, self.events.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("the agent ended before {expected}"));
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["event"], expected, "{line}");
        event
    }

    async fn end(mut self) {
        drop(self.commands);
        let status = soon("the agent to end", self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Everything that the two can do with each other.
async fn talk(peer: &Peer, foreign: &mut Foreign) {
    let channel = open(peer, "ours").await;
    assert_eq!(foreign.event("channel").await["label"], "ours");
    comes_back(&channel, "grüß dich").await;
    comes_back(&channel, vec![7; 200_000]).await;

    echo(peer);
    foreign.tell(json!({ "do": "open", "label": "theirs" })).await;
    foreign.event("channel").await;
    foreign.tell(json!({ "do": "say", "label": "theirs", "text": "grüß dich" })).await;
    assert_eq!(foreign.event("heard").await["text"], "grüß dich");
    foreign.tell(json!({ "do": "say", "label": "theirs", "bytes": 200_000 })).await;
    let heard = foreign.event("heard").await;
    let sum: String =
        Sha256::digest([7; 200_000]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&heard["bytes"], &heard["sha256"]), (&json!(200_000), &json!(sum)));

    let args = json!({ "text": "ä", "n": 1.5 });
    let asked = peer.request(args.clone(), RequestOptions::new());
    assert_eq!(soon("an answer", asked).await.unwrap(), args);
    foreign.tell(json!({ "do": "request", "args": { "n": 4 } })).await;
    let answered = foreign.event("answered").await;
    assert_eq!(answered["type"], "EXEC_RESPONSE", "{answered}");
    assert_eq!(answered["payload"]["result"], json!({ "twice": 8 }));
}

#[tokio::test]
async fn an_agent_of_ours_connects_to_one_with_another_stack_and_all_works_both_ways() {
    let gateway = TestGateway::start().await;
    let mut foreign = Foreign::register(&gateway.url(), &["--trickle"]).await;
    let client = agent(&gateway.url()).await;
    client.on_request(twice);
    let connecting = client.connect_peer(&foreign.did, PeerOptions::default());
    let peer = soon("the connection", connecting).await.unwrap();
    assert_eq!(foreign.event("open").await["peer"], *client.did());
    talk(&peer, &mut foreign).await;
    peer.close().await;
    foreign.event("closed").await;
    foreign.end().await;
}

#[tokio::test]
async fn an_agent_with_another_stack_connects_to_one_of_ours_and_all_works_both_ways() {
    let gateway = TestGateway::start().await;
    // All its candidates are in its description.
    let mut foreign = Foreign::register(&gateway.url(), &[]).await;
    let client = agent(&gateway.url()).await;
    client.on_request(twice);
    let mut incoming = client.accept_peers(AcceptOptions::new());
    foreign.tell(json!({ "do": "connect", "to": client.did() })).await;
    let peer = soon("the connection", incoming.recv()).await.unwrap();
    assert_eq!(peer.did(), foreign.did);
    foreign.event("open").await;
    talk(&peer, &mut foreign).await;
    foreign.tell(json!({ "do": "close" })).await;
    soon("an orderly end", peer.closed()).await.unwrap();
    foreign.event("closed").await;
    foreign.end().await;
}
