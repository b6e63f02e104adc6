//! The first hook of the guide, and the little agent that it takes or refuses.

use super::{failed, printed, says};
use crate::support::{
    process::{Process, conexus, folder_with},
    soon,
};

const CONFIG: &str = r#"
[hook.members]
use    = "script:members"
config = { capability = "chat" }

[[chain.on_register]]
hook = "members"
"#;

const MEMBERS: &str = r#"
fn on_register(event) {
    let agent = event.agent;
    if event.credentials == "sesame" && agent.name == "A" && agent.attribute("region") == "eu=1" {
        return allow();
    }
    if !agent.has_capability(config.capability) {
        return deny("denied", `the capability ${config.capability} is required`);
    }
}
"#;

#[tokio::test]
async fn the_little_agent_publishes_and_presents_what_it_is_told_to() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/members.rhai", MEMBERS)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let url = format!("ws://{}/ws", gateway.addr);
    let listen = ["listen", "--count", "0", "--url", &url];
    let refused = failed(folder.path(), &listen).await;
    says(&refused.err, &["the capability chat is required"]);

    let member = ["--capability", "sing", "--capability", "chat"];
    let taken = printed(folder.path(), &[&listen[..], &member].concat()).await;
    assert!(taken.starts_with("did:key:z"), "{taken}");

    let named = [&listen[..], &["--name", "A", "--attribute", "region=eu=1"]].concat();
    failed(folder.path(), &named).await;
    printed(folder.path(), &[&named[..], &["--credentials", "sesame"]].concat()).await;
    let mut secretive = conexus(folder.path(), &named);
    secretive.env("CONEXUS_CREDENTIALS", "sesame");
    let ended = soon("the command to end", secretive.output()).await.unwrap();
    assert!(ended.status.success(), "{ended:#?}");
}
