//! What happens, as lines of JSON in files that rotate.
//!
//! The chains say what is recorded: every point whose chain names the hook. It never decides
//! anything, and never waits for the disk: a thread of its own writes, and what finds no room in
//! its queue is dropped and counted.
//!
//! ```toml
//! [hook.audit]
//! use    = "plugin:audit-log"
//! config = { path = "/var/log/conexus/audit.jsonl", max_bytes = "100MiB", keep = 10 }
//!
//! [[chain.on_registered]]
//! hook = "audit"
//!
//! [[chain.on_disconnect]]
//! hook = "audit"
//!
//! [[chain.on_hook_error]]
//! hook = "audit"
//! ```
//!
//! # Configuration
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `path` | required | the file, best absolute; its folder must be there. Made with mode 0600 |
//! | `max_bytes` | `"64MiB"` | at this size it becomes `path.1`, `path.1` becomes `path.2`, and so on |
//! | `keep` | `5` | how many of those there are; 0 keeps none |
//! | `payload` | `false` | whether payloads of messages are recorded, at on_route and on_undeliverable |
//! | `fsync` | `false` | whether each batch of lines is on the disk before the next is written |
//! | `queue` | `8192` | lines that may wait for the disk |
//! | `queue_bytes` | `"16MiB"` | bytes that may |
//!
//! # Lines
//!
//! ```json
//! {"at":"2026-01-02T03:04:05.678Z","point":"on_registered","generation":3,
//!  "agent":{"did":"did:key:z…","session":7,"address":"192.0.2.1:50000","labels":{"team":"red"}},
//!  "renewal":false}
//! ```
//!
//! (in one line). All have `at`, `point` and `generation`; most `agent`; messages `message` with
//! `id`, `type`, `from`, `to` and `bytes`. Neither credentials nor headers nor queries are ever
//! recorded: all of them may hold secrets. After lines were dropped, a line
//! `{"at":…,"dropped":N}` says so.
//!
//! A file that was moved away, by logrotate or by another gateway's rotation, is noticed and begun
//! anew. At verdict points the hook always says `continue`, and it is told before the decision is
//! made: what became of a message, the gateway's own decision log says.
//!
//! Counters: `dropped` (no room in the queue), `lost` (could not be written).

#![deny(unsafe_code)]

mod config;
mod file;
mod plugin;
mod queue;
mod record;
mod writer;

pub use plugin::AuditLog;

conexus_plugin_api::declare_plugin!(AuditLog);
