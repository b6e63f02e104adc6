//! `conexus watch`, `conexus completions` and the searches of `conexus agents`, as processes.

use std::process::Stdio;

use conexus_gateway::hooks::Denial;
use conexus_protocol::{Identity, Metadata, RefusalReason, Subprotocol};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    policy::{Changing, Closures},
    process::{conexus, folder_with, run},
    soon,
};

#[tokio::test]
async fn watch_prints_a_line_for_each_word_of_presence() {
    let gateway = TestGateway::start().await;
    let folder = folder_with(&[]);
    let me = Identity::generate();
    let url = gateway.url();
    let arguments = ["watch", "--url", &url, "--count", "3", me.did()];
    let mut child = conexus(folder.path(), &arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || soon("a line", lines.next_line()).await.unwrap().unwrap();
    assert!(line().await.ends_with(&format!(" {} offline", me.did())));
    let agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    assert!(line().await.ends_with(&format!(" {} online", me.did())));
    drop(agent);
    let last = line().await;
    assert!(last.contains(" offline ("), "{last}");
    assert!(soon("its end", child.wait()).await.unwrap().success());

    let ended =
        run(folder.path(), &["watch", "--url", &url, "--count=1", "--json", me.did()]).await;
    let word: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&word["did"], &word["state"]), (&me.did().into(), &"offline".into()));
}

#[tokio::test]
async fn watch_says_why_it_may_not_and_what_is_no_did() {
    let denial = Denial { reason: RefusalReason::Denied, text: "not you".into() };
    let policy = Changing::new(Closures {
        watch: Some(Box::new(move |_| Err(denial.clone()))),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let folder = folder_with(&[]);
    let url = gateway.url();
    let did = Identity::generate().did().to_owned();
    // Given twice it is one agent.
    let ended = run(folder.path(), &["watch", "--url", &url, &did, &did]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains(&did) && ended.err.contains("not you"), "{}", ended.err);
    assert!(ended.err.contains("(denied)"), "{}", ended.err);
    let ended = run(folder.path(), &["watch", "--url", &url, "nobody"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("did"), "{}", ended.err);
}

#[tokio::test]
async fn agents_are_searched_from_the_command_line() {
    let gateway = TestGateway::start().await;
    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let capabilities = vec!["sum up".into()];
    let metadata = Metadata { name: Some("one".into()), capabilities, ..Metadata::default() };
    let register = agent.with_metadata(metadata);
    agent.register_with(register).await;
    let _other = Agent::v1(&gateway).await;
    let folder = folder_with(&[]);
    let url = format!("http://{}", gateway.addr);
    for (question, found) in
        [(["--capability", "sum up"], true), (["--name", "one"], true), (["--name", "two"], false)]
    {
        let ended = run(folder.path(), &["agents", "--url", &url, question[0], question[1]]).await;
        assert_eq!(ended.out.contains(&agent.did()), found, "{question:?}: {}", ended.out);
        assert!(ended.out.ends_with(&format!("{0} of {0} agents\n", u8::from(found))));
    }
    let ended = run(folder.path(), &["agents", "--url", &url, "--label", "team:red"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("http.agents_labels"), "{}", ended.err);
}

#[tokio::test]
async fn completions_are_what_their_shell_can_read() {
    let folder = folder_with(&[]);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = run(folder.path(), &["completions", shell]).await;
        assert_eq!(ended.code, Some(0), "{shell}: {}", ended.err);
        for word in ["completions", "watch", "keygen"] {
            assert!(ended.out.contains(word), "{shell} has no {word}");
        }
        let path = folder.path().join(shell);
        std::fs::write(&path, &ended.out).unwrap();
        // Only bash is everywhere; the others are asked where they are.
        let options: &[&str] = match shell {
            "bash" | "zsh" => &["-n"],
            "fish" => &["--no-execute"],
            _ => continue,
        };
        let mut command = tokio::process::Command::new(shell);
        command.args(options).arg(&path).stdin(Stdio::null());
        match command.output().await {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(error) => assert_ne!(shell, "bash", "{error}"),
        }
    }
    // What bash makes of it: after `conexus comp` comes what fits.
    let script = "source ./bash; COMP_WORDS=(conexus comp); COMP_CWORD=1; \
                  _conexus conexus comp conexus; echo ${COMPREPLY[*]}";
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", script]).current_dir(folder.path());
    let output = soon("bash", command.output()).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "completions");
    let ended = run(folder.path(), &["completions", "tcsh"]).await;
    assert_eq!(ended.code, Some(2));
}
