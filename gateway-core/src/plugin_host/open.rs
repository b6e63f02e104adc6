//! Loads a library and takes its descriptor: all of this crate's unsafe code.

use std::path::Path;

use conexus_plugin_api::{
    Capabilities,
    abi::Entry,
    host::{Library, Mismatch},
};
use libloading::os::unix::{self, RTLD_LOCAL, RTLD_NOW};

/// Why a copy could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The system's loader says why.
    Loader(String),
    /// It is loaded, but cannot be used.
    Mismatch(Mismatch),
}

/// Loads a copy that `image` has found whole and with that function in it. From here on it stays
/// in memory, whether it is of use or not.
pub(super) fn open(copy: &Path, symbol: &str, offered: Capabilities) -> Result<Library, OpenError> {
    let loader = |error: libloading::Error| OpenError::Loader(describe(&error));
    // All of its symbols are resolved now, not in the middle of a call, and are seen by no other
    // library.
    // SAFETY: its initializers run, which are the plugin's own: an operator has named the file,
    // and its content was checked against the pin where there is one.
    let library =
        unsafe { unix::Library::open(Some(copy), RTLD_NOW | RTLD_LOCAL) }.map_err(loader)?;
    // SAFETY: a symbol of this name is a function of this type: `declare_plugin!` makes it, and
    // `image` saw that it is one.
    let entry = unsafe { library.get::<Entry>(symbol.as_bytes()) }.map(|entry| *entry);
    // Never unloaded: threads, destructors of thread locals and handles may lead into it.
    std::mem::forget(library);
    let descriptor = entry.map_err(loader)?();
    // SAFETY: it is a static of a library that stays, which `Library` reads step by step.
    unsafe { Library::loaded(descriptor, offered) }.map_err(OpenError::Mismatch)
}

/// What the loader says, which libloading keeps as the cause.
fn describe(error: &libloading::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
