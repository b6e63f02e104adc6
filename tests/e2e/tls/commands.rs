//! The commands that make certificates, check them, and dial with them.

use std::path::Path;

use crate::support::{
    pki::Pki,
    process::{Process, conexus, run, write},
    soon,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

async fn made(folder: &Path, more: &[&str]) {
    let ended = run(folder, &[&["cert", "--out", "tls"], more].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

const TOML: &str = "[tls]\ncertificate = \"tls/cert.pem\"\nkey = \"tls/key.pem\"\n";

#[tokio::test]
async fn a_development_certificate_serves_agents_and_operators() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ended = run(folder, &["cert", "--out", "tls"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    // What it prints is a configuration.
    let printed = ended.out.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
    let client = "client_ca = \"tls/ca.pem\"\nclient_auth = \"required\"\n[admin]\ntls = true\n";
    write(&folder.join("gateway.toml"), &format!("{}\n{client}", printed.join("\n")));
    made(folder, &["--client", "agent-7"]).await;
    let checked = run(folder, &["check"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    assert!(checked.out.contains("certificate: CN=localhost, valid from "), "{}", checked.out);
    assert!(!checked.out.contains("warning"), "{}", checked.out);

    let process = Process::start(folder, &[]).await;
    let url = format!("wss://localhost:{}/ws", process.addr.port());
    let shown = [
        "--ca",
        "tls/ca.pem",
        "--client-cert",
        "tls/agent-7.pem",
        "--client-key",
        "tls/agent-7.key.pem",
    ];
    let listen =
        [&["listen", "--url", &url, "--count", "1", "--answer", "yes"], &shown[..]].concat();
    let mut listener = conexus(folder, &listen).spawn().unwrap();
    let mut out = BufReader::new(listener.stdout.take().unwrap()).lines();
    let did = soon("its DID", out.next_line()).await.unwrap().unwrap();
    let sent = run(folder, &[&["send", "--url", &url, &did], &shown[..]].concat()).await;
    assert_eq!(sent.code, Some(0), "{}", sent.err);
    assert!(sent.out.contains("ANSWER"), "{}", sent.out);
    assert!(soon("its end", listener.wait()).await.unwrap().success());

    let without = run(folder, &["send", "--url", &url, &did, "--ca", "tls/ca.pem"]).await;
    assert_ne!(without.code, Some(0));
    assert!(without.err.contains("a client certificate is required"), "{}", without.err);
    let untrusted = run(folder, &["send", "--url", &url, &did]).await;
    assert!(untrusted.err.contains("an authority that is not trusted here"), "{}", untrusted.err);

    let agents = run(folder, &[&["agents", "--url", &url], &shown[..]].concat()).await;
    assert_eq!(agents.code, Some(0), "{}", agents.err);

    // The admin listener: by the configuration it knows that it is https, but not whom to trust.
    let admin = format!("https://localhost:{}/", process.admin.port());
    let hooks = run(folder, &["hooks", "--admin", &admin, "--ca", "tls/ca.pem"]).await;
    assert_eq!(hooks.code, Some(0), "{}", hooks.err);
    let set = format!("admin.listen=127.0.0.1:{}", process.admin.port());
    let hooks = run(folder, &["hooks", "--set", &set, "--ca", "tls/ca.pem"]).await;
    assert_eq!(hooks.code, Some(0), "{}", hooks.err);
    let hooks = run(folder, &["hooks", "--admin", &admin]).await;
    assert_ne!(hooks.code, Some(0));

    let load =
        ["load", "route", &url, "--pairs", "2", "--seconds", "0.2", "--warmup", "0", "--quiet"];
    let load = run(folder, &[&load, &shown[..]].concat()).await;
    assert_eq!(load.code, Some(0), "{}", load.err);
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn a_faulty_certificate_is_found_before_the_start_with_file_and_setting() {
    let pki = Pki::new();
    let folder = pki.folder.path();
    write(&pki.path("gateway.toml"), TOML);
    std::fs::create_dir(folder.join("tls")).unwrap();
    let good = pki.authority.server("good");
    let other = pki.authority.server("other");
    let chain = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (certificate, key, said) in [
        ("", &*good.key, "tls.certificate: FOLDER/tls/cert.pem: has no certificate"),
        (&*good.certificate, "", "tls.key: FOLDER/tls/key.pem: has no private key"),
        (
            &good.certificate,
            &other.key,
            "tls.key: FOLDER/tls/key.pem is not the key of the certificate in FOLDER/tls/cert.pem",
        ),
        (
            chain,
            &good.key,
            "tls.certificate: FOLDER/tls/cert.pem: the first certificate cannot be read",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n?",
            &good.key,
            "tls.certificate: FOLDER/tls/cert.pem: is no valid PEM",
        ),
        (&good.certificate, encrypted, "tls.key: FOLDER/tls/key.pem: the key is encrypted"),
    ] {
        write(&folder.join("tls/cert.pem"), certificate);
        write(&folder.join("tls/key.pem"), key);
        let said = said.replace("FOLDER", folder.to_str().unwrap());
        for command in ["check", "run"] {
            let ended = run(folder, &[command]).await;
            assert_eq!(ended.code, Some(1), "{command}: {said}");
            let all = format!("{}{}", ended.out, ended.err);
            assert!(all.contains(&said), "{command} should say {said:?}:\n{all}");
        }
    }
    std::fs::remove_file(folder.join("tls/key.pem")).unwrap();
    let ended = run(folder, &["check"]).await;
    assert!(ended.out.contains("tls/key.pem cannot be read"), "{}", ended.out);
}

#[tokio::test]
async fn oddities_of_certificates_are_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let pki = Pki::new();
    let folder = pki.folder.path();
    std::fs::create_dir(folder.join("tls")).unwrap();
    let more = "[server]\npublic_urls = [\"wss://gateway.example/ws\"]\n";
    write(&pki.path("gateway.toml"), &format!("{more}{TOML}"));
    crate::support::pki::install(&folder.join("tls"), &pki.authority.expired());
    let key = folder.join("tls/key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let checked = run(folder, &["check"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    for said in [
        "the certificate of CN=expired expired at 2021-01-01T00:00:00Z",
        "is not for gateway.example, which server.public_urls names",
        "is open to every user of the machine (mode 644)",
    ] {
        assert!(checked.out.contains(said), "{said}: {}", checked.out);
    }
    let set = ["check", "--set", "server.listen=0.0.0.0:8000"];
    write(&pki.path("gateway.toml"), more);
    let checked = run(folder, &set).await;
    assert!(checked.out.contains("NO TLS: server.listen (0.0.0.0:8000)"), "{}", checked.out);
}
