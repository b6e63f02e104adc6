//! TLS: who is served over it, who is not, and what becomes of messages; another certificate while the
//! gateway runs; clients' certificates; the commands.

mod clients;
mod commands;
mod delivery;
mod renewal;
mod serving;
