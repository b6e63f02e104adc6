//! `conexus trace`: a real exchange, followed by a real process, recorded and drawn.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, Lines},
    process::Child,
};

use crate::support::{
    agent::Agent,
    process::{Process, conexus, folder_with, run, signal},
    soon,
};

/// A `conexus trace` that follows somebody.
struct Follower {
    child: Child,
    out: Lines<BufReader<tokio::process::ChildStdout>>,
    err: Lines<BufReader<tokio::process::ChildStderr>>,
}

impl Follower {
    async fn start(folder: &Path, gateway: &Process, arguments: &[&str]) -> Self {
        let admin = gateway.admin.to_string();
        let mut command = conexus(folder, &[&["trace", "--admin", &admin][..], arguments].concat());
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut follower = Self { child, out, err };
        assert!(follower.noted().await.starts_with("following "));
        follower
    }

    async fn line(&mut self) -> String {
        next(&mut self.out).await
    }

    async fn noted(&mut self) -> String {
        next(&mut self.err).await
    }

    /// Ctrl-C, which ends it in good order.
    async fn interrupt(mut self) {
        signal(self.child.id().unwrap(), "INT").await;
        let status = soon("the command to end", self.child.wait()).await.unwrap();
        let mut said = String::new();
        while let Some(line) = soon("the end", self.err.next_line()).await.unwrap() {
            said += &line;
        }
        assert!(status.success(), "{status}: {said}");
    }
}

async fn next(lines: &mut Lines<impl AsyncBufRead + Unpin>) -> String {
    soon("a line", lines.next_line()).await.unwrap().expect("a line")
}

async fn offer(from: &mut Agent, to: &mut Agent) {
    from.send_offer(&to.did(), "x").await;
    to.text().await;
}

#[tokio::test]
async fn an_exchange_is_followed_recorded_and_drawn() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (mut a, mut b, mut c) =
        (gateway.agent().await, gateway.agent().await, gateway.agent().await);
    let arguments = [&*a.did(), "--record", "exchange.jsonl"];
    let mut follower = Follower::start(folder.path(), &gateway, &arguments).await;

    offer(&mut a, &mut b).await;
    let line = follower.line().await;
    let end = |agent: &Agent| format!("…{}", &agent.did()[agent.did().len() - 8..]);
    assert!(line.contains(&format!("-> OFFER          {}", end(&b))), "{line}");
    assert!(line.contains("delivered in "), "{line}");
    offer(&mut b, &mut a).await;
    let line = follower.line().await;
    assert!(line.contains(&format!("<- OFFER          {}", end(&b))), "{line}");
    offer(&mut b, &mut c).await;
    a.send_offer("did:key:gateway", "x").await;
    a.refusal().await;
    let line = follower.line().await;
    assert!(line.contains("refused: unknown_agent"), "{line}");
    a.socket.close(None).await.unwrap();
    let line = follower.line().await;
    assert!(line.ends_with("-- left (closed)"), "{line}");
    follower.interrupt().await;

    let recording = folder.path().join("exchange.jsonl");
    let mode = std::fs::metadata(&recording).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it tells who talks to whom");
    let text = std::fs::read_to_string(&recording).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 4, "{text}");
    assert!(events.iter().all(|event| event.get("payload").is_none()));

    let drawn = run(folder.path(), &["trace", "--diagram", "exchange.jsonl"]).await;
    assert_eq!(drawn.code, Some(0), "{}", drawn.err);
    for part in [
        &format!("A = {}\nB = {}\n", a.did(), b.did()),
        "|----- OFFER ------>|",
        "x    |",
        "A left",
    ] {
        assert!(drawn.out.contains(part), "{part} in\n{}", drawn.out);
    }
    let (one, other) = (a.did(), b.did());
    let between = ["trace", "--diagram", "exchange.jsonl", "--between", &one, &other];
    let drawn = run(folder.path(), &between).await;
    assert!(
        !drawn.out.contains("refused") && drawn.out.contains("<----- OFFER ------|"),
        "{}",
        drawn.out
    );
}

#[tokio::test]
async fn only_what_passes_between_two_is_told_where_that_was_asked_and_as_json() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (mut a, mut b, mut c) =
        (gateway.agent().await, gateway.agent().await, gateway.agent().await);
    let arguments = [&*a.did(), "--with", &*c.did(), "--json"];
    let mut follower = Follower::start(folder.path(), &gateway, &arguments).await;
    offer(&mut a, &mut b).await;
    let (id, _) = c.send_offer(&a.did(), "x").await;
    a.text().await;
    let event: Value = serde_json::from_str(&follower.line().await).unwrap();
    assert_eq!((&event["topic"], event["id"].as_str()), (&"message".into(), Some(&*id)));
    assert_eq!(event["outcome"], "delivered");
}

#[tokio::test]
async fn a_recording_has_nothing_that_a_terminal_would_obey() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut a = gateway.agent().await;
    let arguments = [&*a.did(), "--json", "--record", "exchange.jsonl"];
    let mut follower = Follower::start(folder.path(), &gateway, &arguments).await;
    let hostile = "\u{9b}2J\u{7f}\u{202e}";
    a.send_offer(hostile, "x").await;
    a.refusal().await;
    let line = follower.line().await;
    follower.interrupt().await;
    let recorded = std::fs::read_to_string(folder.path().join("exchange.jsonl")).unwrap();
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
    assert_eq!(recorded, line + "\n");
    let event: Value = serde_json::from_str(&recorded).unwrap();
    assert_eq!(event["to"], hostile, "it is the same JSON");
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_again() {
    let folder = folder_with(&[]);
    let first = Process::start(folder.path(), &[]).await;
    let admin = format!("admin.listen={}", first.admin);
    let mut a = first.agent().await;
    let identity = conexus_protocol::Identity::from_seed(&[9; 32]);
    let mut follower = Follower::start(folder.path(), &first, &[identity.did()]).await;
    a.send_offer(identity.did(), "x").await;
    a.refusal().await;
    assert!(follower.line().await.contains("refused: unknown_agent"));
    assert!(first.stop().await.success());
    assert!(follower.noted().await.starts_with("the stream has ended"));
    let second = Process::start(folder.path(), &["--set", &admin]).await;
    assert!(follower.noted().await.starts_with("following again"));
    let mut a = second.agent().await;
    a.send_offer(identity.did(), "x").await;
    a.refusal().await;
    assert!(follower.line().await.contains("refused: unknown_agent"));
    follower.interrupt().await;
}

#[tokio::test]
async fn what_cannot_be_followed_or_drawn_is_said() {
    let folder = folder_with(&[("empty.jsonl", ""), ("other.jsonl", "{\"a\":1}\nno json\n")]);
    let gateway = Process::start(folder.path(), &[]).await;
    let admin = gateway.admin.to_string();
    let did = conexus_protocol::Identity::generate().did().to_owned();
    for (arguments, said) in [
        (&["trace", "--admin", &admin, "did:key:gateway"][..], "did:key:gateway"),
        (&["trace", "--admin", "127.0.0.1:1", &did], "cannot be asked"),
        (&["trace"], "<DID>"),
        (&["trace", "--diagram", "none.jsonl"], "none.jsonl"),
        (&["trace", "--diagram", "empty.jsonl"], "no event that could be drawn"),
        (&["trace", "--diagram", "other.jsonl"], "2 lines are no events"),
    ] {
        let ended = run(folder.path(), arguments).await;
        assert_ne!(ended.code, Some(0), "{arguments:?}");
        assert!(ended.err.contains(said), "{arguments:?}: {}", ended.err);
    }
}
