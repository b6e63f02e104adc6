//! A library's file as bytes: what can be known of it before any of it runs.
//!
//! A truncated library must not reach the system's loader, which would map what is not there and
//! end the process at the first touch.

use object::{Architecture, File, Object, ObjectKind, ObjectSegment, ObjectSymbol, SymbolKind};

/// What every plugin's export begins with.
pub(super) const PREFIX: &str = "conexus_plugin_";

/// Why the bytes are not loaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Says what they are instead.
    Image(String),
    /// A library without that symbol; the crates of the plugins that it is.
    NoSymbol(Vec<String>),
}

/// Checks that these are a whole library for this machine, with that function.
pub(super) fn check(bytes: &[u8], symbol: &str) -> Result<(), Unfit> {
    let unfit = |why: &str| Unfit::Image(why.into());
    let file = File::parse(bytes).map_err(|error| {
        Unfit::Image(format!("not a library ({})", error.to_string().to_lowercase()))
    })?;
    if file.kind() != ObjectKind::Dynamic {
        return Err(unfit("an object file, but not a shared library"));
    }
    if let Some(here) = here().filter(|here| *here != file.architecture()) {
        let other = file.architecture();
        return Err(Unfit::Image(format!("built for {other:?}, this gateway runs on {here:?}")));
    }
    let mut segments = file.segments();
    if segments.any(|segment| segment.data().is_err()) {
        return Err(unfit("truncated: it says that it is longer than it is"));
    }
    let mut exported = Vec::new();
    for export in file.dynamic_symbols().filter(ObjectSymbol::is_definition) {
        let name = export.name().map_err(|_| unfit("truncated or damaged: a name is missing"))?;
        // Mach-O puts an underscore before every name.
        let Some(name) = name.strip_prefix('_').unwrap_or(name).strip_prefix(PREFIX) else {
            continue;
        };
        if export.kind() != SymbolKind::Text {
            continue;
        }
        if symbol.strip_prefix(PREFIX) == Some(name) {
            return Ok(());
        }
        exported.push(name.to_owned());
    }
    Err(Unfit::NoSymbol(exported))
}

/// What this machine is, where it is one that the check knows.
const fn here() -> Option<Architecture> {
    if cfg!(target_arch = "x86_64") {
        Some(Architecture::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Architecture::Aarch64)
    } else {
        None
    }
}
