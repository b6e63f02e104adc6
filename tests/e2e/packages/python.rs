//! The checks that are written in Python, with the Python that `tests/run` makes.

use std::{path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::support::soon;

pub(super) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// `CONEXUS_TEST_PYTHON`, else what `tests/run` made before. A check that cannot run has not passed.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("CONEXUS_TEST_PYTHON") {
        return python.into();
    }
    let made = repository("target/foreign-venv/bin/python");
    assert!(made.exists(), "no Python for the checks: run tests/run, once at least");
    made
}

/// What a script of `tests/deploy` says of its input; it must find nothing wrong.
pub(super) async fn check(script: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(python())
        .arg(repository("tests/deploy").join(script))
        .args(arguments)
        .current_dir(repository("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the Python that tests/run makes");
    let mut stdin = child.stdin.take().unwrap();
    let (written, output) = soon(script, async {
        let write = async {
            let written = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            written
        };
        tokio::join!(write, child.wait_with_output())
    })
    .await;
    let output = output.unwrap();
    let (out, err) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let (out, err) = (out.unwrap(), err.unwrap());
    assert!(output.status.success(), "{script} {arguments:?}:\n{out}{err}");
    written.unwrap();
    out
}
