//! The reference: a relay that forwards by name and does nothing else.
//!
//! It is what a gateway on tokio and tungstenite could be if it had no duties: no checks, no
//! presence, no accounting, no bound on a queue. With it the gateway shares the runtime with its
//! default workers, the allocator, and the profile it is built with; so that what is between the
//! two is what the gateway does. It is a process of its own: the benchmark starts itself anew with
//! the argument `relay`.

mod agents;
mod connection;
mod frame;
mod proof;

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use clap::ValueEnum;
use tokio::net::TcpListener;

use self::{agents::Agents, proof::Gateway};

/// What it does beside forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Mode {
    /// Nothing.
    Plain,
    /// It verifies the signature of each message.
    Verify,
    /// It registers on `ioap.v1.1`, with the cryptography that this takes.
    Register,
}

/// What all connections share.
struct Relay {
    mode: Mode,
    agents: Agents,
    gateway: Gateway,
}

/// Runs until it is killed.
pub(crate) fn run(mode: Mode) -> io::Result<()> {
    // Each connection is an open file, and so it is for the gateway.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(mode))
}

async fn serve(mode: Mode) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener)?;
    let relay = Arc::new(Relay { mode, agents: Agents::default(), gateway: Gateway::generate() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // They end with the process.
        tokio::spawn(connection::serve(Arc::clone(&relay), stream));
    }
}

/// As the gateway does it.
fn announce(listener: &TcpListener) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "relay listening on ws://{}/ws", listener.local_addr()?)?;
    out.flush()
}
