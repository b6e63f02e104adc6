//! The settings that are one of a few words.

use serde::{Deserialize, Serialize};

/// Declares an enum whose variants are words of the configuration.
macro_rules! choices {
    ($($(#[$about:meta])* $Name:ident { $($(#[$meta:meta])* $Variant:ident = $word:literal),+ $(,)? })+) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $Name { $($(#[$meta])* #[serde(rename = $word)] $Variant),+ }

        impl $Name {
            /// The words, as the configuration has them.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }
    )+ };
}

choices! {
    /// Who may read the list of agents.
    AgentsAccess {
        /// Anyone who reaches the listener, as with the reference.
        Public = "public",
        /// Whoever sends `Authorization: Bearer` and the token.
        Token = "token",
        /// No one: the path does not exist.
        Off = "off",
    }

    /// Which header of a trusted proxy tells whom it speaks for.
    ForwardedHeader {
        /// The usual one.
        XForwardedFor = "x-forwarded-for",
        /// RFC 7239's.
        Forwarded = "forwarded",
        /// None: a proxy that adds no header leaves standing what its clients send.
        Off = "off",
    }

    /// Whether the quirks of the reference client are tolerated (PROTOCOL part 1).
    Compat {
        /// Tolerated on `ioap.v1`.
        Reference = "reference",
        /// Refused.
        Strict = "strict",
    }

    /// What becomes of the signatures of routed messages (PROTOCOL duty 3).
    RoutedSignatures {
        /// Each message carries one, and it verifies.
        Required = "required",
        /// One that is there verifies; an empty one counts as absent.
        WhenPresent = "when_present",
        /// Left to the receiver.
        Off = "off",
    }

    /// What kind of Redis the nodes of a cluster share.
    RedisMode {
        /// One, or what looks like one.
        Single = "single",
        /// One of several, and Sentinels know which.
        Sentinel = "sentinel",
        /// A Redis Cluster.
        Cluster = "cluster",
    }

    /// What renews a lease (PROTOCOL duty 10).
    Activity {
        /// Any frame, a WebSocket pong included.
        Frames = "frames",
        /// Messages only, as with the reference.
        Messages = "messages",
    }

    /// The oldest version of TLS that is spoken.
    TlsVersion {
        /// TLS 1.2 (RFC 5246), and later ones.
        V1_2 = "1.2",
        /// TLS 1.3 (RFC 8446).
        V1_3 = "1.3",
    }

    /// Whether agents show a certificate.
    ClientAuth {
        /// They are not asked for one.
        Off = "off",
        /// One that is shown must be valid.
        Optional = "optional",
        /// Whoever shows none is not let in.
        Required = "required",
    }

    /// How the log is written.
    LogFormat {
        /// For people, in colour if it goes to a terminal.
        Auto = "auto",
        /// For people, without colour.
        Human = "human",
        /// One JSON object per line.
        Json = "json",
    }
}
