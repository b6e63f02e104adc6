//! Spans by OpenTelemetry's protocol, as a collector gets them; and without the feature a warning.

use crate::support::process::{folder_with, run};

#[tokio::test]
async fn an_endpoint_is_of_use_only_to_a_binary_with_the_feature() {
    let folder = folder_with(&[]);
    let set = "telemetry.otlp_endpoint=http://127.0.0.1:4318";
    let checked = run(folder.path(), &["check", "--set", set]).await;
    let warned = checked.out.contains("built without the feature otlp");
    assert_eq!(warned, cfg!(not(feature = "otlp")), "{}", checked.out);
    for (wrong, said) in [
        ("localhost:4318", "scheme"),
        ("ws://127.0.0.1", "expected http or https"),
        ("http://me:hunter2@127.0.0.1", "user info"),
        ("collector", "not a URL"),
    ] {
        let set = format!("telemetry.otlp_endpoint=\"{wrong}\"");
        let checked = run(folder.path(), &["check", "--set", &set]).await;
        assert_ne!(checked.code, Some(0), "{wrong}");
        assert!(checked.out.contains(said) && !checked.out.contains("hunter2"), "{}", checked.out);
    }
}

#[cfg(feature = "otlp")]
mod with_the_feature {
    use conexus_protocol::Identity;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use crate::support::{
        process::{Process, folder_with},
        soon,
    };

    /// A collector that keeps the bodies of requests as they are.
    async fn request(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
        soon("spans", async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            let (head, length) = loop {
                assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "a whole head");
                let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8(received.drain(..end + 4).collect()).unwrap();
                let head = head.to_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap();
                break (head.clone(), length.split('\r').next().unwrap().parse().unwrap());
            };
            while received.len() < length {
                assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "a whole body");
            }
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            (head, received)
        })
        .await
    }

    fn has(body: &[u8], part: &[u8]) -> bool {
        body.windows(part.len()).any(|bytes| bytes == part)
    }

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let pairs = hexadecimal.as_bytes().chunks(2);
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        pairs.map(|digits| pair(digits).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_collector_gets_the_spans_of_messages_in_their_senders_traces() {
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = collector.local_addr().unwrap();
        let folder = folder_with(&[]);
        let endpoint = format!("telemetry.otlp_endpoint=http://{address}");
        let gateway = Process::start(
            folder.path(),
            &["--set", &endpoint, "--set", "log.level=conexus_gateway=trace"],
        )
        .await;
        let (mut a, mut b) = (gateway.agent().await, gateway.agent().await);
        a.send_offer(&b.did(), "s3cret").await;
        b.text().await;
        // Its trace is the one that the log shows.
        let line = gateway.logged("message delivered").await;
        let trace = line.split("message delivered trace=").nth(1).unwrap();
        let trace = bytes(trace.split(' ').next().unwrap());

        let (head, body) = request(&collector, "200 OK").await;
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        assert!(has(&body, &trace) && has(&body, b"delivered") && has(&body, b"service.name"));
        assert!(has(&body, a.did().as_bytes()) && has(&body, b.did().as_bytes()));
        assert!(!has(&body, b"s3cret"), "no payload is told");

        // What is left at the end is sent.
        a.send_offer(Identity::generate().did(), "x").await;
        a.refusal().await;
        let stopped = tokio::spawn(gateway.stop());
        let (_, body) = request(&collector, "200 OK").await;
        assert!(has(&body, b"unknown_agent"));
        assert!(stopped.await.unwrap().success());
    }

    #[tokio::test]
    async fn a_collector_that_refuses_is_complained_of_and_harms_nobody() {
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint =
            format!("telemetry.otlp_endpoint=http://{}", collector.local_addr().unwrap());
        let folder = folder_with(&[]);
        let gateway = Process::start(folder.path(), &["--set", &endpoint]).await;
        let mut a = gateway.agent().await;
        let itself = a.did();
        for _ in 0..2 {
            a.send_offer(&itself, "x").await;
            a.text().await;
            request(&collector, "400 Bad Request").await;
        }
        let line = gateway.logged("spans were not sent").await;
        assert!(line.contains("failed=1"), "{line}");
        a.send_offer(&itself, "x").await;
        a.text().await;
        drop(collector);
        assert!(gateway.stop().await.success());
    }
}
