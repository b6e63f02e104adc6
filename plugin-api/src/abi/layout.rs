//! One number for the layout of everything that crosses.

use std::mem::{align_of, offset_of, size_of};

use super::types::{
    Address, Call, Descriptor, Filter, HOST_TABLE, HostTable, List, Metadata, Pair, Set, Slice,
    Value, Verdict,
};

/// How many functions the table had in the first minor version: those behind are no part of the
/// hash, since they may come within a major version.
const FIRST_HOST_TABLE: usize = 36;

/// A hash over names, sizes, alignments and offsets. Two builds with the same number agree on how every
/// type is laid out, as it was in the first minor version of this major one.
pub const LAYOUT: u64 = layout();

/// FNV-1a.
const fn mix(mut hash: u64, number: usize) -> u64 {
    let bytes = (number as u64).to_le_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Without the spaces, which compilers set as they like.
const fn mix_text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b' ' {
            hash = mix(hash, bytes[at] as usize);
        }
        at += 1;
    }
    hash
}

/// A type that never grows counts whole; one that does counts by the members it began with.
macro_rules! of {
    ($hash:ident, fixed $Type:ty { $($member:ident),+ }) => {
        $hash = mix($hash, size_of::<$Type>());
        of!($hash, growing $Type { $($member),+ });
    };
    ($hash:ident, growing $Type:ty { $($member:ident),+ }) => {
        $hash = mix($hash, align_of::<$Type>());
        $(
            $hash = mix_text($hash, stringify!($member));
            $hash = mix($hash, offset_of!($Type, $member));
        )+
    };
}

const fn layout() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    of!(hash, growing Descriptor {
        magic, size, major, minor, layout, points, panic, capabilities, name, version, rustc,
        target, create, destroy, call, timer, shutdown
    });
    of!(hash, growing Call { size, table, context, point, flags, agent, other });
    of!(hash, growing HostTable { size });
    let mut at = 0;
    while at < FIRST_HOST_TABLE {
        let (offset, signature) = HOST_TABLE[at];
        hash = mix_text(mix(hash, offset), signature);
        at += 1;
    }
    of!(hash, fixed Slice { data, len });
    of!(hash, fixed List<Pair> { data, len });
    of!(hash, fixed Pair { name, value });
    of!(hash, fixed Value { kind, int, bytes });
    of!(hash, fixed Verdict { kind, code, text, nanos, set });
    of!(hash, fixed Set { labels, rate_class, metadata });
    of!(hash, fixed Metadata { name, capabilities, attributes });
    of!(hash, fixed Filter { capability, name, label, limit });
    of!(hash, fixed Address { family, port, scope, ip });
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_table_is_counted_whole() {
        assert_eq!(HOST_TABLE.len(), FIRST_HOST_TABLE, "append, and leave the number be");
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_layout_is_the_one_that_plugins_were_built_for() {
        // A change of this number breaks every plugin: it takes a new major version.
        assert_eq!(LAYOUT, 0xac1c_8b1c_bbcd_4548, "{LAYOUT:#x}");
    }
}
