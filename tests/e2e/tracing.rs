//! What the gateway tells of what happens: events as they happen, the history, trace ids.

mod events;
mod history;
