//! What there is to listen to, and sets of it.

/// What there is to listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// The figures of the last second.
    Overview,
    /// An agent came, renewed its registration, left, or was refused.
    Session,
    /// Who talks to whom, each second.
    Flow,
    /// Hooks decided.
    Decision,
    /// An operator did something.
    Audit,
    /// Another generation of policy runs, or was refused.
    Reload,
    /// A message of the agent that is followed.
    Message,
}

impl Topic {
    pub(super) const ALL: [Self; 7] = [
        Self::Overview,
        Self::Session,
        Self::Flow,
        Self::Decision,
        Self::Audit,
        Self::Reload,
        Self::Message,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Session => "session",
            Self::Flow => "flow",
            Self::Decision => "decision",
            Self::Audit => "audit",
            Self::Reload => "reload",
            Self::Message => "message",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == name)
    }
}

/// A set of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Topics(pub(super) u32);

impl Topics {
    /// All but messages, which need an agent.
    pub(crate) const USUAL: Self =
        Self(!Self::of(Topic::Message).0 & ((1 << Topic::ALL.len()) - 1));
    /// What an export of all messages stands for among those who listen.
    pub(super) const EXPORT: u32 = 1 << Topic::ALL.len();
    pub(super) const MESSAGES: Self =
        Self(Self::of(Topic::Message).0 | Self::of(Topic::Flow).0 | Self::EXPORT);

    pub(super) const fn of(topic: Topic) -> Self {
        Self(1 << topic as u32)
    }

    pub(crate) const fn with(self, topic: Topic) -> Self {
        Self(self.0 | Self::of(topic).0)
    }

    pub(crate) const fn contains(self, topic: Topic) -> bool {
        self.0 & Self::of(topic).0 != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Topic> {
        Topic::ALL.into_iter().filter(move |topic| self.contains(*topic))
    }
}
