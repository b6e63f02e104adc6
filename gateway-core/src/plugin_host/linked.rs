//! The plugins that are linked into this program.

use conexus_plugin_api::StaticPlugin;

/// Their names, which need no `[plugins.NAME]`.
pub(crate) const NAMES: &[&str] = &[];

/// The plugins under their names.
pub(crate) fn plugins() -> Vec<(&'static str, StaticPlugin)> {
    Vec::new()
}
