//! A descriptor that has been checked.

use std::{ptr, sync::Arc};

use super::{CallFault, Instance};
use crate::{
    Capabilities, PointSet, StaticPlugin,
    abi::{LAYOUT, types as raw},
    host::Services,
};

/// Why a descriptor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// It gives no descriptor at all.
    #[error("its descriptor is a pointer to nothing ({0:#x})")]
    Pointer(usize),
    /// It gives something else.
    #[error(
        "it is no Conexus plugin: its descriptor begins with {0:02x?}, not with \"CONEXUS\\1\""
    )]
    Magic([u8; 8]),
    /// A descriptor cannot have this size.
    #[error("its descriptor says that it has {found} bytes; one of ABI {major}.{minor} has {expected}", major = raw::MAJOR, minor = raw::MINOR)]
    Size {
        /// As it says.
        found: usize,
        /// As it has to be.
        expected: usize,
    },
    /// Another version.
    #[error("built for ABI {0}.{1}, this gateway speaks {major}.{minor}", major = raw::MAJOR, minor = raw::MINOR)]
    Version(u32, u32),
    /// The same version, but with other types.
    #[error("built for ABI {major}.{minor} with layout {plugin:016x}, this gateway's layout is {LAYOUT:016x}: one of the two was built from a changed conexus-plugin-api", major = raw::MAJOR, minor = raw::MINOR)]
    Layout {
        /// The plugin's.
        plugin: u64,
    },
    /// A panic would end the process.
    #[error(
        "built with panic = \"abort\" (strategy {0}): its first panic would end the gateway; it has to be built with panic = \"unwind\""
    )]
    Panic(u32),
    /// It needs what is not here.
    #[error("it needs {missing}; this gateway offers {offered}")]
    Capabilities {
        /// What is not here.
        missing: Capabilities,
        /// What is.
        offered: Capabilities,
    },
    /// It has hooks for points that are not here.
    #[error("it implements points that this gateway does not know (bits {0:#x})")]
    Points(u32),
    /// A text about itself is none.
    #[error("its {0} is no text")]
    Text(&'static str),
    /// A function is missing.
    #[error("its function `{0}` is missing")]
    Function(&'static str),
}

/// A plugin that can be used: everything in its descriptor has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    name: &'static str,
    version: &'static str,
    rustc: &'static str,
    target: &'static str,
    points: PointSet,
    needs: Capabilities,
    flags: u32,
    functions: Functions,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Functions {
    pub(super) create: raw::Create,
    pub(super) destroy: raw::Destroy,
    pub(super) call: raw::OnEvent,
    pub(super) timer: raw::OnTimer,
    pub(super) shutdown: raw::Shutdown,
}

/// The longest text that a plugin may have about itself.
const MAX_ABOUT: usize = 256;

impl Library {
    /// A plugin that is linked into the program.
    ///
    /// # Errors
    /// [`Mismatch`]: such a plugin cannot have another version, but `panic = "abort"`, and it can
    /// need what is not offered.
    pub fn linked(plugin: StaticPlugin, offered: Capabilities) -> Result<Self, Mismatch> {
        // SAFETY: a `StaticPlugin` holds a descriptor that this very crate has made.
        unsafe { Self::checked(plugin.descriptor(), offered, 0) }
    }

    /// The plugin of a library that was loaded: `descriptor` is what its export gave.
    ///
    /// # Errors
    /// [`Mismatch`].
    ///
    /// # Safety
    /// The library is never unloaded, nor its descriptor changed. A pointer that is neither null
    /// nor misaligned leads to at least 8 bytes; to 40 if these are [`raw::MAGIC`]; and if version,
    /// size and layout are those of this crate, to a [`raw::Descriptor`] whose functions keep to
    /// the ABI.
    pub unsafe fn loaded(
        descriptor: *const raw::Descriptor,
        offered: Capabilities,
    ) -> Result<Self, Mismatch> {
        // SAFETY: the caller's promise.
        unsafe { Self::checked(descriptor, offered, raw::DYNAMIC) }
    }

    /// Nothing is read before what stands before it has shown that it is there.
    ///
    /// # Safety
    /// As for [`Self::loaded`].
    unsafe fn checked(
        descriptor: *const raw::Descriptor,
        offered: Capabilities,
        flags: u32,
    ) -> Result<Self, Mismatch> {
        // SAFETY: the caller's promise.
        let descriptor = unsafe { preamble(descriptor) }?;
        if descriptor.panic != raw::PANIC_UNWIND {
            return Err(Mismatch::Panic(descriptor.panic));
        }
        let needs = Capabilities::from_bits(descriptor.capabilities);
        let missing = needs.beyond(offered);
        if missing != Capabilities::NONE {
            return Err(Mismatch::Capabilities { missing, offered });
        }
        let points = descriptor.points;
        let text = |slice: raw::Slice, what| {
            // SAFETY: the descriptor is one of this ABI, whose texts are static; a wild length is
            // refused first.
            let text = (slice.len <= MAX_ABOUT).then(|| unsafe { slice.text::<'static>() });
            text.flatten().ok_or(Mismatch::Text(what))
        };
        let missing = Mismatch::Function;
        Ok(Self {
            name: text(descriptor.name, "name")?,
            version: text(descriptor.version, "version")?,
            rustc: text(descriptor.rustc, "compiler's version")?,
            target: text(descriptor.target, "target")?,
            points: PointSet::from_bits(points).ok_or(Mismatch::Points(points))?,
            needs,
            flags,
            functions: Functions {
                create: descriptor.create.ok_or(missing("create"))?,
                destroy: descriptor.destroy.ok_or(missing("destroy"))?,
                call: descriptor.call.ok_or(missing("call"))?,
                timer: descriptor.timer.ok_or(missing("timer"))?,
                shutdown: descriptor.shutdown.ok_or(missing("shutdown"))?,
            },
        })
    }

    /// Makes an instance. `services` are what it may ask for outside of calls.
    ///
    /// # Errors
    /// [`CallFault`]: it did not like its configuration, or panicked.
    pub fn instantiate(
        &self,
        config: &str,
        services: Arc<dyn Services>,
    ) -> Result<Instance, CallFault> {
        Instance::create(*self, config, services)
    }

    /// The plugin's crate.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        self.version
    }

    /// The compiler that built it, as it names itself.
    #[must_use]
    pub const fn rustc(&self) -> &'static str {
        self.rustc
    }

    /// What it was built for.
    #[must_use]
    pub const fn target(&self) -> &'static str {
        self.target
    }

    /// Where it has something to say.
    #[must_use]
    pub const fn points(&self) -> PointSet {
        self.points
    }

    /// What it needs.
    #[must_use]
    pub const fn needs(&self) -> Capabilities {
        self.needs
    }

    pub(super) const fn functions(&self) -> &Functions {
        &self.functions
    }

    pub(super) const fn flags(&self) -> u32 {
        self.flags
    }
}

