//! `conexus health`, with which images without a shell are asked.

use crate::support::process::{Process, folder_with, run};

#[tokio::test]
async fn health_is_a_status_and_a_line() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let listen = format!("server.listen={}", gateway.addr);
    let url = format!("http://{}", gateway.addr);
    for arguments in [
        &["health", "--set", &listen][..],
        &["--set", &listen, "health", "--ready"],
        &["health", "--url", &url],
        // What is faulty elsewhere is another matter.
        &["health", "--set", &listen, "--set", "presence.timeout=soon"],
    ] {
        let asked = run(folder.path(), arguments).await;
        assert_eq!(asked.code, Some(0), "{arguments:?}: {asked:?}");
        assert!(asked.out.starts_with("200 OK: {"), "{asked:?}");
    }
    assert!(gateway.stop().await.success());
    let asked = run(folder.path(), &["health", "--set", &listen]).await;
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(
        asked.err.contains(&format!("the gateway at {url}/health does not answer")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_status_that_is_no_success_is_a_failure() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    // No gateway's listener has it under this path.
    let url = format!("http://{}", gateway.admin);
    let asked = run(folder.path(), &["health", "--ready", "--url", &url]).await;
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(asked.out.starts_with("404"), "{asked:?}");
    let asked = run(folder.path(), &["health", "--url", "ftp://127.0.0.1"]).await;
    assert_eq!(asked.code, Some(1), "{asked:?}");
}

#[tokio::test]
async fn a_gateway_is_asked_over_tls_whatever_its_certificate_is_for() {
    let folder = folder_with(&[]);
    let made = run(folder.path(), &["cert", "--name", "gateway.example"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let tls = ["--set", "tls.certificate=cert.pem", "--set", "tls.key=key.pem"];
    let gateway = Process::start(folder.path(), &tls).await;
    let listen = format!("server.listen={}", gateway.addr);
    let asked = [&["health", "--set", &listen][..], &tls].concat();
    let asked = run(folder.path(), &asked).await;
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert!(asked.out.starts_with("200 OK: {"), "{asked:?}");
}
