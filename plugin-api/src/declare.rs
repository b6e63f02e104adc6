//! From a plugin's type to what a gateway loads.

use crate::{Plugin, abi};

/// A plugin linked into the program: what [`declare_plugin!`](crate::declare_plugin) gives as
/// `plugin()`.
#[derive(Debug, Clone, Copy)]
pub struct StaticPlugin(&'static abi::Descriptor);

/// Where the descriptor of a type lies.
struct Described<P>(std::marker::PhantomData<P>);

impl<P: Plugin> Described<P> {
    const DESCRIPTOR: &'static abi::Descriptor = &abi::descriptor::<P>(abi::About {
        name: env!("CARGO_CRATE_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        unwinds: cfg!(panic = "unwind"),
    });
}

impl StaticPlugin {
    /// A plugin of this program that has no crate of its own.
    #[must_use]
    pub const fn of<P: Plugin>() -> Self {
        Self(Described::<P>::DESCRIPTOR)
    }

    /// For the macro.
    ///
    /// # Safety
    /// The descriptor is one that [`abi::descriptor`] made.
    #[doc(hidden)]
    #[must_use]
    #[allow(unsafe_code, reason = "called by the macro alone")]
    pub const unsafe fn new(descriptor: &'static abi::Descriptor) -> Self {
        Self(descriptor)
    }

    /// What it says of itself.
    #[must_use]
    pub const fn descriptor(self) -> &'static abi::Descriptor {
        self.0
    }
}

/// Makes a crate a plugin: once, for its type that implements [`Plugin`](crate::Plugin).
///
/// It exports the one C function that a gateway looks for, `conexus_plugin_` and the crate's name,
/// so that several plugins fit into one program; and it defines `pub fn plugin()`, for whoever
/// links the crate instead of loading it. The crate needs
///
/// ```toml
/// [lib]
/// crate-type = ["cdylib", "rlib"]
/// ```
///
/// and must not be built with `panic = "abort"`, which gateways refuse to load. Since the export
/// counts as unsafe code, a crate can `deny(unsafe_code)` but not `forbid` it.
#[macro_export]
macro_rules! declare_plugin {
    ($Plugin:ty) => {
        #[doc(hidden)]
        static CONEXUS_PLUGIN: $crate::abi::Descriptor =
            $crate::abi::descriptor::<$Plugin>($crate::abi::About {
                name: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                unwinds: cfg!(panic = "unwind"),
            });

        /// This plugin, for a program that links it.
        #[must_use]
        #[allow(unsafe_code, reason = "a descriptor, as it has to be")]
        pub fn plugin() -> $crate::StaticPlugin {
            // SAFETY: it is made just above.
            unsafe { $crate::StaticPlugin::new(&CONEXUS_PLUGIN) }
        }

        const _: () = {
            // SAFETY: no other symbol has this crate's name in it.
            #[allow(unsafe_code, reason = "the one symbol that a gateway looks for")]
            #[unsafe(export_name = concat!("conexus_plugin_", env!("CARGO_CRATE_NAME")))]
            extern "C" fn conexus_plugin() -> *const $crate::abi::Descriptor {
                &raw const CONEXUS_PLUGIN
            }
        };
    };
}
