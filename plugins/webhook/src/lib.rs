//! An HTTP service decides.
//!
//! At `on_register` the question waits for its answer in a thread of the plugin's own, so that
//! nobody else waits; at `on_route` it is asked on the spot, for which the hook has to be
//! `blocking`.
//!
//! ```toml
//! [hook.backend]
//! use = "plugin:webhook"
//!
//! [hook.backend.config]
//! url         = "https://policy.internal/conexus"
//! timeout     = "2s"
//! secret_file = "webhook.secret"
//! cache       = { ttl = "30s", key = ["did", "labels"] }
//!
//! [[chain.on_register]]
//! hook     = "backend"
//! budget   = "3s"             # a little over the timeout
//! on_error = "closed"
//! ```
//!
//! # Configuration
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `url` | required | `http` or `https`; no user or password in it |
//! | `timeout` | `"2s"` | for the whole of one request |
//! | `threads` | `4` | requests of on_register at once |
//! | `queue` | `256` | registrations that may wait for a thread; further ones fail |
//! | `response_bytes` | `"64KiB"` | the longest answer |
//! | `headers` | `{}` | further headers |
//! | `token_file` | none | sent as `Authorization: Bearer …` |
//! | `secret_file` | none | signs requests, see below |
//! | `ca_file` | public ones | the certificate authorities, in PEM, to trust in place of the public ones |
//! | `proxy` | none | an HTTP proxy's URL; the environment is not looked at |
//! | `send_credentials` | `false` | whether REGISTER's `credentials` are sent; only over `https` or to this machine |
//! | `send_payload` | `false` | whether messages' payloads are sent |
//! | `cache` | none | see below |
//! | `circuit` | `{ failures = 5, open = "10s" }` | after so many failures in a row requests fail at once for a while; then one is tried |
//!
//! # Requests
//!
//! A POST of JSON; members that do not apply are left out:
//!
//! ```json
//! {"point": "on_route",
//!  "agent": {"did": "did:key:z…", "address": "192.0.2.1", "rate_class": "gold",
//!            "metadata": {"name": "a", "capabilities": ["chat"], "attributes": {}},
//!            "labels": {"team": "red"}},
//!  "renewal": false,
//!  "credentials": "…",
//!  "message": {"id": "…", "type": "OFFER", "from": "did:key:z…", "to": "did:key:z…",
//!              "correlation_id": "…", "bytes": 512, "payload": {},
//!              "target": {"did": "did:key:z…"}}}
//! ```
//!
//! With `secret_file` two headers prove where a request comes from: `x-conexus-timestamp`, in Unix
//! milliseconds, and `x-conexus-signature`, which is `sha256=` and the HMAC-SHA256, in hexadecimal,
//! of the timestamp, a dot, and the body. Refuse old timestamps, and nobody can repeat a request.
//!
//! # Answers
//!
//! 204 means `continue`. 200 comes with JSON, of which only `verdict` is needed:
//!
//! ```json
//! {"verdict": "allow", "labels": {"team": "red"}, "rate_class": "gold"}
//! ```
//!
//! | member | with | |
//! | --- | --- | --- |
//! | `verdict` | | `continue`, `allow` or `deny` |
//! | `code`, `reason` | `deny` | `denied` (default), `rate_limited`, `unknown_agent`, `not_relayed`; a text for people |
//! | `labels`, `rate_class`, `metadata`, `extend_ms` | on_register | as the verdicts `set` and `extend` |
//! | `redirect`, `copy`, `hold_ms` | on_route | a DID, a list of DIDs, a time |
//!
//! Anything else is a failure: another status, a member that is unknown or out of place, too long
//! an answer, none in time. Failures, an open circuit and a full queue fail the hook; what follows
//! is up to the chain's `on_error`.
//!
//! # Cache
//!
//! `cache = { ttl = "30s", entries = 10000, key = [...] }`. The key is what a decision depends on,
//! of `did`, `address`, `metadata`, `labels`, `rate_class`, `type`, `to` and `target`; by default it
//! is all of them. The point, and credentials and payloads where they are sent, are always part of
//! it. Failures are not kept.
//!
//! Counters: `requests`, `failures`, `cached`, `rejected` (circuit open or queue full).

#![deny(unsafe_code)]

mod cache;
mod circuit;
mod client;
mod config;
mod plugin;
mod pool;
mod reply;
mod request;
mod service;

pub use plugin::Webhook;

conexus_plugin_api::declare_plugin!(Webhook);