/// Checks what is the same in all versions, and that the rest is of this one.
///
/// # Safety
/// As for [`Library::loaded`].
unsafe fn preamble(
    descriptor: *const raw::Descriptor,
) -> Result<&'static raw::Descriptor, Mismatch> {
    if descriptor.is_null() || !descriptor.is_aligned() {
        return Err(Mismatch::Pointer(descriptor.addr()));
    }
    // SAFETY: the caller's promise: each read needs only what the ones before have shown.
    unsafe {
        let magic = (&raw const (*descriptor).magic).read();
        if magic != raw::MAGIC {
            return Err(Mismatch::Magic(magic));
        }
        let (major, minor) =
            ((&raw const (*descriptor).major).read(), (&raw const (*descriptor).minor).read());
        if major != raw::MAJOR || minor > raw::MINOR {
            return Err(Mismatch::Version(major, minor));
        }
        let (found, expected) =
            ((&raw const (*descriptor).size).read(), size_of::<raw::Descriptor>());
        // There is one minor version, hence one size.
        if found != expected {
            return Err(Mismatch::Size { found, expected });
        }
        let plugin = (&raw const (*descriptor).layout).read();
        if plugin != LAYOUT {
            return Err(Mismatch::Layout { plugin });
        }
        Ok(&*ptr::from_ref(&*descriptor))
    }
}
