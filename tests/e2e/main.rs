//! End to end over real sockets: every duty of the gateway has its test here.
//!
//! One binary, since linking is what costs. `support` is what the tests share; the others are named
//! for what they are about.

#![allow(clippy::unwrap_used, reason = "what the tests share is test code, too")]

mod support;

mod admin;
mod bad_input;
mod cluster;
mod crowd;
mod dashboard;
mod decisions;
mod delivery;
mod demo;
mod drain;
mod foreign;
mod hooks;
mod ice;
mod javascript;
mod limits;
mod load;
mod mailbox;
mod metrics;
mod observers;
mod p2p;
mod packages;
mod policy_cli;
mod presence;
mod process;
mod registration;
mod reload;
mod rulings;
mod sdk;
mod searching;
mod secrets;
mod service;
mod stopping;
mod tls;
mod tracing;
mod watching;
mod world;
