//! A load balancer as small as can be: new connections go to the first gateway that says it is ready.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::support::gateway::Background;

/// How often it asks.
const EVERY: Duration = Duration::from_millis(50);

/// See the [module](self). It ends with this.
pub(crate) struct Balancer {
    addr: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    running: Mutex<Vec<Background>>,
}

impl Balancer {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self { addr, listener: Mutex::new(Some(listener)), running: Mutex::default() }
    }

    /// What agents dial.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    /// Begins to pass connections on.
    pub(crate) fn serve(&self, gateways: Vec<SocketAddr>) {
        let listener = self.listener.lock().unwrap().take().expect("it serves once");
        let target = Arc::new(Mutex::new(gateways[0]));
        let chosen = Arc::clone(&target);
        let choosing = Background::spawn(async move {
            loop {
                for &gateway in &gateways {
                    if is_ready(gateway).await {
                        *chosen.lock().unwrap() = gateway;
                        break;
                    }
                }
                sleep(EVERY).await;
            }
        });
        let accepting = Background::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                let gateway = *target.lock().unwrap();
                // They end with their connections.
                tokio::spawn(pass(agent, gateway));
            }
        });
        self.running.lock().unwrap().extend([choosing, accepting]);
    }
}

async fn is_ready(gateway: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(gateway).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer.ends_with(b"200"))
    };
    asked.await.unwrap_or(false)
}

/// Either direction by itself: what one side has said arrives, also once it takes nothing more.
async fn pass(agent: TcpStream, gateway: SocketAddr) {
    let Ok(gateway) = TcpStream::connect(gateway).await else { return };
    for stream in [&agent, &gateway] {
        let _ = stream.set_nodelay(true);
    }
    let (from_agent, to_agent) = agent.into_split();
    let (from_gateway, to_gateway) = gateway.into_split();
    tokio::join!(copy(from_agent, to_gateway), copy(from_gateway, to_agent));
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // Who takes nothing more may still have something to say.
        let _ = to.write_all(&buffer[..length]).await;
    }
    let _ = to.shutdown().await;
}
