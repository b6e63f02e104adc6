//! What the gateway tells of what happens: events as they happen, the history, trace ids.

mod command;
mod events;
mod history;
mod ids;
mod otlp;
