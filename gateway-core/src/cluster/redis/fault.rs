//! What an engine refuses, or a connection dies of, as it is told to people.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::cluster::backplane::Away;

/// See the [module](self).
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// A script of ours, which names none of the commands that it is not allowed.
    #[error("{0}: {1}")]
    Script(&'static str, RedisError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("TLS fails: {0}")]
    Tls(std::io::Error),
    #[error("did not answer for {0:?}")]
    Late(std::time::Duration),
    #[error("it {0}")]
    Other(String),
}

impl Fault {
    /// Whether the engine has answered, and the connection is as good as before.
    pub(super) fn is_refusal(error: &RedisError) -> bool {
        matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
    }

    pub(super) fn is_unknown_script(error: &RedisError) -> bool {
        error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
    }

    pub(super) fn is_not_allowed(error: &RedisError) -> bool {
        error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
    }

    /// Whether it may be otherwise in a moment: a machine of a Redis Cluster is just handing this over to
    /// another.
    pub(super) fn is_for_now(error: &RedisError) -> bool {
        let passing = [ServerErrorKind::Ask, ServerErrorKind::TryAgain];
        passing.iter().any(|kind| error.kind() == ErrorKind::Server(*kind))
    }

    /// What went wrong with the engine there, for this user.
    pub(super) fn told(&self, at: &str, user: &str) -> Away {
        let (script, error) = match self {
            Self::Redis(error) => ("", error),
            Self::Script(name, error) => (*name, error),
            _ => return Away(format!("the engine at {at}: {self}").into()),
        };
        let said = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) if script.is_empty() => format!("{code} {detail}"),
            (Some(code), Some(detail)) => format!("{script}: {code} {detail}"),
            _ => error.to_string(),
        };
        let is_unknown = error.kind() == ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"));
        // As a script is told it.
        let is_forbidden = error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
            || said.contains("user executing the script can't");
        let told = match error.kind() {
            _ if is_unknown => {
                format!("the engine at {at} does not take user {user:?} or its password: {said}")
            }
            _ if is_forbidden => {
                format!("the engine at {at} does not let user {user:?} do that: {said}")
            }
            ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                format!("the engine at {at} is a replica: {said}")
            }
            _ => format!("the engine at {at}: {said}"),
        };
        Away(told.into())
    }
}
