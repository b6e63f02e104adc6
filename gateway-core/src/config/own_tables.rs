//! The tables whose names are the operator's own, `[hook.NAME]` and the like: their keys, what may be
//! there, and what they are for.
//!
//! `named` walks over them; `document` explains them.

use std::time::Duration;

use super::{
    kind::Kind,
    policies::{FailMode, HookScope, Mode},
    tokens::Scope,
};

/// One kind of such tables.
pub(super) struct OwnTable {
    /// `hook`.
    pub(super) name: &'static str,
    /// `[hook.NAME]`.
    pub(super) header: &'static str,
    /// A header as a file may have it.
    pub(super) sample: &'static str,
    /// What it is for, a paragraph each.
    pub(super) about: &'static [&'static str],
    pub(super) fields: &'static [Field],
    /// What is to be said about its keys, a paragraph each.
    pub(super) notes: &'static [&'static str],
}

/// A key of such a table.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// A value in TOML.
    pub(super) example: &'static str,
    pub(super) doc: &'static str,
}

/// What holds where a key is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// It has to be.
    Required,
    /// Nothing; its documentation says what that means.
    Unset,
    /// This value, in TOML.
    Value(&'static str),
}

impl OwnTable {
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        OWN_TABLES.iter().find(|table| table.name == name)
    }
}

const INSTANT: Duration = Duration::from_millis(1);
const ANY_COUNT: Kind = Kind::count(0, u32::MAX as usize);
const ANY_RATE_OF_BYTES: Kind = Kind::size(0, 1 << 30);

/// In the order of `gateway.toml`.
pub(super) const OWN_TABLES: &[OwnTable] = &[HOOK, CHAIN, PLUGINS, RATE_CLASS, ADMIN_TOKEN];

