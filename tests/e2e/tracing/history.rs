//! `GET /api/v1/history`: what became of agents lately.

use conexus_protocol::{Identity, Subprotocol};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::{
    agent::{Agent, dial_with},
    http,
    process::{Process, folder_with},
    soon,
};

async fn history(gateway: &Process, query: &str) -> Vec<Value> {
    let (status, body) = http::get(gateway.admin, &format!("/api/v1/history?{query}"), &[]).await;
    assert_eq!(status, 200, "{body}");
    body["entries"].as_array().unwrap().clone()
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

async fn agent(gateway: &Process, identity: Identity) -> Agent {
    let (subprotocol, socket) = (Subprotocol::V1, TcpSocket::new_v4().unwrap());
    let (socket, _) = dial_with(gateway.addr, &[subprotocol.as_str()], socket).await.unwrap();
    Agent { identity, socket, subprotocol, nonce: None, url: String::new() }
}

#[tokio::test]
async fn all_that_became_of_an_agent_is_there_newest_first() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let identity = Identity::from_seed(&[7; 32]);
    let did = identity.did().to_owned();

    let mut imposter = agent(&gateway, Identity::generate()).await;
    let draft = conexus_protocol::Draft::new(&did, agent_register(&identity));
    let claimed = draft.sign(&imposter.identity).replace(imposter.identity.did(), &did);
    imposter.send(claimed).await;
    imposter.refusal().await;

    let mut first = agent(&gateway, Identity::from_seed(&[7; 32])).await;
    first.register().await;
    first.register().await;
    let mut second = agent(&gateway, Identity::from_seed(&[7; 32])).await;
    second.register().await;
    assert_eq!(first.close().await.0, 4003);
    second.socket.close(None).await.unwrap();
    soon("the end of the session", async {
        while history(&gateway, &format!("agent={did}&kind=left")).await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let other = gateway.agent().await;

    let entries = history(&gateway, &format!("agent={did}")).await;
    // The newer session claims the key before the older one has taken its leave.
    let mut seen = kinds(&entries);
    assert_eq!((seen[0], seen[5]), ("left", "refused"), "{seen:?}");
    seen.sort_unstable();
    assert_eq!(seen, ["left", "refused", "registered", "registered", "renewed", "replaced"]);
    assert!(entries.iter().all(|entry| entry["did"] == *did && entry["subprotocol"] == "ioap.v1"));
    assert_eq!((&entries[0]["reason"], &entries[0]["session"]), (&"closed".into(), &"s2".into()));
    let refused = &entries[5];
    assert_eq!((&refused["code"], &refused["session"]), (&4001.into(), &().into()));
    assert_eq!(refused["reason"], "signature does not verify: signature");

    assert_eq!(kinds(&history(&gateway, "limit=1").await), ["registered"]);
    assert_eq!(history(&gateway, "limit=1").await[0]["did"], *other.did());
    assert_eq!(kinds(&history(&gateway, "kind=renewed").await), ["renewed"]);
    assert_eq!(history(&gateway, "").await.len(), 7);
    for (query, status) in [("kind=nonsense", 400), ("agent=x", 422), ("limit=-1", 400)] {
        let path = format!("/api/v1/history?{query}");
        assert_eq!(http::get(gateway.admin, &path, &[]).await.0, status, "{query}");
    }
}

fn agent_register(identity: &Identity) -> conexus_protocol::Register {
    conexus_protocol::Register {
        public_key: identity.key().base58(),
        nonce: None,
        audience: None,
        metadata: None,
        credentials: None,
    }
}
