//! The names of keys and channels. What is in braces decides on which machine of a Redis Cluster one
//! is, so that all that one script touches is on one machine.

use crate::cluster::ids::{Bucket, MemberId};

/// What all names begin with.
#[derive(Debug, Clone)]
pub(super) struct Names(String);

/// The names of one part of the directory.
#[derive(Debug)]
pub(super) struct Part(String);

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    /// Who is there, and until when.
    pub(super) fn roster(&self) -> String {
        format!("{{{}}}:roster", self.0)
    }

    /// What they tell of themselves.
    pub(super) fn nodes(&self) -> String {
        format!("{{{}}}:nodes", self.0)
    }

    /// Who was struck off, and until when whoever did so may take to bury it.
    pub(super) fn unburied(&self) -> String {
        format!("{{{}}}:unburied", self.0)
    }

    /// Who is banned: what there is to say of each, when each ban ends, and as of what they are.
    pub(super) fn bans(&self) -> [String; 3] {
        ["", ":ends", ":as-of"].map(|part| format!("{{{}}}:bans{part}", self.0))
    }

    /// The channel of a member.
    pub(super) fn member(&self, member: MemberId) -> String {
        format!("{{{}:n:{member}}}", self.0)
    }

    pub(super) fn part(&self, Bucket(bucket): Bucket) -> Part {
        Part(format!("{{{}:{bucket}}}", self.0))
    }

    /// A value that hooks share. Every key is by itself, and values end otherwise than rates do.
    pub(super) fn value(&self, namespace: &str, key: &str) -> String {
        format!("{{{}:s:{namespace}:{key}}}", self.0)
    }

    /// A rate limit that they share.
    pub(super) fn rate(&self, namespace: &str, key: &str) -> String {
        format!("{{{}:s:{namespace}:{key}}}:rate", self.0)
    }
}

impl Part {
    pub(super) fn directory(&self) -> String {
        format!("{}:dir", self.0)
    }

    /// The last epoch that was given out.
    pub(super) fn epoch(&self) -> String {
        format!("{}:epoch", self.0)
    }

    /// Which agents a member has. One that moved away may linger there for a moment.
    pub(super) fn of(&self, member: MemberId) -> String {
        format!("{}:of:{member}", self.0)
    }

    pub(super) fn changes(&self) -> String {
        format!("{}:changes", self.0)
    }
}
