//! The audit: nothing that was changed is missing from it.

use std::{fs, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, unix::pipe},
};

use super::*;
use crate::support::{http, soon};

/// A configuration file that is read until `let_go` of: a pipe.
struct SlowFile(std::path::PathBuf);

impl SlowFile {
    async fn in_folder_of(desk: &Desk) -> Self {
        let path = desk.folder.path().join("conf.d/slow.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let made = tokio::process::Command::new("mkfifo").arg(&path).status().await.unwrap();
        assert!(made.success());
        Self(path)
    }

    /// Once somebody reads it.
    async fn opened(&self) -> pipe::Sender {
        soon("the file to be read", async {
            loop {
                match pipe::OpenOptions::new().open_sender(&self.0) {
                    Ok(sender) => return sender,
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        })
        .await
    }

    /// Whoever reads it is at its end, and nobody finds it again.
    fn let_go(self, sender: pipe::Sender) {
        fs::remove_file(self.0).unwrap();
        drop(sender);
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_leaves_its_entry_all_the_same() {
    let desk = Desk::open().await;
    let slow = SlowFile::in_folder_of(&desk).await;
    let mut hasty = TcpStream::connect(desk.gateway.admin).await.unwrap();
    let request = b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    hasty.write_all(request).await.unwrap();
    let reading = slow.opened().await;
    drop(hasty);
    // The gateway sees its end before that of the reload.
    desk.client().get("/api/v1/nodes").await.is(200);
    slow.let_go(reading);
    soon("the entry", async {
        loop {
            let (_, trail) = http::get(desk.gateway.admin, "/api/v1/audit", &[]).await;
            match trail["entries"].as_array().unwrap().first() {
                Some(entry) => {
                    break assert_eq!(
                        (&entry["action"], &entry["outcome"]),
                        (&json!("reload"), &json!("done"))
                    );
                }
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    })
    .await;
    assert_eq!(desk.gateway.generation().await, 2);
}

#[tokio::test]
async fn a_token_that_may_only_read_pushes_nothing_out() {
    let (desk, read, operate) = Desk::closed().await;
    let (reading, operating) = (desk.client().with(&read), desk.client().with(&operate));
    for _ in 0..20 {
        reading.ask("POST", "/api/v1/reload", None).await.fault(403);
    }
    operating.ask("POST", "/api/v1/reload", None).await.is(200);
    let trail = operating.get("/api/v1/audit").await.is(200);
    let entries = trail["entries"].as_array().unwrap();
    let of = |who| entries.iter().filter(|entry| entry["who"] == who).count();
    // One for each second that it took.
    assert!((1..15).contains(&of("board")), "{trail}");
    assert_eq!(of("ops"), 1);
}
