//! The admin API: who may ask, and what comes of it.

mod access;
mod agents;
mod audit;
pub(crate) mod client;
mod node;
mod policy;

use conexus_protocol::Identity;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::client::Client;
use crate::support::process::{Process, folder_with, run, write};

const CONFIG: &str = r#"
[policy]
watch = false

[http]
agents_token = "hunter2"

[hook.a]
use = "script:a"

[[chain.on_route]]
hook = "a"

[hook.leaving]
use = "script:leaving"

[[chain.on_disconnect]]
hook = "leaving"
"#;

const SCRIPT: &str = "fn on_route(event) { deny(\"denied\", \"not today\") }\n";

/// Says of every end what it was.
const LEAVING: &str = "fn on_disconnect(event) { log(`left: ${event.reason}`) }\n";

const FILES: [(&str, &str); 3] =
    [("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT), ("scripts/leaving.rhai", LEAVING)];

/// A gateway with a hook that lets no message pass.
struct Desk {
    folder: TempDir,
    gateway: Process,
}

impl Desk {
    /// Without tokens.
    async fn open() -> Self {
        let folder = folder_with(&FILES);
        let gateway = Process::start(folder.path(), &[]).await;
        Self { folder, gateway }
    }

    /// With a token for each scope: read, operate.
    async fn closed() -> (Self, String, String) {
        let folder = folder_with(&FILES);
        let read = new_token(&folder, "board", "read").await;
        let operate = new_token(&folder, "ops", "operate").await;
        let gateway = Process::start(folder.path(), &[]).await;
        (Self { folder, gateway }, read, operate)
    }

    fn client(&self) -> Client<'_> {
        Client::new(self.gateway.admin)
    }
}

/// Makes a token as operators do, and puts its lines into the configuration.
async fn new_token(folder: &TempDir, name: &str, scope: &str) -> String {
    let made = run(folder.path(), &["token", "--name", name, "--scope", scope]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let lines = made.err.split_once(&format!("[admin_token.{name}]")).expect("the lines").1;
    let lines = format!("[admin_token.{name}]{lines}");
    write(&folder.path().join(format!("conf.d/{name}.toml")), &lines);
    made.out.trim().to_owned()
}
