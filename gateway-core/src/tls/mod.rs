//! TLS on the gateway's listeners: one certificate, which may be another one a moment later.
//!
//! [`ServerTls`] holds what new handshakes use. A connection keeps what its own handshake used, so that a
//! renewed certificate ends nobody. `files` reads PEM and says which file is wrong in what; `facts`
//! is what operators are told of a certificate; `client` what policy is told of a client's. `http`
//! makes the handshakes, `reload` brings the renewed files.

pub(crate) mod client;
mod facts;
mod files;
mod outgoing;
mod server;

pub use self::{
    facts::{Concern, Facts},
    files::TlsError,
    server::{Candidate, Refusal, ServerTls},
};
pub(crate) use self::{
    files::File,
    outgoing::client_config,
    server::{Side, named},
};
