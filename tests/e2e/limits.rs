//! What one agent and one address may have of the gateway, whose word about an address counts, and
//! what becomes of whoever is slow or of a machine that has no more to give.

mod addresses;
mod descriptors;
mod disk;
mod origins;
mod proxies;
mod rates;
mod slow;

use std::net::{IpAddr, SocketAddr};

use conexus_protocol::{Identity, Subprotocol};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Error;

use crate::support::{
    agent::{Agent, dial_over},
    http,
    process::Process,
    soon,
};

/// A connection from one of this machine's own addresses.
async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let from: IpAddr = from.parse().unwrap();
    let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind((from, 0).into()).unwrap();
    soon("a connection", socket.connect(to)).await.unwrap()
}

/// An agent from there, not registered yet; or the status and body that refused it.
async fn agent_over(
    stream: TcpStream,
    headers: &[(&'static str, &str)],
) -> Result<Agent, (u16, Value)> {
    let addr = stream.peer_addr().unwrap();
    match dial_over(stream, &["ioap.v1.1"], headers).await {
        Ok(opened) => {
            Ok(Agent::upgraded(addr, Subprotocol::V1_1, Identity::generate(), opened).await)
        }
        Err(error) => match *error {
            Error::Http(response) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body = serde_json::from_slice(body).unwrap_or(Value::Null);
                Err((response.status().as_u16(), body))
            }
            other => panic!("{other}"),
        },
    }
}

async fn agent_from(from: &str, to: SocketAddr) -> Result<Agent, (u16, Value)> {
    agent_over(connect_from(from, to).await, &[]).await
}

/// Where the gateway takes an agent to be.
async fn address_of(gateway: &Process, agent: &Agent) -> String {
    let path = format!("/api/v1/agents/{}", agent.did());
    let (status, shown) = http::get(gateway.admin, &path, &[]).await;
    assert_eq!(status, 200, "{shown}");
    shown["address"].as_str().unwrap().to_owned()
}

/// A gateway with these settings.
async fn gateway_with(settings: &[&str]) -> (tempfile::TempDir, Process) {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let gateway = Process::start(folder.path(), &arguments).await;
    (folder, gateway)
}
