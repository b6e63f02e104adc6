//! The plugins that are linked into this program.

use conexus_plugin_api::StaticPlugin;

/// Declares the list once: under which name, and of which crate.
macro_rules! linked {
    ($($name:literal: $krate:ident),* $(,)?) => {
        /// Their names, which need no `[plugins.NAME]`.
        #[cfg(feature = "stock-plugins")]
        pub(crate) const NAMES: &[&str] = &[$($name),*];
        /// None: this program was built without them.
        #[cfg(not(feature = "stock-plugins"))]
        pub(crate) const NAMES: &[&str] = &[];

        /// The plugins under their names.
        pub(crate) fn plugins() -> Vec<(&'static str, StaticPlugin)> {
            #[cfg(feature = "stock-plugins")]
            return vec![$(($name, $krate::plugin())),*];
            #[cfg(not(feature = "stock-plugins"))]
            return Vec::new();
        }
    };
}

linked! {
    "audit-log": audit_log,
    "capability-router": capability_router,
    "jwt-auth": jwt_auth,
    "quota": quota,
    "webhook": webhook,
}
