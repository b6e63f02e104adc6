//! The Rhai host: from files in the scripts folder to hooks that the chain can call.
//!
//! [`Scripts`] knows the folder and the limits. It reads and checks a script with the modules it
//! imports ([`Script`]); with a configuration that becomes a [`ScriptHook`], which is immutable: an
//! engine, the compiled bodies, the configuration. A call has a scope of its own and takes no lock,
//! so calls run side by side. Whatever a script asks for goes through the `Services` of its call.
//!
//! | module | what it is |
//! | --- | --- |
//! | `scripts`, `sources` | reading: names, the folder `lib`, who imports whom |
//! | `check` | what a script must look like, before anything of it runs |
//! | `instance` | its top level, run once; its hooks, called |
//! | `tail` | what a last statement with a semicolon gives back |
//! | `meter` | what one call may use: operations, time, memory |
//! | `engine` | the language: packages, limits, what is left out |
//! | `bind` | what scripts see: events, verdicts, host functions |
//! | `fault` | errors with their place and the script's own stack |
//! | [`tests`] | policy tests: `fn test_*` with fabricated events and a virtual clock |

mod bind;
mod check;
mod engine;
mod fault;
mod instance;
mod meter;
mod scripts;
mod sources;
mod tail;
pub mod tests;
#[cfg(test)]
mod unit;

pub use fault::{ScriptError, ScriptFault};
pub use instance::ScriptHook;
pub use meter::STACK_BYTES;
pub use scripts::{Script, Scripts};
