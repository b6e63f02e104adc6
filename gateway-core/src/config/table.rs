//! The table of known keys: what a setting is called, what it may be, and what it is for.
//!
//! [`sections!`] declares the typed sections and this table in one go, so that neither can
//! know a key that the other does not. The walk over files, `conexus config` and whatever explains
//! the configuration to people and editors (`document`) all read it.

use super::kind::Kind;

/// Keys that a reload takes over, beside the operator's own tables: whole, or as the beginning of
/// several. All others need a restart.
const HOT: [&str; 5] = ["ice.", "policy.budget", "policy.breaker_", "scripts.", "tls."];

/// One known key.
#[derive(Debug)]
pub struct Key {
    /// `presence.timeout`.
    pub path: &'static str,
    /// Its documentation, line by line, as in [`Settings`](super::Settings).
    pub doc: &'static [&'static str],
    /// A value in TOML, where the key is unset by default.
    pub example: Option<&'static str>,
    pub(super) kind: Kind,
}

impl Key {
    /// `presence`, or `cluster.redis` of a section within another.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// `timeout`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Where [`Settings`](super::Settings) has it: a section within another is a field of its own there.
    pub(super) fn field(&self) -> (String, &'static str) {
        (self.section().replace('.', "_"), self.name())
    }

    /// `CONEXUS_PRESENCE__TIMEOUT`: the environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("CONEXUS_{}", self.path.replace('.', "__").to_ascii_uppercase())
    }

    /// Whether a reload takes a change of it over.
    pub fn is_hot(&self) -> bool {
        HOT.iter().any(|hot| self.path.starts_with(hot))
    }
}

/// Declares one struct per section, [`Settings`](super::Settings) that holds them all, their
/// defaults, and the table of keys.
macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        $section:ident: $Section:ident { $(
            $(#[doc = $doc:literal])+
            $(#[serde($($serde:tt)+)])?
            $key:ident: $Type:ty = $default:expr, $kind:expr $(, example $example:literal)?;
        )+ }
    )+) => {
        /// All that the gateway lets its operator decide. Share it in an `Arc`.
        ///
        /// [`Settings::default`] holds the built-in defaults; [`load`](fn@super::load) reads
        /// and validates.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $( $(#[doc = $about])+ pub $section: $Section, )+
            /// The tables whose names are the operator's own.
            #[serde(skip)]
            pub policies: Policies,
            /// `[admin_token.NAME]`: who may ask the admin listener.
            #[serde(skip)]
            pub admin_tokens: AdminTokens,
        }

        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $Section { $(
                $(#[doc = $doc])+
                $(#[serde($($serde)+)])?
                pub $key: $Type,
            )+ }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }
        )+

        /// Every section in the order of `gateway.toml`, with its documentation.
        pub const SECTIONS: &[(&str, &[&str])] =
            &[$( (section_path!($section), &[$($about),+]) ),+];

        /// Every key in the order of `gateway.toml`.
        pub const KEYS: &[Key] = &[$($( Key {
            path: concat!(section_path!($section), ".", stringify!($key)),
            doc: &[$($doc),+],
            example: [$(Some($example),)? None][0],
            kind: $kind,
        }, )+)+];
    };
}
pub(super) use sections;

/// What a section is called: as its field, unless it is within another.
macro_rules! section_path {
    (cluster_redis) => {
        "cluster.redis"
    };
    ($section:ident) => {
        stringify!($section)
    };
}
pub(super) use section_path;
