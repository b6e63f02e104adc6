//! A network that fails as a test asks: a TCP proxy in front of a server.
//!
//! What was under way when the network fell silent arrives once it speaks again, as TCP has it: a
//! node that was cut off gets all at once what it had been sent before.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::sleep,
};

use super::gateway::Background;

/// Pieces that are on their way at once.
const ON_THE_WAY: usize = 1024;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// They work.
    Open,
    /// Whatever is said comes so much later.
    Slow(Duration),
    /// Nothing gets through, and nobody is told; new ones open all the same.
    Silent,
    /// They are reset, new ones as soon as they are made.
    Cut,
}

/// See the [module](self). It ends with this.
#[derive(Debug)]
pub(crate) struct FaultProxy {
    addr: SocketAddr,
    network: watch::Sender<Network>,
    _accepting: Background,
}

impl FaultProxy {
    /// In front of a server.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (network, state) = watch::channel(Network::Open);
        let accepting = Background::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // They end with their connections, and with the proxy.
                tokio::spawn(serve(client, server, state.clone()));
            }
        });
        Self { addr, network, _accepting: accepting }
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn serve(mut client: TcpStream, server: SocketAddr, mut network: watch::Receiver<Network>) {
    if *network.borrow() == Network::Cut {
        return reset(&client);
    }
    // Where nobody listens there is no connection here either.
    let Ok(mut server) = TcpStream::connect(server).await else { return reset(&client) };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (there, back) = (network.clone(), network.clone());
    tokio::select! {
        () = copy(from_client, to_server, there) => return,
        () = copy(from_server, to_client, back) => return,
        cut = network.wait_for(|network| *network == Network::Cut) => drop(cut),
    }
    reset(&client);
    reset(&server);
}

/// Has it end with a reset, and lose what the kernel still has of it.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Until one of the two ends.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut network: watch::Receiver<Network>,
) {
    // What is slow is not narrow: more is read while what was read before is on its way.
    let (read, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if read.send((Instant::now(), buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writing = async {
        while let Some((read, bytes)) = due.recv().await {
            // Asked only now: what was read while nothing gets through has to wait as well.
            let speaks = network.wait_for(|network| *network != Network::Silent).await;
            let Ok(state) = speaks.map(|network| *network) else { break };
            if let Network::Slow(delay) = state {
                sleep(delay.saturating_sub(read.elapsed())).await;
            }
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    // Whoever has said all has said it once it has arrived.
    tokio::join!(reading, writing);
}