const HOOK: OwnTable = OwnTable {
    name: "hook",
    header: "[hook.NAME]",
    sample: "[hook.members]",
    about: &["A hook: code that is configured and keeps state of its own."],
    fields: &[
        Field {
            name: "use",
            kind: Kind::HookUse,
            default: Default::Required,
            example: r#""script:allowlist""#,
            doc: r#"scripts.path/allowlist.rhai, or "plugin:NAME""#,
        },
        Field {
            name: "config",
            kind: Kind::Table,
            default: Default::Value("{}"),
            example: r#"{ file = "agents.txt" }"#,
            doc: "any table, handed to it; see below",
        },
        Field {
            name: "blocking",
            kind: Kind::Flag,
            default: Default::Value("false"),
            example: "false",
            doc: "true: called on the pool of blocking threads",
        },
        Field {
            name: "tick",
            kind: Kind::duration(Duration::from_millis(10)),
            default: Default::Unset,
            example: r#""10s""#,
            doc: "how often its on_tick is called; unset: never",
        },
        Field {
            name: "namespace",
            kind: Kind::Name,
            default: Default::Unset,
            example: r#""members""#,
            doc: "the name of its state, to share one; unset: its own name",
        },
        Field {
            name: "scope",
            kind: Kind::Choice(HookScope::WORDS),
            default: Default::Value(r#""local""#),
            example: r#""local""#,
            doc: r#""cluster": its state and the agents it finds are the whole cluster's"#,
        },
    ],
    notes: &[
        "In a config, a text at a key \"file\" or one that ends in \"_file\" is a path, which starts at \
         the folder of the file that sets it. { env = \"NAME\" } and { secret_file = \"…\" } below the \
         top are secrets: the hook gets the text, and nobody else sees it.",
    ],
};

const CHAIN: OwnTable = OwnTable {
    name: "chain",
    header: "[[chain.on_POINT]]",
    sample: "[[chain.on_register]]",
    about: &[
        "A chain: which hooks are asked at a point, in order. Points that decide: on_connect, \
         on_register, on_route, on_undeliverable, on_watch, on_expire. Points that are told: \
         on_registered, on_replaced, on_delivered, on_disconnect, on_unregister, on_hook_error.",
    ],
    fields: &[
        Field {
            name: "hook",
            kind: Kind::Text,
            default: Default::Required,
            example: r#""members""#,
            doc: "the name of a [hook.NAME]",
        },
        Field {
            name: "mode",
            kind: Kind::Choice(Mode::WORDS),
            default: Default::Value(r#""enforce""#),
            example: r#""enforce""#,
            doc: r#""shadow": asked and recorded, not obeyed; "off": not asked"#,
        },
        Field {
            name: "on_error",
            kind: Kind::Choice(FailMode::WORDS),
            default: Default::Unset,
            example: r#""closed""#,
            doc: r#"a failure denies, as it does when unset; "open": it counts as nothing said"#,
        },
        Field {
            name: "budget",
            kind: Kind::duration(INSTANT),
            default: Default::Unset,
            example: r#""50ms""#,
            doc: "how long a call may take; unset: policy.budget",
        },
        Field {
            name: "warn",
            kind: Kind::duration(INSTANT),
            default: Default::Unset,
            example: r#""25ms""#,
            doc: "longer calls are slow: counted, warned about; unset: half of the budget",
        },
    ],
    notes: &[],
};

const PLUGINS: OwnTable = OwnTable {
    name: "plugins",
    header: "[plugins.NAME]",
    sample: "[plugins.quota]",
    about: &["Where a native plugin lies that is not built in."],
    fields: &[
        Field {
            name: "path",
            kind: Kind::Path,
            default: Default::Required,
            example: r#""plugins/libquota.so""#,
            doc: "the library, or the folder of lib + NAME (or crate)",
        },
        Field {
            name: "sha256",
            kind: Kind::Sha256,
            default: Default::Unset,
            example: r#""…""#,
            doc: "64 hexadecimal digits that its content must hash to",
        },
        Field {
            name: "crate",
            kind: Kind::Name,
            default: Default::Unset,
            example: r#""quota""#,
            doc: "where the file's name does not give it",
        },
    ],
    notes: &[],
};

const RATE_CLASS: OwnTable = OwnTable {
    name: "rate_class",
    header: "[rate_class.NAME]",
    sample: "[rate_class.bulk]",
    about: &["A rate that on_register may give an agent, in place of the one in [limits]."],
    fields: &[
        Field {
            name: "messages_per_second",
            kind: ANY_COUNT,
            default: Default::Value("0"),
            example: "100",
            doc: "0: no limit",
        },
        Field {
            name: "message_burst",
            kind: ANY_COUNT,
            default: Default::Value("0"),
            example: "500",
            doc: "0: as many as messages_per_second",
        },
        Field {
            name: "bytes_per_second",
            kind: ANY_RATE_OF_BYTES,
            default: Default::Value(r#""0B""#),
            example: r#""1MiB""#,
            doc: r#""0B": no limit"#,
        },
        Field {
            name: "bytes_burst",
            kind: ANY_RATE_OF_BYTES,
            default: Default::Value(r#""0B""#),
            example: r#""4MiB""#,
            doc: r#""0B": as many as bytes_per_second, or limits.message_bytes where that is more"#,
        },
    ],
    notes: &[],
};

const ADMIN_TOKEN: OwnTable = OwnTable {
    name: "admin_token",
    header: "[admin_token.NAME]",
    sample: "[admin_token.ops]",
    about: &[
        "Who may ask the admin listener. Without any, whoever is on this machine; with one, nobody \
         without. `conexus token` makes a token and these lines. A reload takes them over; one without \
         any lets nobody in where there were some, a restart does.",
    ],
    fields: &[
        Field {
            name: "sha256",
            kind: Kind::Sha256,
            default: Default::Required,
            example: r#""…""#,
            doc: "of the token, 64 hexadecimal digits",
        },
        Field {
            name: "scope",
            kind: Kind::Choice(Scope::WORDS),
            default: Default::Value(r#""read""#),
            example: r#""read""#,
            doc: r#""operate": may change things, too"#,
        },
    ],
    notes: &[],
};
