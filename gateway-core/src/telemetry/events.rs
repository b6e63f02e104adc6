//! Events: what happens, for whoever listens right now.
//!
//! Nobody listening costs one look at a number. Each event is written down once, as the frame of
//! server-sent events that all its listeners get, and lies in a bounded ring until the slowest of
//! them has taken it or was overtaken; one that was is told how much it missed. Of messages there
//! are events only about agents that somebody follows, and samples for the picture of who talks to
//! whom (`flow`), which are added up away from the messages' way, by [`Hub::serve`]. What agents can
//! make any number of (messages, refused registrations) has a budget, and what is over it is counted.

mod budget;
mod frame;
mod hub;
mod listener;
mod message;
mod registry;
#[cfg(test)]
mod tests;
mod topics;

use conexus_protocol::Timestamp;

pub(super) use self::budget::Budget;
#[cfg(feature = "otlp")]
pub(super) use self::message::shown;
pub(crate) use self::{
    hub::Hub,
    listener::Listener,
    message::{Outcome, Passing},
    topics::{Topic, Topics},
};

pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_unix_millis()
}
