//! The hook contract of the Conexus gateway: planned, and empty so far.
//!
//! A hook is where an operator's policy decides: who may connect and register, what may be routed
//! where, when a silent agent is gone. This crate will hold all that a native plugin needs to be
//! one: the trait that it implements, the events that it is shown, the verdicts that it may give,
//! and the binary interface over which the gateway loads it. Until then, the points at which the
//! gateway asks are `conexus_gateway::hooks`, for programs that embed it.

#![forbid(unsafe_code)]
