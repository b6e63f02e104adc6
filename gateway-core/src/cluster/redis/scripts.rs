//! What the engine runs by itself, so that nothing comes between: scripts, known by their hashes.

use std::sync::LazyLock;

use redis::{Cmd, Script};

macro_rules! scripts {
    ($($(#[$meta:meta])* $NAME:ident = [$($file:literal),+];)+) => { $(
        $(#[$meta])*
        pub(super) static $NAME: LazyLock<Stored> = LazyLock::new(|| {
            let name = [$($file),+].last().copied().unwrap_or_default();
            Stored::new(name, concat!($(include_str!(concat!("lua/", $file)), "\n"),+))
        });
    )+ };
}

scripts! {
    RENEW = ["prelude.lua", "renew.lua"];
    STRIKE = ["prelude.lua", "strike.lua"];
    RETIRE = ["prelude.lua", "retire.lua"];
    PUT = ["prelude.lua", "directory.lua", "put.lua"];
    RELEASE = ["prelude.lua", "directory.lua", "release.lua"];
    FORGET = ["prelude.lua", "directory.lua", "forget.lua"];
    DESCRIBE = ["prelude.lua", "describe.lua"];
    ENTRIES = ["prelude.lua", "directory.lua", "entries.lua"];
    MISSING = ["prelude.lua", "missing.lua"];
    CLEAR = ["prelude.lua", "directory.lua", "clear.lua"];
    BAN = ["prelude.lua", "ban.lua"];
    BANS = ["prelude.lua", "bans.lua"];
    SET = ["prelude.lua", "set.lua"];
    DELETE = ["prelude.lua", "delete.lua"];
    INCR = ["prelude.lua", "incr.lua"];
    CAS = ["prelude.lua", "cas.lua"];
    EXPIRE = ["prelude.lua", "expire.lua"];
    RATE = ["prelude.lua", "rate.lua"];
}

/// A script of ours.
#[derive(Debug)]
pub(super) struct Stored {
    /// What it is told by to people.
    pub(super) name: &'static str,
    code: &'static str,
    hash: String,
}

impl Stored {
    fn new(name: &'static str, code: &'static str) -> Self {
        Self { name, code, hash: Script::new(code).get_hash().to_owned() }
    }

    /// Begins a call by the hash, which an engine knows unless it was started anew, or forgot it.
    pub(super) fn by_hash(&self) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.hash);
        call
    }

    /// The same call with the script itself, by which the engine knows it from then on.
    pub(super) fn in_full(&self, by_hash: &Cmd) -> Cmd {
        let mut call = redis::cmd("EVAL");
        call.arg(self.code);
        for argument in by_hash.args_iter().skip(2) {
            if let redis::Arg::Simple(argument) = argument {
                call.arg(argument);
            }
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_in_full_has_the_same_arguments() {
        let mut call = RENEW.by_hash();
        call.arg(1).arg("key").arg(b"a\0b");
        let full = RENEW.in_full(&call).get_packed_command();
        assert!(full.ends_with(b"$1\r\n1\r\n$3\r\nkey\r\n$3\r\na\0b\r\n"));
        assert!(full.starts_with(b"*5\r\n$4\r\nEVAL\r\n"));
        assert_eq!((RENEW.name, RENEW.hash.len()), ("renew.lua", 40));
    }
}
