//! Peers against each other without a gateway and without a network: a stack and a gateway in memory, on a
//! clock that stands still unless all wait.

mod connecting;
mod real;
mod requests;
mod stack;
mod staying;
mod town;
