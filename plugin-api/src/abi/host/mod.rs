//! The gateway's half: it checks descriptors, makes instances, calls them, and answers them.
//!
//! Safe from the outside, apart from the pointer to a descriptor that a library gave. What a
//! plugin hands in is checked wherever it can be; a pointer that leads to nowhere cannot.

mod decode;
mod event;
mod frame;
mod instance;
mod library;
mod table;
#[cfg(all(test, feature = "testkit"))]
mod tests;

pub use instance::{CallFault, Instance, Returned};
pub use library::{Library, Mismatch};
