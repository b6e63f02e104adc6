//! The client's examples, as their users run them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::support::{
    browser::Browser,
    process::{Process, folder_with},
    soon,
};

/// Beside the gateway's program, where `tests/run` has it built.
fn example(name: &str) -> PathBuf {
    let made = Path::new(env!("CARGO_BIN_EXE_conexus")).with_file_name("examples").join(name);
    assert!(made.exists(), "{} is missing, which tests/run builds", made.display());
    made
}

pub(super) fn command(gateway: &Process, name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    command
        .args(arguments)
        .current_dir(folder)
        .env("CONEXUS_URL", format!("ws://{}/ws", gateway.addr))
        .kill_on_drop(true);
    command
}

/// An example that runs until it is told to stop, or by itself. Dropping it kills it.
pub(super) struct Running {
    pub(super) did: String,
    pub(super) child: Child,
    input: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(super) async fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self { did: String::new(), child, input, said };
        running.did = running.line().await;
        assert!(running.did.starts_with("did:key:"), "{}", running.did);
        running
    }

    async fn line(&mut self) -> String {
        let line = soon("the example to say something", self.said.next_line()).await.unwrap();
        line.expect("the example runs")
    }
}

/// Of one that ends by itself: whether it succeeded, what it said, and what went wrong.
async fn ended(mut command: Command) -> (bool, String, String) {
    let output = soon("the example to end", command.stdin(Stdio::null()).output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_file_is_handed_over_and_never_over_another() {
    let gateway_folder = folder_with(&[]);
    let gateway = Process::start(gateway_folder.path(), &[]).await;
    let (from, to) = (folder_with(&[]), folder_with(&[]));
    let content: Vec<u8> = (0..1_500_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(from.path().join("numbers.bin"), &content).unwrap();
    std::fs::write(from.path().join("nothing"), "").unwrap();

    let receiving = command(&gateway, "file_transfer", to.path(), &["receive"]);
    let mut receiver = Running::start(receiving).await;
    let did = receiver.did.clone();
    let send = |file| command(&gateway, "file_transfer", from.path(), &["send", &did, file]);
    for file in ["numbers.bin", "nothing"] {
        let (is_fine, said, wrong) = ended(send(file)).await;
        assert!(is_fine, "{wrong}");
        assert!(said.starts_with(&format!("{file}: ")), "{said}");
        assert!(receiver.line().await.contains(file));
        let there = std::fs::read(to.path().join(file)).unwrap();
        assert!(there == std::fs::read(from.path().join(file)).unwrap(), "{file} has changed");
    }

    std::fs::write(to.path().join("numbers.bin"), "mine").unwrap();
    let (is_fine, _, wrong) = ended(send("numbers.bin")).await;
    assert!(!is_fine && wrong.contains("numbers.bin cannot be written"), "{wrong}");
    assert_eq!(std::fs::read(to.path().join("numbers.bin")).unwrap(), b"mine");
}

#[tokio::test]
async fn a_worker_does_what_it_is_asked_and_says_how_far_it_is() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let worker = Running::start(command(&gateway, "worker", folder.path(), &[])).await;
    let ask = |below| command(&gateway, "worker", folder.path(), &["ask", &worker.did, below]);
    let (is_fine, said, told) = ended(ask("250000")).await;
    assert!(is_fine, "{told}");
    assert_eq!(said, "22044 primes below 250000\n");
    for share in [" 40 %", " 80 %", "100 %"] {
        assert!(told.contains(share), "{told}");
    }
    let (is_fine, _, told) = ended(ask("999999999999")).await;
    assert!(!is_fine && told.contains("a number of at most"), "{told}");
}

#[tokio::test]
async fn a_program_chats_with_the_page() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "http.demo=true"]).await;
    let browser = Browser::start().await;
    let mut chat = Running::start(command(&gateway, "chat_with_page", folder.path(), &[])).await;
    browser.open(&format!("http://{}/demo/", gateway.addr)).await;
    browser.find_saying("#people li", "A Rust agent").await;
    browser.press_in("#people", "Connect").await;
    browser.find_saying(".talk .state", "connected").await;
    assert!(chat.line().await.ends_with("has connected"));
    browser.find(".talk form input:enabled").await.send_keys("hello").await.unwrap();
    browser.find(".talk form button:enabled").await.click().await.unwrap();
    assert_eq!(chat.line().await, "> hello");
    chat.input.write_all("hello, page\n".as_bytes()).await.unwrap();
    browser.find_saying(".talk .theirs", "hello, page").await;
    browser.press_in(".talk", "End").await;
    assert!(chat.line().await.ends_with("has gone"));
    browser.quit().await;
    // Its end of input is its end.
    drop(chat.input);
    let status = soon("the example to end", chat.child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}
