//! Native plugins: from a file, or linked into the program, to hooks that can be called.
//!
//! A library's file is read and checked as bytes before any of it runs; what runs is a private
//! copy, named by its content's hash, so that the file may be replaced at any time. Libraries are
//! never unloaded: the same content is the same library, and there is a cap on how many a process
//! may load. `hooks` loads instances through [`Libraries`] and calls them through [`NativeHook`].
//!
//! `open` has the only unsafe code of this crate.

mod copies;
mod error;
mod image;
mod libraries;
pub(crate) mod linked;
mod native;
#[allow(unsafe_code, reason = "loading a library is; each block has its proof")]
mod open;
#[cfg(test)]
mod tests;

pub use error::LoadError;
pub use libraries::{Bounds, Libraries, LoadedLibrary, PluginSource};
pub use native::NativeHook;
