//! What carries the gateway to where it runs, and what explains it: `deploy/`, the JSON schema, the
//! operator's documentation. All is checked with what can be had without a cluster or an engine.

mod compose;
mod docs;
mod health;
mod image;
mod kubernetes;
mod python;
mod schema;
mod systemd;
